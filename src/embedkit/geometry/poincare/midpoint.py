"""The weighted middle of points: of a set, and of every segment of many points."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import check_mask
from embedkit.geometry._centroid import centroid_of_segments, centroid_of_set
from embedkit.geometry._curvature import check_vectors, curvature_of, point_weights
from embedkit.geometry._scalars import dot
from embedkit.geometry.poincare._ball import inside, points_and_gap
from embedkit.ops import zero_padding


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
    Differs: :func:`frechet_mean`, which minimises squared distances, is another point for n > 2.

    >>> midpoint(torch.tensor([[0.3, 0.1], [-0.2, 0.4]]))
    tensor([0.0324, 0.2374])
    """
    check_vectors(x=x)
    if x.ndim < 2:
        raise ValueError(f"x: expected points (..., n, d), got shape {tuple(x.shape)}")
    check_mask(mask, x, owner="x", name="mask")
    c = curvature_of("poincare.midpoint", curvature, x)
    share = point_weights("poincare.midpoint", weight, x, mask)
    space = hyperboloid(zero_padding(x, mask), c)
    return back(centroid_of_set(space, share, c), c, x.dtype)


def segment_midpoint(
    x: Float[Tensor, "n d"],
    ids: Int[Tensor, " n"],
    num_segments: int,
    weight: Float[Tensor, " n"] | None = None,
    mask: Bool[Tensor, " n"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "s d"]:
    """:func:`midpoint` of the points of every segment; the origin for one without points.

    Args:
        x: points, in any order.
        ids: the segment of each, 0 to num_segments - 1.
        num_segments: how many there are.
        weight: one number >= 0 per point. None: equal weights.
        mask: True where a point is real, False where it is padding, which needs an id nonetheless.
            None: all real.
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
    check_mask(mask, x, owner="x", name="mask")
    share = point_weights("poincare.segment_midpoint", weight, x, mask)
    space = hyperboloid(zero_padding(x, mask), c)
    middle = centroid_of_segments(space, share, c, ids, num_segments)
    return back(middle, c, x.dtype)


def hyperboloid(x: Tensor, c: Tensor) -> Tensor:
    """Wide space part of the hyperboloid's points."""
    a, gap = points_and_gap(x, c)
    return 2 * a / gap


def back(space: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """From there to points inside the ball."""
    return inside(space / (1 + (1 + c * dot(space, space)).sqrt()), c, dtype)
