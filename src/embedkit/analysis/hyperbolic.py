"""How far out points of the Poincaré ball are, and how many are at its edge."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_at_least, check_finite, check_ndim
from embedkit.geometry import poincare
from embedkit.geometry._curvature import curvature_of, edge_margin, wide


@dataclass(frozen=True)
class RadiusStats:
    """Hyperbolic radii of points: their mean, standard deviation (by n) and quantiles."""

    mean: float
    std: float
    quantiles: dict[float, float]


@torch.no_grad()
def hyperbolic_radius_stats(
    x: Float[Tensor, "n d"],
    *,
    curvature: float | Tensor = 1.0,
    quantiles: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
) -> RadiusStats:
    """How far points are from the origin,  (2/s) artanh(s|x|),  s = sqrt(c).

    Radii that are all large, with little spread, are what H4G calls over-abstraction: distances
    are then sums of radii and say little about directions.

    Args:
        x: points of the ball, at least one.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.
        quantiles: shares from 0 to 1.

    Raises:
        ValueError: if there is no point, points hold NaN or infinity, or the curvature is not > 0.
        TypeError: if points are not floating.

    Source: Zhang et al. 2025, H4G: Unlocking Faithful Inference for Zero-Shot Graph Learning in
    Hyperbolic Space.

    >>> points = poincare.expmap0(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    >>> round(hyperbolic_radius_stats(points).mean, 3)
    3.0
    """
    _check("hyperbolic_radius_stats", x)
    radius = poincare.distance_to_origin(wide(x), curvature=curvature)
    shares = torch.tensor(quantiles, dtype=radius.dtype, device=radius.device)
    values = torch.quantile(radius, shares).tolist()
    return RadiusStats(
        float(radius.mean()),
        float(radius.std(correction=0)),
        dict(zip(quantiles, values, strict=True)),
    )


@torch.no_grad()
def saturation_rate(
    x: Float[Tensor, "n d"],
    *,
    curvature: float | Tensor = 1.0,
    margin: float | None = None,
) -> float:
    """Share of points at the edge, where whatever lies farther out has been pulled back to.

    Args:
        x: points of the ball, at least one.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.
        margin: how far from the edge, relative to the radius of the ball, points end: what
            :func:`embedkit.geometry.poincare.project` was given. None: that of the dtype.

    Returns:
        From 0 to 1. Above 0, keep tangent vectors, scale features down or lower the curvature.

    Raises:
        ValueError: if there is no point, points hold NaN or infinity, or the curvature is not > 0.
        TypeError: if points are not floating.

    >>> saturation_rate(poincare.expmap0(torch.tensor([[1.0, 0.0], [0.0, 9.0]])))
    0.5
    """
    _check("saturation_rate", x)
    c = curvature_of("saturation_rate", curvature, x)
    margin = edge_margin(x.dtype) if margin is None else margin
    reach = wide(x).norm(dim=-1) * c.sqrt()
    edge = 1 - margin - torch.finfo(x.dtype).eps  # what rounding to the dtype may take away
    return float((reach >= edge).double().mean())


def _check(owner: str, x: Tensor) -> None:
    check_ndim("x", x, "n d")
    check_at_least(owner, "the number of points", x.shape[0], 1)
    check_finite(owner, "x", x)
