"""A vector in, a vector out: what stands between an encoder and its loss."""

from embedkit.heads.lexicon import entry_embeddings
from embedkit.heads.nested import MatryoshkaHead, truncate_embedding
from embedkit.heads.nested_classifier import MatryoshkaClassifier
from embedkit.heads.pair import PairHead, pair_features, score_all_pairs
from embedkit.heads.projection import ProjectionHead, ReweightingHead, SymmetricReLU, symmetric_relu

__all__ = [
    "MatryoshkaClassifier",
    "MatryoshkaHead",
    "PairHead",
    "ProjectionHead",
    "ReweightingHead",
    "SymmetricReLU",
    "entry_embeddings",
    "pair_features",
    "score_all_pairs",
    "symmetric_relu",
    "truncate_embedding",
]
