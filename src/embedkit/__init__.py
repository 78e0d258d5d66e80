"""Composable embedding-learning layers for PyTorch: import a block, use it in your own loop.

Packages load on first use: ``import embedkit as ek; ek.losses.info_nce(query, key)``.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"
__all__ = [
    "analysis",
    "batch",
    "geometry",
    "graph",
    "heads",
    "losses",
    "mining",
    "ops",
    "plots",
    "pooling",
    "search",
    "surgery",
    "tables",
    "testing",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"embedkit.{name}")
    raise AttributeError(
        f"module 'embedkit' has no attribute {name!r}; it has {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
