"""A vector in, a vector out: what stands between an encoder and its loss."""

from embedkit.heads.lexicon import entry_embeddings
from embedkit.heads.nested import MatryoshkaHead, truncate_embedding
from embedkit.heads.nested_classifier import MatryoshkaClassifier
from embedkit.heads.next_sentence.autoencoder import (
    Autoencoding,
    SequenceAutoencoder,
    greedy_decode,
    prefix_condition,
)
from embedkit.heads.next_sentence.delimiters import delimiter_states, question_mask
from embedkit.heads.next_sentence.lens import sentence_lens
from embedkit.heads.next_sentence.predictor import (
    NextEmbedding,
    NextEmbeddingPredictor,
    TerminationHead,
)
from embedkit.heads.next_sentence.rollout import Rollout, latent_rollout
from embedkit.heads.pair import PairHead, pair_features, score_all_pairs
from embedkit.heads.projection import ProjectionHead, ReweightingHead, SymmetricReLU, symmetric_relu
from embedkit.heads.relation import TransR, relation_project, transr_distance

__all__ = [
    "Autoencoding",
    "MatryoshkaClassifier",
    "MatryoshkaHead",
    "NextEmbedding",
    "NextEmbeddingPredictor",
    "PairHead",
    "ProjectionHead",
    "ReweightingHead",
    "Rollout",
    "SequenceAutoencoder",
    "SymmetricReLU",
    "TerminationHead",
    "TransR",
    "delimiter_states",
    "entry_embeddings",
    "greedy_decode",
    "latent_rollout",
    "pair_features",
    "prefix_condition",
    "question_mask",
    "relation_project",
    "score_all_pairs",
    "sentence_lens",
    "symmetric_relu",
    "transr_distance",
    "truncate_embedding",
]
