"""From tangent vectors to points and back, along shortest paths."""

from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, per_point, wide
from embedkit.geometry._scalars import asinhc, atanhc, dot, tanhc
from embedkit.geometry.poincare._ball import add, gap, inside, log0_factor
from embedkit.geometry.poincare.mobius import rotate


def expmap0(
    v: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """The point reached from the origin along v:  tanh(s|v|) v / (s|v|),  s = sqrt(c).

    The origin's metric is 4 times the Euclidean one, so the point is 2|v| away from the origin.

    Args:
        v: tangent vectors at the origin, i.e. plain Euclidean features.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``v``. Lengths beyond what the dtype resolves end
        at the edge (see :func:`project`).

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if vectors are not floating.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, lemma 2.

    >>> expmap0(torch.tensor([0.3, 0.1]))
    tensor([0.2904, 0.0968])
    """
    check_vectors(v=v)
    c = curvature_of("poincare.expmap0", curvature, v)
    tangent = wide(v)
    return inside(tangent * tanhc(c * dot(tangent, tangent)), c, v.dtype)


def logmap0(
    y: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """The tangent vector at the origin that leads to y:  artanh(s|y|) y / (s|y|).

    It undoes :func:`expmap0`, and has half the length of the distance from the origin.

    Returns:
        Vectors in the dtype of ``y``. Arguments, errors and Source as for :func:`expmap0`.
    """
    check_vectors(y=y)
    c = curvature_of("poincare.logmap0", curvature, y)
    return narrow(wide(y) * log0_factor(y, c, y.dtype), y.dtype)


def expmap(
    x: Float[Tensor, "... d"], v: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """The point reached from x along v:  x (+) (tanh(s L |v| / 2) v / (s|v|)),  L = 2/(1 - c|x|^2).

    It is L |v| away from x, with L the :func:`conformal_factor`.

    Args:
        x: points; leading axes broadcast.
        v: tangent vectors at ``x``, of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``x``.

    Raises:
        ValueError: if the curvature is not > 0, or widths differ.
        TypeError: if arguments are not floating, or of two dtypes.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, lemma 2.
    """
    check_vectors(x=x, v=v)
    c = curvature_of("poincare.expmap", curvature, x)
    start, tangent = wide(x), wide(v)
    of_x = gap(start, c, x.dtype)
    scaled = tangent / of_x
    step = scaled * tanhc(c * dot(scaled, scaled))
    return inside(add(start, step, of_x, gap(step, c, step.dtype), c), c, x.dtype)


def logmap(
    x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """The tangent vector at x that leads to y:  (2 / (s L)) artanh(s|w|) w / |w|,  w = (-x) (+) y.

    Its length times the :func:`conformal_factor` L of x is the distance.

    Args:
        x: points; leading axes broadcast.
        y: points of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Vectors in the dtype of ``x``; zero where both are equal. Errors and Source as for
        :func:`expmap`.
    """
    check_vectors(x=x, y=y)
    c = curvature_of("poincare.logmap", curvature, x)
    a, b = wide(x), wide(y)
    of_x, of_y = gap(a, c, x.dtype), gap(b, c, x.dtype)
    offset = b - a
    squared, product = c * dot(offset, offset), of_x * of_y
    direction = of_x * offset - squared * a  # |.|^2 = |offset|^2 (squared + product)
    factor = asinhc(squared / product) * (of_x / of_y / (squared + product)).sqrt()
    return narrow(direction * factor, x.dtype)


def geodesic(
    t: float | Tensor,
    x: Float[Tensor, "... d"],
    y: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "... d"]:
    """The point a share t of the way from x to y:  x (+) (t (x) ((-x) (+) y)).

    Args:
        t: a number, or one per point (leading axes that broadcast); 0 gives x, 1 gives y, 0.5 the
            midpoint; beyond these the path goes on.
        x: where it starts; leading axes broadcast.
        y: where it ends.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``x``. Errors as for :func:`expmap`.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, eq. 11.

    >>> geodesic(0.5, torch.tensor([0.3, 0.1]), torch.tensor([-0.2, 0.4]))
    tensor([0.0324, 0.2374])
    """
    check_vectors(x=x, y=y)
    c = curvature_of("poincare.geodesic", curvature, x)
    a, b = wide(x), wide(y)
    of_x, of_y = gap(a, c, x.dtype), gap(b, c, x.dtype)
    there = inside(add(-a, b, of_x, of_y, c), c, a.dtype)
    tangent = there * atanhc(c * dot(there, there)) * per_point(t)
    step = tangent * tanhc(c * dot(tangent, tangent))
    return inside(add(a, step, of_x, gap(step, c, step.dtype), c), c, x.dtype)


def parallel_transport(
    x: Float[Tensor, "... d"],
    y: Float[Tensor, "... d"],
    v: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "... d"]:
    """Carry a tangent vector from x to y along the shortest path:  (L_x / L_y) gyr[y, -x] v.

    Its Riemannian length L |v| and its angle to the path stay as they are. From the origin this is
    v (1 - c|y|^2).

    Args:
        x: points; leading axes broadcast.
        y: points.
        v: tangent vectors at ``x``.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Tangent vectors at ``y``, in the dtype of ``x``. Errors as for :func:`expmap`.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, theorem 4; Ungar 2008, A Gyrovector
    Space Approach to Hyperbolic Geometry.
    """
    check_vectors(x=x, y=y, v=v)
    c = curvature_of("poincare.parallel_transport", curvature, x)
    a, b = wide(x), wide(y)
    of_x, of_y = gap(a, c, x.dtype), gap(b, c, x.dtype)
    return narrow(rotate(b, -a, wide(v), of_y, of_x, c) * (of_y / of_x), x.dtype)
