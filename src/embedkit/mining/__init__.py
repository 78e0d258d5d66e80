"""Which pairs, negatives and weights of a batch the loss sees."""

from embedkit.mining.activity import Activity, count_active
from embedkit.mining.consistency import ranking_consistency, ranking_consistency_from_similarity
from embedkit.mining.mixing import MixedNegatives, mix_negative_lists, mix_negative_pairs
from embedkit.mining.negatives import (
    Negatives,
    likely_negatives,
    mine_negatives,
    mine_negatives_from_similarity,
)
from embedkit.mining.sampling import PopularityNegativeSampler, UniformNegativeSampler
from embedkit.mining.soft_weights import SoftNegativeWeight
from embedkit.mining.triplets import (
    batch_hard_triplets,
    hardest_triplets,
    harmonic_triplets,
    random_triplets,
    semihard_triplets,
)
from embedkit.mining.weights import cluster_weights, focal_weights, hardness_weights

__all__ = [
    "Activity",
    "MixedNegatives",
    "Negatives",
    "PopularityNegativeSampler",
    "SoftNegativeWeight",
    "UniformNegativeSampler",
    "batch_hard_triplets",
    "cluster_weights",
    "count_active",
    "focal_weights",
    "hardest_triplets",
    "hardness_weights",
    "harmonic_triplets",
    "likely_negatives",
    "mine_negatives",
    "mine_negatives_from_similarity",
    "mix_negative_lists",
    "mix_negative_pairs",
    "random_triplets",
    "ranking_consistency",
    "ranking_consistency_from_similarity",
    "semihard_triplets",
]
