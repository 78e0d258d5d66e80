"""The Poincaré ball: hyperbolic space inside a ball of radius 1/sqrt(c), as plain tensors."""

from embedkit.geometry.poincare.ball import check_inside, conformal_factor, project
from embedkit.geometry.poincare.convert import (
    klein_to_poincare,
    lorentz_to_poincare,
    poincare_to_klein,
    poincare_to_lorentz,
)
from embedkit.geometry.poincare.distance import (
    distance,
    distance_to_hyperplane,
    distance_to_origin,
)
from embedkit.geometry.poincare.frechet import frechet_mean
from embedkit.geometry.poincare.maps import (
    expmap,
    expmap0,
    geodesic,
    logmap,
    logmap0,
    parallel_transport,
)
from embedkit.geometry.poincare.midpoint import midpoint, segment_midpoint
from embedkit.geometry.poincare.mobius import (
    gyration,
    mobius_add,
    mobius_matvec,
    mobius_pointwise_mul,
    mobius_scalar_mul,
)
from embedkit.geometry.poincare.pairwise import pairwise_distance, tangent_distance

__all__ = [
    "check_inside",
    "conformal_factor",
    "distance",
    "distance_to_hyperplane",
    "distance_to_origin",
    "expmap",
    "expmap0",
    "frechet_mean",
    "geodesic",
    "gyration",
    "klein_to_poincare",
    "logmap",
    "logmap0",
    "lorentz_to_poincare",
    "midpoint",
    "mobius_add",
    "mobius_matvec",
    "mobius_pointwise_mul",
    "mobius_scalar_mul",
    "pairwise_distance",
    "parallel_transport",
    "poincare_to_klein",
    "poincare_to_lorentz",
    "project",
    "segment_midpoint",
    "tangent_distance",
]
