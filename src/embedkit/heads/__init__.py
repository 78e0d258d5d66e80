"""A vector in, a vector out: what stands between an encoder and its loss."""

from embedkit.heads.nested import MatryoshkaHead, truncate_embedding
from embedkit.heads.pair import PairHead, pair_features, score_all_pairs

__all__ = [
    "MatryoshkaHead",
    "PairHead",
    "pair_features",
    "score_all_pairs",
    "truncate_embedding",
]
