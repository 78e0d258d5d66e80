"""A measurement in, matplotlib Axes out. Needs the extra: ``pip install "embedkit[plots]"``."""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        "embedkit.plots draws with matplotlib, which is not installed here. "
        'Install it with: pip install "embedkit[plots]"'
    ) from error

from embedkit.plots.matryoshka import matryoshka_curve

__all__ = ["matryoshka_curve"]
