"""All-pairs distances: from points, and from tangent vectors at the origin."""

from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_matrices, curvature_of, narrow, wide
from embedkit.geometry._haversine import haversine_distances
from embedkit.geometry._scalars import length, shortened
from embedkit.geometry.poincare._all_pairs import poincare_distances
from embedkit.geometry.poincare._ball import points_and_gap
from embedkit.ops import accumulation_dtype


def pairwise_distance(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "n m"]:
    """Hyperbolic distance of every x to every y, the formula of :func:`distance`.

    It runs over blocks of rows, forward and backward: beyond the result, time and memory are those
    of a few matrix products, and nothing of size n x m x d is made. Squared differences come from
    float64 products; the few pairs so close that these cancel, above all a point and itself, are
    computed from their differences. Float32 distances have a relative error below 1e-5 for
    near-duplicates and near the edge.

    Args:
        x: points.
        y: points of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor. Gradients flow into
            x, y and the curvature, once: a second backward through them is not defined.

    Returns:
        Distances in the dtype of ``x``; equal points have distance 0 and gradient 0.

    Raises:
        ValueError: if the curvature is not > 0, widths differ, or points are not in rows.
        TypeError: if points are not floating, or of two dtypes.

    Source: Nickel and Kiela 2017, Poincaré Embeddings for Learning Hierarchical Representations,
    eq. 1.

    >>> points = torch.tensor([[0.3, 0.1], [-0.2, 0.4]])
    >>> pairwise_distance(points, points)
    tensor([[0.0000, 1.2843],
            [1.2843, 0.0000]])
    """
    check_matrices(x=x, y=y)
    c = curvature_of("poincare.pairwise_distance", curvature, x)
    (a, of_x), (b, of_y) = points_and_gap(x, c), points_and_gap(y, c)
    like = x.new_empty(0, dtype=accumulation_dtype(x.dtype))
    result = poincare_distances(a, b, of_x[:, 0], of_y[:, 0], c, like)
    return narrow(result, x.dtype)


def tangent_distance(
    u: Float[Tensor, "n d"], v: Float[Tensor, "m d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "n m"]:
    """Distance of expmap0(u) to expmap0(v) for every pair, without going to the ball.

    d = (2/s) asinh sqrt( sinh^2((a-b)/2) + sinh(a) sinh(b) sin^2(t/2) ),  a = 2s|u|,  b = 2s|v|,
    t the angle between both: the haversine formula. There is no edge, so points of any radius keep
    their digits; near the origin :func:`pairwise_distance` is as good, and faster.

    Args:
        u: tangent vectors at the origin, as :func:`expmap0` takes them.
        v: tangent vectors of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor. Gradients flow into
            u, v and the curvature, once.

    Returns:
        Distances in the dtype of ``u``; equal vectors have distance 0 and gradient 0. Errors as
        for :func:`pairwise_distance`.

    Source: Ungar 2008, A Gyrovector Space Approach to Hyperbolic Geometry (the hyperbolic law of
    cosines, in half-angle form).

    >>> tangent_distance(torch.tensor([[30.0, 0.0]]), torch.tensor([[0.0, 30.0], [31.0, 0.0]]))
    tensor([[119.3069,   2.0000]])
    """
    check_matrices(u=u, v=v)
    c = curvature_of("poincare.tangent_distance", curvature, u)
    root = c.sqrt()
    (a, short_a), (b, short_b) = shortened(wide(u), u.dtype), shortened(wide(v), v.dtype)
    like = u.new_empty(0, dtype=accumulation_dtype(u.dtype))
    of_a, of_b = (2 * root * length(a) / short_a)[:, 0], (2 * root * length(b) / short_b)[:, 0]
    result = haversine_distances(a, b, of_a, of_b, 2 * root.detach(), like)
    return narrow(2 * result / root, u.dtype)
