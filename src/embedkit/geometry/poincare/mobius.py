"""Möbius operations: addition and multiplication as the Poincaré ball knows them."""

from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, per_point, wide
from embedkit.geometry._scalars import dot
from embedkit.geometry.poincare._ball import add, exp0, inside, log0, points_and_gap
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision


def mobius_add(
    x: Float[Tensor, "... d"], y: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """x (+) y: the point that the translation by x, which takes 0 to x, takes y to.

    ((1 + 2c<x,y> + c|y|^2) x + (1 - c|x|^2) y) / (1 + 2c<x,y> + c^2 |x|^2 |y|^2)

    It does not commute and does not associate; (-x) (+) (x (+) y) = y.

    Args:
        x: points; leading axes broadcast.
        y: points of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``x``.

    Raises:
        ValueError: if the curvature is not > 0, or widths differ.
        TypeError: if points are not floating, or of two dtypes.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, eq. 1; Ungar 2008, A Gyrovector Space
    Approach to Hyperbolic Geometry.
    Differs: computed from x + y, without the differences of nearly equal numbers that spoil the
    formula near the edge.

    >>> mobius_add(torch.tensor([0.3, 0.1]), torch.tensor([-0.2, 0.4]))
    tensor([0.1714, 0.4857])
    """
    check_vectors(x=x, y=y)
    c = curvature_of("poincare.mobius_add", curvature, x)
    (a, of_x), (b, of_y) = points_and_gap(x, c), points_and_gap(y, c)
    return inside(add(a, b, of_x, of_y, c), c, x.dtype)


def mobius_scalar_mul(
    r: float | Tensor, x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """r (x) x: the point r times as far from the origin:  exp0(r log0(x)).

    Args:
        r: a number, or a tensor with one number per point, of the leading axes of ``x``.
        x: points.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``x``. Other arguments, errors and
        Source as for :func:`mobius_add`.
    """
    check_vectors(x=x)
    c = curvature_of("poincare.mobius_scalar_mul", curvature, x)
    return _exp0(log0(x, c) * per_point(r), c, x)


def mobius_matvec(
    matrix: Float[Tensor, "... e d"],
    x: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "... e"]:
    """M (x) x: the matrix applied in the tangent space at the origin:  exp0(M log0(x)).

    tanh(|Mx| / |x| artanh(s|x|)) Mx / (s|Mx|),  s = sqrt(c). The hyperbolic radius of x changes by
    the factor |Mx| / |x|; an orthogonal matrix keeps it.

    Args:
        matrix: (e, d), or one per point with leading axes that broadcast with those of ``x``.
        x: points of width d.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points of width e inside the ball, in the dtype of ``x``; the origin where M x = 0.

    Raises:
        ValueError: if the curvature is not > 0, or the matrix does not fit ``x``.
        TypeError: if arguments are not floating, or of two dtypes.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, eq. 27 and lemma 6.
    """
    check_vectors("The last axis of matrix must be the width of x.", matrix=matrix, x=x)
    if matrix.ndim < 2:
        raise ValueError(
            f"matrix: expected 2 axes (e, d) or more, got shape {tuple(matrix.shape)}. "
            "For a factor per coordinate use mobius_pointwise_mul."
        )
    c = curvature_of("poincare.mobius_matvec", curvature, x)
    tangent = log0(x, c).to(accumulation_dtype(x.dtype))
    with full_precision(x):
        weight = matrix.to(tangent.dtype)
        moved = tangent @ weight.mT if matrix.ndim == 2 else (weight @ tangent[..., None])[..., 0]
    return _exp0(wide(moved), c, x)


def mobius_pointwise_mul(
    w: Float[Tensor, "... d"], x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """diag(w) (x) x:  :func:`mobius_matvec` with one factor per coordinate,  exp0(w * log0(x)).

    Arguments, errors and Source as there.
    """
    check_vectors("One factor per coordinate.", w=w, x=x)
    c = curvature_of("poincare.mobius_pointwise_mul", curvature, x)
    return _exp0(log0(x, c) * wide(w), c, x)


def gyration(
    u: Float[Tensor, "... d"],
    v: Float[Tensor, "... d"],
    w: Float[Tensor, "... d"],
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "... d"]:
    """gyr[u, v] w: the rotation that u (+) (v (+) w) and (u (+) v) (+) w differ by.

    Args:
        u: points.
        v: points.
        w: any vectors; |gyr[u, v] w| = |w|.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Vectors in the dtype of ``u``.

    Raises:
        ValueError: if the curvature is not > 0, or widths differ.
        TypeError: if arguments are not floating, or of several dtypes.

    Source: Ungar 2008, A Gyrovector Space Approach to Hyperbolic Geometry; Ganea et al. 2018,
    Hyperbolic Neural Networks, appendix A.
    Differs: computed from u + v, so that it stays a rotation near the edge.
    """
    check_vectors(u=u, v=v, w=w)
    c = curvature_of("poincare.gyration", curvature, u)
    (a, of_u), (b, of_v) = points_and_gap(u, c), points_and_gap(v, c)
    return narrow(rotate(a, b, wide(w), of_u, of_v, c), u.dtype)


def rotate(u: Tensor, v: Tensor, w: Tensor, of_u: Tensor, of_v: Tensor, c: Tensor) -> Tensor:
    """gyr[u, v] w,  a multiple of z = u + v and one of v away from w."""
    z = u + v
    squared, along, across = c * dot(z, z), c * dot(z, w), c * dot(v, w)
    of_z = across * (of_u + squared) - along * (1 - of_v)
    back = of_v * along + squared * across
    return w + 2 * (of_z * z - back * v) / (squared + of_u * of_v)


def _exp0(v: Tensor, c: Tensor, like: Tensor) -> Tensor:
    return inside(exp0(v, c, like.dtype), c, like.dtype)
