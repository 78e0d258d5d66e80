"""A vector in, a vector out: what stands between an encoder and its loss."""

from embedkit.heads.domain import DomainDiscriminator, JointFeatures
from embedkit.heads.hyperbolic.edges import FermiDiracDecoder, fermi_dirac
from embedkit.heads.hyperbolic.linear import (
    MobiusLinear,
    PoincareLinear,
    mobius_linear,
    poincare_linear,
)
from embedkit.heads.hyperbolic.prototypes import (
    HyperbolicPrototypeHead,
    hyperbolic_prototype_logits,
)
from embedkit.heads.hyperbolic.regression import HyperbolicMLR, hyperbolic_logits
from embedkit.heads.hyperbolic.tangent import (
    BlockDiagonalMobius,
    ExpMap0,
    HyperbolicActivation,
    LogMap0,
    block_diagonal_scaling,
)
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
    "BlockDiagonalMobius",
    "DomainDiscriminator",
    "ExpMap0",
    "FermiDiracDecoder",
    "HyperbolicActivation",
    "HyperbolicMLR",
    "HyperbolicPrototypeHead",
    "JointFeatures",
    "LogMap0",
    "MatryoshkaClassifier",
    "MatryoshkaHead",
    "MobiusLinear",
    "NextEmbedding",
    "NextEmbeddingPredictor",
    "PairHead",
    "PoincareLinear",
    "ProjectionHead",
    "ReweightingHead",
    "Rollout",
    "SequenceAutoencoder",
    "SymmetricReLU",
    "TerminationHead",
    "TransR",
    "block_diagonal_scaling",
    "delimiter_states",
    "entry_embeddings",
    "fermi_dirac",
    "greedy_decode",
    "hyperbolic_logits",
    "hyperbolic_prototype_logits",
    "latent_rollout",
    "mobius_linear",
    "pair_features",
    "poincare_linear",
    "prefix_condition",
    "question_mask",
    "relation_project",
    "score_all_pairs",
    "sentence_lens",
    "symmetric_relu",
    "transr_distance",
    "truncate_embedding",
]
