"""Entailment cones: what lies behind a point, seen from the origin."""

import math

from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_positive
from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, wide
from embedkit.geometry._hyperboloid import space_and_time
from embedkit.geometry._scalars import dot, length


def half_aperture(
    p: Float[Tensor, "... d"], *, min_radius: float = 0.1, curvature: float | Tensor = 1.0
) -> Float[Tensor, "..."]:
    """Half the opening of the cone at p:  asin( 2K / (s |space|) ),  K = ``min_radius``.

    General points, near the origin, have wide cones; those at  s |space| <= 2K  have pi / 2, which
    is half of all there is.

    Args:
        p: points (..., 1 + d), time first.
        min_radius: K > 0.
        curvature: c > 0 of a space of curvature -c, s = sqrt(c); a number or a 0-d tensor.

    Returns:
        Angles in (0, pi / 2], in the dtype of ``p``.

    Raises:
        ValueError: if the curvature or ``min_radius`` is not > 0.
        TypeError: if points are not floating.

    Source: Ganea et al. 2018, Hyperbolic Entailment Cones for Learning Hierarchical Embeddings,
    eq. 26; Desai et al. 2023, Hyperbolic Image-Text Representations (MERU), eq. 6.

    >>> half_aperture(torch.tensor([1.0770, 0.4, 0.0]))
    tensor(0.5236)
    """
    check_vectors(p=p)
    check_positive("lorentz.half_aperture", "min_radius", min_radius, "Try 0.1.")
    c = curvature_of("lorentz.half_aperture", curvature, p)
    size = c.sqrt() * length(wide(p[..., 1:]))[..., 0]
    wide_open = size <= 2 * min_radius
    angle = (2 * min_radius / size.masked_fill(wide_open, 4 * min_radius)).asin()
    return narrow(angle.masked_fill(wide_open, math.pi / 2), p.dtype)


def exterior_angle(
    p: Float[Tensor, "... d"], q: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "..."]:
    """The angle at p by which the way to q leaves the way straight out of the origin.

    acos( (q_0 + c p_0 <p, q>_L) / (|space of p| sqrt((c <p, q>_L)^2 - 1)) ): 0 where q lies behind
    p, pi where it lies before it.

    Args:
        p: points (..., 1 + d), time first; leading axes broadcast.
        q: points of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Angles in [0, pi], in the dtype of ``p``: 0 where both points are one, pi / 2 where ``p`` is
        the origin.

    Raises:
        ValueError: if the curvature is not > 0, or widths differ.
        TypeError: if points are not floating, or of two dtypes.

    Source: Desai et al. 2023, Hyperbolic Image-Text Representations (MERU), eq. 7.
    Differs: from the parts of the way along p and across it, by atan2, where acos loses its digits
    near 0 and pi.

    >>> exterior_angle(torch.tensor([1.4142, 1.0, 0.0]), torch.tensor([1.4142, 0.0, 1.0]))
    tensor(2.5261)
    """
    check_vectors(p=p, q=q)
    c = curvature_of("lorentz.exterior_angle", curvature, p)
    (a, a_time), (b, b_time) = space_and_time(p, c), space_and_time(q, c)
    size = length(a)
    unit = a / size.masked_fill(size == 0, 1.0)
    along = dot(unit, b)
    across = length(b - along * unit)
    # p_0 <u, q> - |p| q_0, for a q on p's side of the origin without the large equal terms
    before = along <= 0
    below = (a_time * along + size * b_time).masked_fill(before, 1.0)
    near = (along - size) * (along + size) / c - (size * across).square()
    out = c.sqrt() * near.where(~before, a_time * along - size * b_time) / below
    return narrow(across.atan2(out)[..., 0], p.dtype)
