"""Which points are in the ball, and how lengths there compare to Euclidean ones."""

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_positive
from embedkit.geometry._curvature import check_vectors, curvature_of, narrow, wide
from embedkit.geometry._scalars import dot
from embedkit.geometry.poincare._ball import inside, points_and_gap


def project(
    x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0, margin: float | None = None
) -> Float[Tensor, "... d"]:
    """Pull points that lie too far out back radially, to  |x| = (1 - margin) / sqrt(c).

    Every operation of this module does so with its result. Use it after an optimiser step on
    points, or after the curvature of stored points has changed. Points inside are left alone.

    Args:
        x: points, inside or not.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.
        margin: how far from the edge, relative to the radius; None: what the dtype resolves,
            1e-13 in float64, 1e-5 in float32, 2^-9 in float16, 2^-7 in bfloat16.

    Returns:
        Points inside, in the dtype of ``x``. The gradient of a point pulled back has no radial
        part.

    Raises:
        ValueError: if the curvature or the margin is not > 0, or the margin not below 1.
        TypeError: if points are not floating.

    >>> project(torch.tensor([3.0, 4.0]), curvature=1.0, margin=0.1)
    tensor([0.5400, 0.7200])
    """
    check_vectors(x=x)
    if margin is not None:
        check_positive("poincare.project", "margin", margin)
        if margin >= 1:
            raise ValueError(f"poincare.project: margin must be < 1, got {margin:g}. Try 1e-5.")
    c = curvature_of("poincare.project", curvature, x)
    return inside(wide(x), c, x.dtype, margin)


def check_inside(x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0) -> None:
    """Raise unless every point lies in the ball,  c |x|^2 < 1.

    The other functions do not look at values: they take points outside as :func:`project` would
    leave them, at the edge, where they have no radial gradient. Call this where points come in; it
    waits for the device and does not compile.

    Raises:
        ValueError: if points lie outside, or hold NaN or infinity.
        TypeError: if points are not floating.

    >>> check_inside(torch.tensor([0.3, 0.4]))
    """
    check_vectors(x=x)
    c = curvature_of("poincare.check_inside", curvature, x)
    a = wide(x).detach()
    squared = c * dot(a, a)
    outside = ~(squared < 1)
    if outside.any():
        worst = float(squared.nan_to_num(nan=torch.inf).max().sqrt())
        raise ValueError(
            f"poincare.check_inside: points must lie in the ball, sqrt(c) |x| < 1, got "
            f"{int(outside.sum())} of {outside.numel()} outside, the farthest at {worst:.6g} with "
            f"c = {float(c):g}. Use project(x, curvature=c) after an optimiser step, or "
            "expmap0(v, curvature=c) if these are tangent vectors."
        )


def conformal_factor(
    x: Float[Tensor, "... d"], *, curvature: float | Tensor = 1.0
) -> Float[Tensor, "..."]:
    """How many times longer than Euclidean a small step at x is:  2 / (1 - c |x|^2).

    It is 2 at the origin and grows without bound towards the edge, where it stops at
    2 / eps of the dtype.

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if points are not floating.

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, sec. 2.2.
    """
    check_vectors(x=x)
    c = curvature_of("poincare.conformal_factor", curvature, x)
    return narrow(2 / points_and_gap(x, c)[1][..., 0], x.dtype)
