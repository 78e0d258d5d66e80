"""Tensors in, tensors out, no parameters: what several packages share, or what is used bare."""

from embedkit.ops.adversarial.gradient_reversal import GradientReversal, gradient_reversal
from embedkit.ops.adversarial.schedules import (
    AdversarialStrength,
    AnnealedRate,
    annealing_factor,
    reversal_strength,
)
from embedkit.ops.collectives import gather_rows
from embedkit.ops.hashing import splitmix64, stable_hash, stable_string_hash
from embedkit.ops.late_interaction import max_sim
from embedkit.ops.masked import accumulation_dtype, masked_mean, masked_softmax, zero_padding
from embedkit.ops.pairwise import normalize
from embedkit.ops.ranks import average_ranks
from embedkit.ops.segment import (
    segment_ids,
    segment_max,
    segment_mean,
    segment_softmax,
    select_segments,
)

__all__ = [
    "AdversarialStrength",
    "AnnealedRate",
    "GradientReversal",
    "accumulation_dtype",
    "annealing_factor",
    "average_ranks",
    "gather_rows",
    "gradient_reversal",
    "masked_mean",
    "masked_softmax",
    "max_sim",
    "normalize",
    "reversal_strength",
    "segment_ids",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "select_segments",
    "splitmix64",
    "stable_hash",
    "stable_string_hash",
    "zero_padding",
]
