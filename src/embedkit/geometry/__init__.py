"""Points to points, and distances between them."""

from embedkit.geometry import lorentz, poincare
from embedkit.geometry.divergence import coral_distance, mmd, sliced_wasserstein
from embedkit.geometry.isotropy import (
    AffineMap,
    fit_all_but_the_top,
    fit_ica,
    fit_standardization,
    fit_whitening,
)
from embedkit.geometry.learnable_curvature import Curvature

__all__ = [
    "AffineMap",
    "Curvature",
    "coral_distance",
    "fit_all_but_the_top",
    "fit_ica",
    "fit_standardization",
    "fit_whitening",
    "lorentz",
    "mmd",
    "poincare",
    "sliced_wasserstein",
]
