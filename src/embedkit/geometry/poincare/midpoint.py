"""The weighted middle of points: of a set, and of every segment of many points."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import check_mask
from embedkit.geometry._curvature import check_vectors, curvature_of, point_weights, wide
from embedkit.geometry._scalars import dot
from embedkit.geometry.poincare._ball import gap, inside
from embedkit.ops import segment_mean, zero_padding


def midpoint(
    x: Float[Tensor, "*b n d"],
    weight: Float[Tensor, "*#b n"] | None = None,
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "*b d"]:
    """Gyromidpoint of n points:  (1/2) (x) ( sum_i w_i L_i x_i / sum_i w_i (L_i - 1) ).

    L_i is the :func:`conformal_factor`. It is the Einstein midpoint of Klein coordinates and the
    centroid of the hyperboloid, moves with every isometry, and for two equal weights lies half-way
    on the path between both.

    Args:
        x: points.
        weight: one number >= 0 per point; only ratios count. None: equal weights.
        mask: True where a point is real, False where it is padding. None: all real.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``x``; the origin where no point has weight.

    Raises:
        ValueError: if the curvature is not > 0, shapes do not fit, or a weight is negative (looked
            at on a CPU, outside compiled graphs).
        TypeError: if points are not floating, or the mask is not bool.

    Source: Ungar 2008, A Gyrovector Space Approach to Hyperbolic Geometry; Shimizu et al. 2021,
    Hyperbolic Neural Networks++, sec. 3.5.
    Differs: the Fréchet mean, which minimises squared distances, is another point for n > 2.

    >>> midpoint(torch.tensor([[0.3, 0.1], [-0.2, 0.4]]))
    tensor([0.0324, 0.2374])
    """
    check_vectors(x=x)
    if x.ndim < 2:
        raise ValueError(f"x: expected points (..., n, d), got shape {tuple(x.shape)}")
    check_mask(mask, x, owner="x", name="mask")
    c = curvature_of("poincare.midpoint", curvature, x)
    share = point_weights("poincare.midpoint", weight, x)
    if mask is not None:
        share = share.masked_fill(~mask, 0.0)
    sums = (_moments(wide(zero_padding(x, mask)), c, x.dtype) * share[..., None]).sum(dim=-2)
    return _middle(sums, c, x.dtype)


def segment_midpoint(
    x: Float[Tensor, "n d"],
    ids: Int[Tensor, " n"],
    num_segments: int,
    weight: Float[Tensor, " n"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "s d"]:
    """:func:`midpoint` of the points of every segment; the origin for one without points.

    Args:
        x: points, in any order.
        ids: the segment of each, 0 to num_segments - 1.
        num_segments: how many there are.
        weight: one number >= 0 per point. None: equal weights.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        One point per segment, in the dtype of ``x``. With the source nodes of a graph's edges as
        points and their targets as ids it is one step of hyperbolic aggregation.

    Raises:
        ValueError, TypeError: as :func:`midpoint`.
        IndexError: if an id is out of range.

    >>> segment_midpoint(torch.tensor([[0.3, 0.1], [-0.2, 0.4]]), torch.tensor([1, 1]), 2)
    tensor([[0.0000, 0.0000],
            [0.0324, 0.2374]])
    """
    check_vectors(x=x)
    c = curvature_of("poincare.segment_midpoint", curvature, x)
    share = point_weights("poincare.segment_midpoint", weight, x)
    moments = _moments(wide(x), c, x.dtype) * share[..., None]
    return _middle(segment_mean(moments, ids, num_segments), c, x.dtype)


def _moments(x: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., d + 2): space and sqrt(c) * time of the hyperboloid's point, and 1 for the weights."""
    factor = gap(x, c, dtype)
    return torch.cat([2 * x, 1 + c * dot(x, x), factor], dim=-1) / factor


def _middle(sums: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """space / (time + sqrt(time^2 - c |space|^2)), where the root is no less than the weights."""
    width = sums.shape[-1] - 2
    space, time, total = torch.split(sums, [width, 1, 1], dim=-1)
    none = total <= 0
    least = total.detach().square().masked_fill(none, 1.0)
    root = (time.square() - c * dot(space, space)).clamp_min(least).sqrt()
    return inside(space / (time + root), c, dtype)
