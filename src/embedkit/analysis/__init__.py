"""Vectors or rankings in, a measurement out."""

from embedkit.analysis.collisions import CollisionReport, collision_report, expected_lost
from embedkit.analysis.correlation import kendall, pearson, spearman
from embedkit.analysis.isotropy import alignment, uniformity
from embedkit.analysis.layers import layer_feature_weights
from embedkit.analysis.retrieval import retrieval_metrics
from embedkit.analysis.spectrum import (
    effective_rank,
    participation_ratio,
    rankme,
    spectrum,
    stable_rank,
)
from embedkit.analysis.verification import (
    FoldAccuracy,
    ValidationRate,
    val_at_far,
    verification_accuracy,
    verification_rates,
)

__all__ = [
    "CollisionReport",
    "FoldAccuracy",
    "ValidationRate",
    "alignment",
    "collision_report",
    "effective_rank",
    "expected_lost",
    "kendall",
    "layer_feature_weights",
    "participation_ratio",
    "pearson",
    "rankme",
    "retrieval_metrics",
    "spearman",
    "spectrum",
    "stable_rank",
    "uniformity",
    "val_at_far",
    "verification_accuracy",
    "verification_rates",
]
