"""The same point in three models: Poincaré ball, hyperboloid (Lorentz), Klein ball."""

from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_vectors, curvature_of
from embedkit.geometry._hyperboloid import lift, space_and_time
from embedkit.geometry.poincare._ball import inside, points, points_and_gap


def poincare_to_lorentz(
    x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d_1"]:
    """Ball to hyperboloid, time first:  ((1 + c|x|^2) / s, 2x) / (1 - c|x|^2),  s = sqrt(c).

    Args:
        x: points of the ball.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points one axis wider, in the dtype of ``x``; distances are the same.

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if points are not floating.

    Source: Cannon et al. 1997, Hyperbolic Geometry, sec. 7.

    >>> poincare_to_lorentz(torch.tensor([0.3, 0.1]))
    tensor([1.2222, 0.6667, 0.2222])
    """
    check_vectors(x=x)
    c = curvature_of("poincare.poincare_to_lorentz", curvature, x)
    a, gap = points_and_gap(x, c)
    return lift(2 * a / gap, c, x.dtype)


def lorentz_to_poincare(
    p: Float[Tensor, "... d_1"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """Hyperboloid, time first, to ball:  space / (1 + s time).

    Time is computed from space. Arguments, errors and Source as for :func:`poincare_to_lorentz`.

    Returns:
        Points inside the ball, one axis narrower; points too far for the ball end at its edge.
    """
    check_vectors(p=p)
    c = curvature_of("poincare.lorentz_to_poincare", curvature, p)
    space, time = space_and_time(p, c)
    return inside(space / (1 + c.sqrt() * time), c, p.dtype)


def poincare_to_klein(
    x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """Poincaré ball to Klein ball, whose shortest paths are straight:  2x / (1 + c|x|^2).

    The Klein ball reaches half as far as the Poincaré ball before its dtype ends.

    Returns:
        Points inside the ball, in the dtype of ``x``. Arguments, errors and Source as for
        :func:`poincare_to_lorentz`.

    >>> poincare_to_klein(torch.tensor([0.3, 0.1]))
    tensor([0.5455, 0.1818])
    """
    check_vectors(x=x)
    c = curvature_of("poincare.poincare_to_klein", curvature, x)
    a, squared = points(x, c)
    return inside(2 * a / (1 + squared), c, x.dtype)


def klein_to_poincare(
    k: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """Klein ball to Poincaré ball:  k / (1 + sqrt(1 - c|k|^2)).

    It undoes :func:`poincare_to_klein`; arguments, errors and Source as there.
    """
    check_vectors(k=k)
    c = curvature_of("poincare.klein_to_poincare", curvature, k)
    a, gap = points_and_gap(k, c)
    return inside(a / (1 + gap.sqrt()), c, k.dtype)
