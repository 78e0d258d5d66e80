"""Points to points, and distances between them."""

from embedkit.geometry import lorentz, poincare
from embedkit.geometry.isotropy import (
    AffineMap,
    fit_all_but_the_top,
    fit_ica,
    fit_standardization,
    fit_whitening,
)

__all__ = [
    "AffineMap",
    "fit_all_but_the_top",
    "fit_ica",
    "fit_standardization",
    "fit_whitening",
    "lorentz",
    "poincare",
]
