"""The engine under every contrastive loss: sweeps over a Gram matrix that is never stored."""

from embedkit.ops.gram._problem import Gram
from embedkit.ops.gram._sweep import sweep
from embedkit.ops.gram.operator import gram_rows, gram_sum

__all__ = ["Gram", "gram_rows", "gram_sum", "sweep"]
