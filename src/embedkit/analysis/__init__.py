"""Vectors or rankings in, a measurement out."""

from embedkit.analysis.collisions import CollisionReport, collision_report, expected_lost
from embedkit.analysis.correlation import kendall, pearson, spearman
from embedkit.analysis.domains.proxy_distance import proxy_a_distance
from embedkit.analysis.graphs.hops import hop_distances
from embedkit.analysis.graphs.precision import average_precision
from embedkit.analysis.graphs.reconstruction import reconstruction_metrics
from embedkit.analysis.graphs.report import HopReport, ReconstructionReport
from embedkit.analysis.graphs.semantics import SemanticDrift, analogy_accuracy, semantic_drift
from embedkit.analysis.graphs.smoothness import Smoothness, smoothness
from embedkit.analysis.hyperbolic import RadiusStats, hyperbolic_radius_stats, saturation_rate
from embedkit.analysis.isotropy import alignment, isotropy_score, mean_cosine, uniformity
from embedkit.analysis.label_retrieval import LabelRetrieval, label_retrieval_metrics
from embedkit.analysis.layers import layer_feature_weights
from embedkit.analysis.probes import ClusteringScores, clustering_scores, knn_probe, linear_probe
from embedkit.analysis.recommendation import all_ranking_metrics
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
    "ClusteringScores",
    "CollisionReport",
    "FoldAccuracy",
    "HopReport",
    "LabelRetrieval",
    "RadiusStats",
    "ReconstructionReport",
    "SemanticDrift",
    "Smoothness",
    "ValidationRate",
    "alignment",
    "all_ranking_metrics",
    "analogy_accuracy",
    "average_precision",
    "clustering_scores",
    "collision_report",
    "effective_rank",
    "expected_lost",
    "hop_distances",
    "hyperbolic_radius_stats",
    "isotropy_score",
    "kendall",
    "knn_probe",
    "label_retrieval_metrics",
    "layer_feature_weights",
    "linear_probe",
    "mean_cosine",
    "participation_ratio",
    "pearson",
    "proxy_a_distance",
    "rankme",
    "reconstruction_metrics",
    "retrieval_metrics",
    "saturation_rate",
    "semantic_drift",
    "smoothness",
    "spearman",
    "spectrum",
    "stable_rank",
    "uniformity",
    "val_at_far",
    "verification_accuracy",
    "verification_rates",
]
