"""From tangent vectors to points and back, along shortest paths."""

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, per_point, wide
from embedkit.geometry._hyperboloid import path_weights
from embedkit.geometry._scalars import asinhc, dot
from embedkit.geometry.poincare._ball import add, exp0, gap, inside, log0, points_and_gap
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
    return inside(exp0(wide(v), c, v.dtype), c, v.dtype)


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
    return narrow(log0(y, c), y.dtype)


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
    a, of_x = points_and_gap(x, c)
    return inside(exp_at(a, wide(v), of_x, c, x.dtype), c, x.dtype)


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
    (a, of_x), (b, of_y) = points_and_gap(x, c), points_and_gap(y, c)
    return narrow(log_at(a, b, of_x, of_y, c), x.dtype)


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
    Differs: computed as the mean of both points of the hyperboloid with weights sinh((1 - t) d s)
    and sinh(t d s), which ends at ``y`` however far apart both are; outside of [0, 1] as a step
    from the nearer end.

    >>> geodesic(0.5, torch.tensor([0.3, 0.1]), torch.tensor([-0.2, 0.4]))
    tensor([0.0324, 0.2374])
    """
    check_vectors(x=x, y=y)
    c = curvature_of("poincare.geodesic", curvature, x)
    (a, of_x), (b, of_y) = points_and_gap(x, c), points_and_gap(y, c)
    share = per_point(t) * torch.ones_like(of_x)
    between = share.clamp(0, 1)
    # on the way: the points of the hyperboloid, weighted by sinh, none of which is negative
    offset = a - b
    squared = c * dot(offset, offset) / (of_x * of_y)
    of_a, of_b = path_weights(between, squared)
    of_a, of_b = of_a * of_y, of_b * of_x
    below = of_x * of_y + of_a * (2 - of_x) + of_b * (2 - of_y)
    on_the_way = 2 * (of_a * a + of_b * b) / below
    # beyond: a step from the nearer end, away from the other one
    before, beyond = share < 0, share - between
    a, b = torch.where(before, a, b), torch.where(before, b, a)
    of_x, of_y = torch.where(before, of_x, of_y), torch.where(before, of_y, of_x)
    step = exp_at(a, -beyond.abs() * log_at(a, b, of_x, of_y, c), of_x, c, x.dtype)
    return inside(torch.where(beyond == 0, on_the_way, step), c, x.dtype)


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
    (a, of_x), (b, of_y) = points_and_gap(x, c), points_and_gap(y, c)
    return narrow(rotate(b, -a, wide(v), of_y, of_x, c) * (of_y / of_x), x.dtype)


def exp_at(x: Tensor, v: Tensor, of_x: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """exp_x(v) of wide points with their gap, made from ``dtype``."""
    step = exp0(v / of_x, c, dtype)
    return add(x, step, of_x, gap(step, c, step.dtype), c)


def log_at(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, c: Tensor) -> Tensor:
    """log_x(y) of wide points with their gaps."""
    offset = y - x
    squared, product = c * dot(offset, offset), of_x * of_y
    direction = of_x * offset - squared * x  # |.|^2 = |offset|^2 (squared + product)
    return direction * asinhc(squared / product) * (of_x / of_y / (squared + product)).sqrt()
