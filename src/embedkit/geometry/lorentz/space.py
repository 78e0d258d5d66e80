"""The inner product of the hyperboloid, and the way onto it."""

from jaxtyping import Float
from torch import Tensor

from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, wide
from embedkit.geometry._hyperboloid import lift
from embedkit.geometry._scalars import dot


def inner(p: Float[Tensor, "... d"], q: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
    """Lorentz inner product, time first:  -p_0 q_0 + sum_i p_i q_i.

    A point of the hyperboloid of curvature -c has <p, p> = -1/c.

    Args:
        p: points or vectors; leading axes broadcast.
        q: points or vectors of the same width and dtype.

    Returns:
        Numbers in the dtype of ``p``.

    Raises:
        ValueError: if widths differ.
        TypeError: if arguments are not floating, or of two dtypes.

    Source: Nickel and Kiela 2018, Learning Continuous Hierarchies in the Lorentz Model of
    Hyperbolic Geometry, eq. 2.

    >>> inner(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
    tensor(-1.)
    """
    check_vectors(p=p, q=q)
    a, b = wide(p), wide(q)
    product = dot(a[..., 1:], b[..., 1:]) - a[..., :1] * b[..., :1]
    return narrow(product[..., 0], p.dtype)


def project(
    p: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "... d"]:
    """Back onto the hyperboloid: space stays as it is, time becomes  sqrt(1/c + |space|^2).

    Every operation of this module that makes points does so, and none looks at the time of a point
    it is given. Space parts longer than 1e70 in float64, 1e18 in float32 and bfloat16, and 2^14 in
    float16 are cut to that length, so that squares stay finite.

    Args:
        p: points (..., 1 + d), time first.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points in the dtype of ``p``.

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if points are not floating.

    >>> project(torch.tensor([0.0, 3.0, 4.0]))
    tensor([5.0990, 3.0000, 4.0000])
    """
    check_vectors(p=p)
    c = curvature_of("lorentz.project", curvature, p)
    return lift(wide(p[..., 1:]), c, p.dtype)
