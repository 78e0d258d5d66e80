"""Distances of pairs of points, from the origin, and from hyperplanes."""

from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, wide
from embedkit.geometry._scalars import asinh_root, dot, length, shortened
from embedkit.geometry.poincare._ball import floor, points, points_and_gap


def distance(
    x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "..."]:
    """Hyperbolic distance of x and y.

    d(x, y) = (2/s) asinh sqrt( c|x-y|^2 / ((1 - c|x|^2)(1 - c|y|^2)) ),  s = sqrt(c). Where c goes
    to 0 it is 2|x - y|.

    Args:
        x: points; leading axes broadcast.
        y: points of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Distances in the dtype of ``x``, from exact differences: right for near-duplicates and near
        the edge alike. Equal points have distance 0 and gradient 0.

    Raises:
        ValueError: if the curvature is not > 0, or widths differ.
        TypeError: if points are not floating, or of two dtypes.

    Source: Nickel and Kiela 2017, Poincaré Embeddings for Learning Hierarchical Representations,
    eq. 1, with asinh in place of arcosh, which loses all digits near 1.

    >>> distance(torch.tensor([0.3, 0.1]), torch.tensor([-0.2, 0.4]))
    tensor(1.2843)
    """
    check_vectors(x=x, y=y)
    c = curvature_of("poincare.distance", curvature, x)
    (a, of_x), (b, of_y) = points_and_gap(x, c), points_and_gap(y, c)
    offset = a - b
    squared = c * dot(offset, offset) / (of_x * of_y)
    return narrow(2 * asinh_root(squared)[..., 0] / c.sqrt(), x.dtype)


def distance_to_origin(
    x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "..."]:
    """Hyperbolic radius:  d(0, x) = (2/s) artanh(s|x|).

    Arguments, errors and Source as for :func:`distance`; the origin has gradient 0.
    """
    check_vectors(x=x)
    c = curvature_of("poincare.distance_to_origin", curvature, x)
    _, squared = points(x, c)
    return narrow(2 * asinh_root(squared / floor(1 - squared, x.dtype))[..., 0] / c.sqrt(), x.dtype)


def distance_to_hyperplane(
    x: Float[Tensor, "... d"],
    point: Float[Tensor, "... d"],
    normal: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "..."]:
    """Signed distance of x from the hyperplane of shortest paths through a point, normal to a.

    (1/s) asinh( 2s <w, a> / ((1 - c|w|^2) |a|) ),  w = (-p) (+) x. It is positive on the side that
    the normal points to; ``.abs()`` is the distance.

    Args:
        x: points; leading axes broadcast.
        point: p, a point of the hyperplane.
        normal: a, a tangent vector at ``point`` of any length but 0.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Distances in the dtype of ``x``; 0 for a normal of length 0. Errors as for
        :func:`distance`.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, theorem 5.
    """
    check_vectors(x=x, point=point, normal=normal)
    c = curvature_of("poincare.distance_to_hyperplane", curvature, x)
    (a, of_x), (p, of_p) = points_and_gap(x, c), points_and_gap(point, c)
    n, _ = shortened(wide(normal), normal.dtype)
    size = length(n)
    n = n / size.masked_fill(size == 0, 1.0)
    offset = a - p
    along = of_p * dot(offset, n) - c * dot(offset, offset) * dot(p, n)
    return narrow((2 * c.sqrt() * along / (of_x * of_p)).asinh()[..., 0] / c.sqrt(), x.dtype)
