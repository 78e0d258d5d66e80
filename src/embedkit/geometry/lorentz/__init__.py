"""The hyperboloid: hyperbolic space as points (time, space) with <p, p> = -1/c, plain tensors."""

from embedkit.geometry.lorentz.cone import exterior_angle, half_aperture
from embedkit.geometry.lorentz.distance import (
    distance,
    distance_to_hyperplane,
    distance_to_origin,
    pairwise_distance,
)
from embedkit.geometry.lorentz.maps import (
    expmap,
    expmap0,
    geodesic,
    logmap,
    logmap0,
    parallel_transport,
)
from embedkit.geometry.lorentz.midpoint import midpoint, segment_midpoint
from embedkit.geometry.lorentz.space import inner, project

__all__ = [
    "distance",
    "distance_to_hyperplane",
    "distance_to_origin",
    "expmap",
    "expmap0",
    "exterior_angle",
    "geodesic",
    "half_aperture",
    "inner",
    "logmap",
    "logmap0",
    "midpoint",
    "pairwise_distance",
    "parallel_transport",
    "project",
    "segment_midpoint",
]
