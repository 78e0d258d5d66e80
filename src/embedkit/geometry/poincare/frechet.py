"""The Fréchet mean: the point with the least weighted sum of squared distances."""

# ruff: noqa: ARG001 (the signatures of an operator and of its shape rule must agree)

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import check_at_least, check_mask, check_positive
from embedkit.geometry._centroid import centroid_of_set
from embedkit.geometry._curvature import check_vectors, curvature_of, point_weights
from embedkit.geometry._pairs import transformable
from embedkit.geometry._scalars import asinhc, dot, length
from embedkit.geometry.poincare._ball import gap, inside, points_and_gap
from embedkit.geometry.poincare.maps import exp_at, log_at
from embedkit.geometry.poincare.midpoint import back
from embedkit.ops import zero_padding


def frechet_mean(
    x: Float[Tensor, "*b n d"],
    weight: Float[Tensor, "*#b n"] | None = None,
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
    max_iter: int = 64,
    tol: float = 1e-9,
) -> Float[Tensor, "*b d"]:
    """The point that minimises  sum_i w_i d(m, x_i)^2,  by Newton steps from :func:`midpoint`.

    It moves with every isometry, and for two points lies on the path between them, where the
    weights put it. There is one minimum. A step solves a d x d system for each set; where only
    *some* middle is needed, :func:`midpoint` has a formula.

    Args:
        x: points.
        weight: one number >= 0 per point; only ratios count. None: equal weights.
        mask: True where a point is real, False where it is padding. None: all real.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.
        max_iter: steps at most; fewer than ten are usual.
        tol: sqrt(c) times the length of a step at which to stop.

    Returns:
        Points inside the ball, in the dtype of ``x``; the origin where no point has weight.
        Gradients do not go through the steps: they are those of the minimum (the implicit function
        theorem), right once the steps have come to an end, and for one backward.

    Raises:
        ValueError: if the curvature or ``tol`` is not > 0, shapes do not fit, or a weight is
            negative (looked at on a CPU, outside compiled graphs).
        TypeError: if points are not floating, or the mask is not bool.

    Source: Karcher 1977, Riemannian Center of Mass and Mollifier Smoothing; Lou et al. 2020,
    Differentiating through the Fréchet Mean (implicit gradients).
    Differs: Newton steps, halved where they overshoot; steps along the gradient, as is usual, go
    wide where points are far apart.

    >>> frechet_mean(torch.tensor([[0.3, 0.1], [-0.2, 0.4]]))
    tensor([0.0324, 0.2374])
    """
    check_vectors(x=x)
    if x.ndim < 2:
        raise ValueError(f"x: expected points (..., n, d), got shape {tuple(x.shape)}")
    check_mask(mask, x, owner="x", name="mask")
    check_at_least("poincare.frechet_mean", "max_iter", max_iter, 1)
    check_positive("poincare.frechet_mean", "tol", tol, "Try 1e-9.")
    c = curvature_of("poincare.frechet_mean", curvature, x)
    share = point_weights("poincare.frechet_mean", weight, x, mask)
    whole = share.sum(dim=-2, keepdim=True)
    share = share / whole.masked_fill(whole <= 0, 1.0)
    a, of_x = points_and_gap(zero_padding(x, mask), c)
    fixed = [t.detach() for t in (a, of_x, share.expand_as(of_x), c)]
    mean = _minimum(*fixed, max_iter, tol)
    gradient, hessian = _slope(mean, a, of_x, share, c)
    step = _solved(hessian.detach(), gradient)
    return inside(exp_at(mean, step, gap(mean, fixed[3], mean.dtype), c, x.dtype), c, x.dtype)


@torch.library.custom_op("embedkit::frechet_minimum", mutates_args=())
def frechet_minimum(
    x: Tensor, of_x: Tensor, share: Tensor, c: Tensor, max_iter: int, tol: float
) -> Tensor:
    """(*b, d)  The mean of wide points (*b, n, d) with shares (*b, n, 1) that sum to 1."""
    mean = back(centroid_of_set(2 * x / of_x, share, c), c, x.dtype)
    part = torch.ones_like(mean[..., :1])
    for _ in range(max_iter):
        step = _solved(*reversed(_slope(mean, x, of_x, share, c)))
        of_mean = gap(mean, c, mean.dtype)
        there = inside(exp_at(mean, part * step, of_mean, c, x.dtype), c, x.dtype)
        least = _objective(mean, x, of_x, share, c) * (1 + 1e-12)  # which leaves room for rounding
        lower = _objective(there, x, of_x, share, c) <= least
        mean, part = torch.where(lower, there, mean), torch.where(lower, 1.0, part / 2)
        if not (2 * c.sqrt() * length(step) / of_mean > tol).any():
            break
    return mean


@frechet_minimum.register_fake
def _(x: Tensor, of_x: Tensor, share: Tensor, c: Tensor, max_iter: int, tol: float) -> Tensor:
    return x.new_empty(*x.shape[:-2], x.shape[-1])


_minimum = transformable(frechet_minimum)


def _objective(mean: Tensor, x: Tensor, of_x: Tensor, share: Tensor, c: Tensor) -> Tensor:
    """(*b, 1)  A fourth of the mean of c d^2."""
    m = mean[..., None, :]
    offset = x - m
    squared = c * dot(offset, offset) / (gap(m, c, m.dtype) * of_x)
    return (share * squared.sqrt().asinh().square()).sum(dim=-2)


def _slope(
    mean: Tensor, x: Tensor, of_x: Tensor, share: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """Minus the gradient of half the objective in the tangent space of the mean, and its Hessian.

    Along the way to a point at distance d the squared distance has second derivative 1, across it
    s d coth(s d).
    """
    m = mean[..., None, :]
    of_m = gap(m, c, m.dtype)
    way = log_at(m, x, of_m, of_x, c)
    offset = x - m
    squared = c * dot(offset, offset) / (of_m * of_x)
    apart = 2 * squared.sqrt() * asinhc(squared)
    near = apart < 1e-4
    bend = (apart / apart.tanh().masked_fill(near, 1.0)).masked_fill(near, 1.0)
    size = length(way)
    unit = way / size.masked_fill(size == 0, 1.0)
    hessian = torch.diag_embed((share * bend).sum(dim=-2).expand_as(mean))
    hessian = hessian - (unit * (share * (bend - 1))).mT @ unit
    return (share * way).sum(dim=-2), hessian


def _solved(hessian: Tensor, gradient: Tensor) -> Tensor:
    """The Newton step; none where no point has weight."""
    none = (hessian.diagonal(dim1=-2, dim2=-1) == 0).all(dim=-1)[..., None, None]
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    step: Tensor = torch.linalg.solve_ex(torch.where(none, eye, hessian), gradient[..., None])[0]
    return step[..., 0]
