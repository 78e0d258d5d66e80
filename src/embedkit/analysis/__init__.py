"""Vectors or rankings in, a measurement out."""

from embedkit.analysis.collisions import CollisionReport, collision_report, expected_lost
from embedkit.analysis.isotropy import alignment, effective_rank, uniformity
from embedkit.analysis.retrieval import retrieval_metrics

__all__ = [
    "CollisionReport",
    "alignment",
    "collision_report",
    "effective_rank",
    "expected_lost",
    "retrieval_metrics",
    "uniformity",
]
