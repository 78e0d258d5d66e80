"""A measurement in, matplotlib Axes out. Needs the extra: ``pip install "embedkit[plots]"``."""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        "embedkit.plots draws with matplotlib, which is not installed here. "
        'Install it with: pip install "embedkit[plots]"'
    ) from error

from embedkit.plots.depth import depth_curve
from embedkit.plots.matryoshka import matryoshka_curve
from embedkit.plots.poincare import poincare_disk
from embedkit.plots.reconstruction import reconstruction_curve

__all__ = [
    "depth_curve",
    "matryoshka_curve",
    "poincare_disk",
    "reconstruction_curve",
]
