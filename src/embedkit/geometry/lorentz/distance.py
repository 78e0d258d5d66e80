"""Distances on the hyperboloid, of pairs and of all pairs."""

from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_matrices, check_vectors, curvature_of, narrow, wide
from embedkit.geometry._haversine import haversine_distances
from embedkit.geometry._hyperboloid import remainder, space_and_time, squared_chord
from embedkit.geometry._scalars import asinh_root, dot, length, shortened
from embedkit.ops import accumulation_dtype


def distance(
    p: Float[Tensor, "... d"], q: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "..."]:
    """Hyperbolic distance:  (1/s) arcosh(-c <p, q>_L) = (2/s) asinh(s sqrt(<p-q, p-q>_L) / 2).

    Args:
        p: points (..., 1 + d), time first; leading axes broadcast.
        q: points of the same width and dtype.
        curvature: c > 0 of a space of curvature -c, s = sqrt(c); a number or a 0-d tensor.

    Returns:
        Distances in the dtype of ``p``, from exact differences of the space parts; equal points
        have distance 0 and gradient 0.

    Raises:
        ValueError: if the curvature is not > 0, or widths differ.
        TypeError: if points are not floating, or of two dtypes.

    Source: Nickel and Kiela 2018, Learning Continuous Hierarchies in the Lorentz Model of
    Hyperbolic Geometry, eq. 5.
    Differs: arcosh near 1 keeps no digits, asinh of the chord keeps all of them.

    >>> distance(torch.tensor([2.0**0.5, 1.0]), torch.tensor([1.0, 0.0]))
    tensor(0.8814)
    """
    check_vectors(p=p, q=q)
    c = curvature_of("lorentz.distance", curvature, p)
    (a, a_time), (b, b_time) = space_and_time(p, c), space_and_time(q, c)
    chord = squared_chord(a, b, a_time, b_time, c)
    return narrow(2 * asinh_root(c * chord / 4)[..., 0] / c.sqrt(), p.dtype)


def distance_to_origin(
    p: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "..."]:
    """Hyperbolic radius:  (1/s) asinh(s |space|).

    Arguments, errors and Source as for :func:`distance`; the origin has gradient 0.
    """
    check_vectors(p=p)
    c = curvature_of("lorentz.distance_to_origin", curvature, p)
    size = c.sqrt() * length(wide(p[..., 1:]))[..., 0]
    return narrow(size.asinh() / c.sqrt(), p.dtype)


def distance_to_hyperplane(
    p: Float[Tensor, "... d"],
    point: Float[Tensor, "... d"],
    normal: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "..."]:
    """Signed distance of p from the hyperplane of shortest paths through a point, normal to n.

    (1/s) asinh(s <p, n>_L / |n|_L),  s = sqrt(c). It is positive on the side that the normal points
    to; ``.abs()`` is the distance.

    Args:
        p: points (..., 1 + d), time first; leading axes broadcast.
        point: a point of the hyperplane.
        normal: n, a tangent vector at ``point`` of any length but 0. Its time is taken from
            <point, n>_L = 0.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Distances in the dtype of ``p``; 0 for a normal of length 0. Errors as for
        :func:`distance`.

    Source: Cannon et al. 1997, Hyperbolic Geometry.

    >>> origin, normal = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    >>> distance_to_hyperplane(torch.tensor([2.0**0.5, 1.0, 0.0]), origin, normal)
    tensor(0.8814)
    """
    check_vectors(p=p, point=point, normal=normal)
    c = curvature_of("lorentz.distance_to_hyperplane", curvature, p)
    (b, b_time), (a, a_time) = space_and_time(p, c), space_and_time(point, c)
    n, _ = shortened(wide(normal[..., 1:]), normal.dtype)
    # <p, n> = <p - point, n>, from differences
    offset = b - a
    later = dot(offset, a + b) / (a_time + b_time)
    along = dot(offset, n) - later * dot(n, a) / a_time
    squared = (dot(n, n) / c + remainder(n, a)) / a_time.square()
    none = squared == 0
    size = squared.masked_fill(none, 1.0).sqrt()
    along = along.masked_fill(none, 0.0)
    return narrow((c.sqrt() * along / size).asinh()[..., 0] / c.sqrt(), p.dtype)


def pairwise_distance(
    p: Float[Tensor, "n d"], q: Float[Tensor, "m d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "n m"]:
    """:func:`distance` of every p to every q, from directions and radii (the haversine formula).

    It runs over blocks of rows, forward and backward; nothing of size n x m x d is made, and no
    radius is too large. Gradients flow into p, q and the curvature, once. Arguments, errors and
    Source as for :func:`distance`; points are rows.
    """
    check_matrices(p=p, q=q)
    c = curvature_of("lorentz.pairwise_distance", curvature, p)
    root = c.sqrt()
    a, b = wide(p[:, 1:]), wide(q[:, 1:])
    like = p.new_empty(0, dtype=accumulation_dtype(p.dtype))
    radius_a, radius_b = (root * length(a)[:, 0]).asinh(), (root * length(b)[:, 0]).asinh()
    return narrow(
        2 * haversine_distances(a, b, radius_a, radius_b, root.detach(), like) / root, p.dtype
    )
