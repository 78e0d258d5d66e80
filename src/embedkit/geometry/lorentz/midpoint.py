"""The weighted centroid of points of the hyperboloid: of a set, and of segments."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import check_mask
from embedkit.geometry._centroid import centroid_of_segments, centroid_of_set
from embedkit.geometry._curvature import check_vectors, curvature_of, point_weights, wide
from embedkit.geometry._hyperboloid import lift
from embedkit.ops import zero_padding


def midpoint(
    p: Float[Tensor, "*b n d"],
    weight: Float[Tensor, "*#b n"] | None = None,
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "*b d"]:
    """Centroid of n points:  m / (s sqrt(-<m, m>_L)),  m = sum_i w_i p_i,  s = sqrt(c).

    It minimises the weighted squared Lorentz distance, and is the ball's gyromidpoint.

    Args:
        p: points (..., n, 1 + d), time first.
        weight: one number >= 0 per point; only ratios count. None: equal weights.
        mask: True where a point is real, False where it is padding. None: all real.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points in the dtype of ``p``, right at any radius; the origin (1/s, 0) where no point has
        weight.

    Raises:
        ValueError: if the curvature is not > 0, shapes do not fit, or a weight is negative (looked
            at on a CPU, outside compiled graphs).
        TypeError: if points are not floating, or the mask is not bool.

    Source: Law et al. 2019, Lorentzian Distance Learning for Hyperbolic Representations, eq. 12.

    >>> midpoint(torch.tensor([[2.0**0.5, 1.0], [2.0**0.5, -1.0]]))
    tensor([1., 0.])
    """
    check_vectors(p=p)
    if p.ndim < 2:
        raise ValueError(f"p: expected points (..., n, 1 + d), got shape {tuple(p.shape)}")
    check_mask(mask, p, owner="p", name="mask")
    c = curvature_of("lorentz.midpoint", curvature, p)
    share = point_weights("lorentz.midpoint", weight, p, mask)
    space = wide(zero_padding(p, mask)[..., 1:])
    return lift(centroid_of_set(space, share, c), c, p.dtype)


def segment_midpoint(
    p: Float[Tensor, "n d"],
    ids: Int[Tensor, " n"],
    num_segments: int,
    weight: Float[Tensor, " n"] | None = None,
    mask: Bool[Tensor, " n"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "s d"]:
    """:func:`midpoint` of the points of every segment; the origin for one without points.

    Args:
        p: points (n, 1 + d), time first, in any order.
        ids: the segment of each, 0 to num_segments - 1.
        num_segments: how many there are.
        weight: one number >= 0 per point. None: equal weights.
        mask: True where a point is real, False where it is padding, which needs an id nonetheless.
            None: all real.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        One point per segment, in the dtype of ``p``. Errors and Source as for :func:`midpoint`.

    Raises:
        IndexError: if an id is out of range.

    >>> p = torch.tensor([[2.0**0.5, 1.0], [2.0**0.5, -1.0]])
    >>> segment_midpoint(p, torch.tensor([0, 0]), 1)
    tensor([[1., 0.]])
    """
    check_vectors(p=p)
    c = curvature_of("lorentz.segment_midpoint", curvature, p)
    check_mask(mask, p, owner="p", name="mask")
    share = point_weights("lorentz.segment_midpoint", weight, p, mask)
    space = wide(zero_padding(p, mask)[..., 1:])
    return lift(centroid_of_segments(space, share, c, ids, num_segments), c, p.dtype)
