"""From tangent vectors to points of the hyperboloid and back, along shortest paths."""

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, per_point, wide
from embedkit.geometry._hyperboloid import (
    lift,
    path_weights,
    remainder,
    space_and_time,
    squared_chord,
)
from embedkit.geometry._scalars import asinhc, dot, shortened, sinhc

_FARTHEST = 170.0  # sqrt(c) times the length of a step: beyond it lies the reach of every dtype


def _step(squared: Tensor) -> tuple[Tensor, Tensor]:
    """cosh(n) and sinh(n)/n of n^2; n beyond what any dtype reaches counts as that."""
    capped = squared.clamp(max=_FARTHEST**2)
    over = capped / squared.clamp(min=_FARTHEST**2)
    share = over.masked_fill(squared <= _FARTHEST**2, 1.0).sqrt()
    return 1 + capped * sinhc(capped / 4).square() / 2, sinhc(capped) * share


def expmap0(
    u: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d_1"]:
    """The point reached from the origin along (0, u):  space = sinh(s|u|) u / (s|u|),  s = sqrt(c).

    It is |u| away from the origin. The Poincaré ball's expmap0(v) is 2|v| away, so that
    ``expmap0(2 * v)`` is the same point here.

    Args:
        u: space parts of tangent vectors at the origin (time is 0), i.e. plain Euclidean features.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points (..., 1 + d), time first, in the dtype of ``u``. They end where
        :func:`project` cuts them.

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if vectors are not floating.

    Source: Nickel and Kiela 2018, Learning Continuous Hierarchies in the Lorentz Model of
    Hyperbolic Geometry, eq. 9; Desai et al. 2023, Hyperbolic Image-Text Representations, eq. 5.

    >>> expmap0(torch.tensor([1.0, 0.0]))
    tensor([1.5431, 1.1752, 0.0000])
    """
    check_vectors(u=u)
    c = curvature_of("lorentz.expmap0", curvature, u)
    tangent, _ = shortened(wide(u), u.dtype)
    return lift(tangent * _step(c * dot(tangent, tangent))[1], c, u.dtype)


def logmap0(
    p: Float[Tensor, "... d_1"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """The space part of the tangent vector at the origin that leads to p; it undoes expmap0.

    asinh(s|space|) space / (s|space|). Arguments, errors and Source as for :func:`expmap0`.
    """
    check_vectors(p=p)
    c = curvature_of("lorentz.logmap0", curvature, p)
    space = wide(p[..., 1:])
    return narrow(space * asinhc(c * dot(space, space)), p.dtype)


def expmap(
    p: Float[Tensor, "... d"], u: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """The point reached from p along u:  cosh(s|u|_L) p + sinh(s|u|_L) u / (s|u|_L).

    Args:
        p: points (..., 1 + d), time first; leading axes broadcast.
        u: tangent vectors at ``p``. Their time is taken from <p, u>_L = 0.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points in the dtype of ``p``, |u|_L away from it.

    Raises:
        ValueError: if the curvature is not > 0, or widths differ.
        TypeError: if arguments are not floating, or of two dtypes.

    Source: Nickel and Kiela 2018, Learning Continuous Hierarchies in the Lorentz Model of
    Hyperbolic Geometry, eq. 9.
    """
    check_vectors(p=p, u=u)
    c = curvature_of("lorentz.expmap", curvature, p)
    space, time = space_and_time(p, c)
    tangent, _ = shortened(wide(u[..., 1:]), u.dtype)
    return lift(_exp(space, time, tangent, c), c, p.dtype)


def logmap(
    p: Float[Tensor, "... d"], q: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """The tangent vector at p that leads to q:  d(p, q) w / |w|_L,  w = q + c <p, q>_L p.

    Returns:
        Vectors with <p, u>_L = 0 and |u|_L the distance; zero where both are equal. Arguments,
        errors and Source as for :func:`expmap`.
    """
    check_vectors(p=p, q=q)
    c = curvature_of("lorentz.logmap", curvature, p)
    (a, a_time), (b, b_time) = space_and_time(p, c), space_and_time(q, c)
    space = _log(a, b, c * squared_chord(a, b, a_time, b_time, c) / 4)
    return narrow(torch.cat([dot(space, a) / a_time, space], dim=-1), p.dtype)


def geodesic(
    t: float | Tensor,
    p: Float[Tensor, "... d"],
    q: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "... d"]:
    """The point a share t of the way from p to q:  (sinh((1 - t) a) p + sinh(t a) q) / sinh(a).

    a = s d(p, q),  s = sqrt(c).

    Args:
        t: a number, or one per point (leading axes that broadcast); 0 gives p, 1 gives q, 0.5 the
            midpoint; beyond these the path goes on.
        p: where it starts, (..., 1 + d), time first; leading axes broadcast.
        q: where it ends.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points in the dtype of ``p``. Errors and Source as for :func:`expmap`.

    >>> geodesic(0.5, torch.tensor([2.0**0.5, 1.0]), torch.tensor([2.0**0.5, -1.0]))
    tensor([1., 0.])
    """
    check_vectors(p=p, q=q)
    c = curvature_of("lorentz.geodesic", curvature, p)
    (a, a_time), (b, b_time) = space_and_time(p, c), space_and_time(q, c)
    share = per_point(t) * torch.ones_like(a_time)
    between = share.clamp(0, 1)
    squared = c * squared_chord(a, b, a_time, b_time, c) / 4
    of_a, of_b = path_weights(between, squared)
    on_the_way = of_a * a + of_b * b
    # beyond: a step from the nearer end, away from the other one
    before, beyond = share < 0, share - between
    a, b = torch.where(before, a, b), torch.where(before, b, a)
    a_time = torch.where(before, a_time, b_time)
    step = _exp(a, a_time, -beyond.abs() * _log(a, b, squared), c)
    return lift(torch.where(beyond == 0, on_the_way, step), c, p.dtype)


def parallel_transport(
    p: Float[Tensor, "... d"],
    q: Float[Tensor, "... d"],
    u: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "... d"]:
    """Carry a tangent vector from p to q:  u + c <q, u>_L (p + q) / (1 - c <p, q>_L).

    Args:
        p: points (..., 1 + d), time first; leading axes broadcast.
        q: points.
        u: tangent vectors at ``p``. Their time is taken from <p, u>_L = 0.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Tangent vectors at ``q``, of the same length |u|_L. Errors and Source as for
        :func:`expmap`.
    """
    check_vectors(p=p, q=q, u=u)
    c = curvature_of("lorentz.parallel_transport", curvature, p)
    (a, a_time), (b, b_time) = space_and_time(p, c), space_and_time(q, c)
    tangent = wide(u[..., 1:])
    chord = squared_chord(a, b, a_time, b_time, c)
    along = dot(b - a, tangent) - (b_time - a_time) * dot(tangent, a) / a_time
    space = tangent + c * along / (2 + c * chord / 2) * (a + b)
    return narrow(torch.cat([dot(space, b) / b_time, space], dim=-1), p.dtype)


def _exp(space: Tensor, time: Tensor, tangent: Tensor, c: Tensor) -> Tensor:
    """Space part of exp_p(u), from that of u."""
    squared = (dot(tangent, tangent) / c + remainder(tangent, space)) / time.square()
    cosh, sinh = _step(c * squared)
    return cosh * space + sinh * tangent


def _log(a: Tensor, b: Tensor, squared: Tensor) -> Tensor:
    """Space part of log_a(b), from those of the points and sinh^2(s d / 2)."""
    factor = asinhc(squared) / (1 + squared).sqrt()
    return factor * (b - a - 2 * squared * a)
