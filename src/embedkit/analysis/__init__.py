"""Vectors or rankings in, a measurement out."""

from embedkit.analysis.collisions import CollisionReport, collision_report, expected_lost
from embedkit.analysis.correlation import kendall, pearson, spearman
from embedkit.analysis.isotropy import alignment, effective_rank, uniformity
from embedkit.analysis.retrieval import retrieval_metrics
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
    "pearson",
    "retrieval_metrics",
    "spearman",
    "uniformity",
    "val_at_far",
    "verification_accuracy",
    "verification_rates",
]
