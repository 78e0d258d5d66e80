"""Embeddings (or similarities) and who matches whom in, a number out."""

from embedkit.losses.classes.batch_all import batch_all_triplet_loss
from embedkit.losses.classes.few_shot import (
    ICNNLoss,
    ICNNScore,
    ProtoTripletLoss,
    icnn_score,
    proto_triplet_loss,
    prototypical_logits,
)
from embedkit.losses.classes.frozen_prototypes import (
    PrototypeCrossEntropyLoss,
    prototype_cross_entropy,
)
from embedkit.losses.classes.margin_softmax import ArcFaceLoss, CosFaceLoss, arc_face, cos_face
from embedkit.losses.classes.pair_weighting import (
    CircleLoss,
    MultiSimilarityLoss,
    circle,
    multi_similarity,
)
from embedkit.losses.classes.prototype_contrast import (
    ProtoNCELoss,
    cluster_concentration,
    proto_nce,
)
from embedkit.losses.classes.proxy import ProxyAnchorLoss, ProxyNCALoss, proxy_anchor, proxy_nca
from embedkit.losses.classes.triplet import TripletLoss, triplet_loss
from embedkit.losses.depth.adaptive import (
    AdaptiveLayerLoss,
    Matryoshka2dLoss,
    adaptive_layer,
    layer_weights,
)
from embedkit.losses.depth.alignment import EmbeddingAlignmentLoss, embedding_alignment
from embedkit.losses.depth.espresso import (
    EspressoLoss,
    learn_to_compress,
    learn_to_express,
    pca_compress,
)
from embedkit.losses.depth.sizes import LayerDimPairsLoss, layer_dim_pairs
from embedkit.losses.domains.adversarial import DomainAdversarialLoss, domain_adversarial_loss
from embedkit.losses.domains.alignment import CORALLoss, MMDLoss, SlicedWassersteinLoss
from embedkit.losses.domains.conditional import ConditionalDomainAdversarialLoss, entropy_weights
from embedkit.losses.hyperbolic.embedding import HyperbolicInfoNCELoss, hyperbolic_info_nce
from embedkit.losses.hyperbolic.entailment import EntailmentConeLoss, entailment_cone
from embedkit.losses.nested import MatryoshkaLoss
from embedkit.losses.nested_classifier import MatryoshkaCrossEntropyLoss, matryoshka_cross_entropy
from embedkit.losses.pairs.contrastive import InfoNCELoss, info_nce, info_nce_from_similarity
from embedkit.losses.pairs.decoupled import DecoupledContrastiveLoss, decoupled_contrastive
from embedkit.losses.pairs.ring import ring_info_nce
from embedkit.losses.pairs.sampled_softmax import SampledSoftmaxLoss, sampled_softmax
from embedkit.losses.pairs.sigmoid import SigmoidContrastiveLoss, sigmoid_contrastive
from embedkit.losses.pairs.spectral import SpectralContrastiveLoss, spectral_contrastive_loss
from embedkit.losses.pairs.supervised import SupConLoss, sup_con
from embedkit.losses.pairs.weighted import (
    WeightedInfoNCELoss,
    weighted_info_nce,
    weighted_info_nce_from_similarity,
)
from embedkit.losses.redundancy import BarlowTwinsLoss, VICRegLoss, barlow_twins, vicreg
from embedkit.losses.scores.candidate_distillation import (
    MarginMSELoss,
    SimilarityDistillationLoss,
    margin_mse,
    similarity_distillation,
)
from embedkit.losses.scores.compactness import POTLoss, pot_loss
from embedkit.losses.scores.correlation import PearsonLoss, RankKLLoss, pearson_loss, rank_kl_loss
from embedkit.losses.scores.distillation import (
    LogitDistillationLoss,
    ScoreRegressionLoss,
    binary_margin,
    logit_distillation,
    score_regression,
)
from embedkit.losses.scores.ordering import (
    AnglELoss,
    CoSENTLoss,
    angle_loss,
    angle_similarity,
    cosent_loss,
)
from embedkit.losses.scores.preference import PROLoss, pro_loss
from embedkit.losses.scores.ranking import BPRLoss, batch_l2_penalty, bpr_loss
from embedkit.losses.scores.soft_labels import SoftLabelLoss, soft_label_cross_entropy
from embedkit.losses.sdne import SDNELoss, sdne_loss
from embedkit.losses.sequence import SequenceCrossEntropyLoss, sequence_cross_entropy
from embedkit.losses.sparsity import flops_regularizer, l1_regularizer
from embedkit.losses.temperature import LearnableTemperature

__all__ = [
    "AdaptiveLayerLoss",
    "AnglELoss",
    "ArcFaceLoss",
    "BPRLoss",
    "BarlowTwinsLoss",
    "CORALLoss",
    "CircleLoss",
    "CoSENTLoss",
    "ConditionalDomainAdversarialLoss",
    "CosFaceLoss",
    "DecoupledContrastiveLoss",
    "DomainAdversarialLoss",
    "EmbeddingAlignmentLoss",
    "EntailmentConeLoss",
    "EspressoLoss",
    "HyperbolicInfoNCELoss",
    "ICNNLoss",
    "ICNNScore",
    "InfoNCELoss",
    "LayerDimPairsLoss",
    "LearnableTemperature",
    "LogitDistillationLoss",
    "MMDLoss",
    "MarginMSELoss",
    "Matryoshka2dLoss",
    "MatryoshkaCrossEntropyLoss",
    "MatryoshkaLoss",
    "MultiSimilarityLoss",
    "POTLoss",
    "PROLoss",
    "PearsonLoss",
    "ProtoNCELoss",
    "ProtoTripletLoss",
    "PrototypeCrossEntropyLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "RankKLLoss",
    "SDNELoss",
    "SampledSoftmaxLoss",
    "ScoreRegressionLoss",
    "SequenceCrossEntropyLoss",
    "SigmoidContrastiveLoss",
    "SimilarityDistillationLoss",
    "SlicedWassersteinLoss",
    "SoftLabelLoss",
    "SpectralContrastiveLoss",
    "SupConLoss",
    "TripletLoss",
    "VICRegLoss",
    "WeightedInfoNCELoss",
    "adaptive_layer",
    "angle_loss",
    "angle_similarity",
    "arc_face",
    "barlow_twins",
    "batch_all_triplet_loss",
    "batch_l2_penalty",
    "binary_margin",
    "bpr_loss",
    "circle",
    "cluster_concentration",
    "cos_face",
    "cosent_loss",
    "decoupled_contrastive",
    "domain_adversarial_loss",
    "embedding_alignment",
    "entailment_cone",
    "entropy_weights",
    "flops_regularizer",
    "hyperbolic_info_nce",
    "icnn_score",
    "info_nce",
    "info_nce_from_similarity",
    "l1_regularizer",
    "layer_dim_pairs",
    "layer_weights",
    "learn_to_compress",
    "learn_to_express",
    "logit_distillation",
    "margin_mse",
    "matryoshka_cross_entropy",
    "multi_similarity",
    "pca_compress",
    "pearson_loss",
    "pot_loss",
    "pro_loss",
    "proto_nce",
    "proto_triplet_loss",
    "prototype_cross_entropy",
    "prototypical_logits",
    "proxy_anchor",
    "proxy_nca",
    "rank_kl_loss",
    "ring_info_nce",
    "sampled_softmax",
    "score_regression",
    "sdne_loss",
    "sequence_cross_entropy",
    "sigmoid_contrastive",
    "similarity_distillation",
    "soft_label_cross_entropy",
    "spectral_contrastive_loss",
    "sup_con",
    "triplet_loss",
    "vicreg",
    "weighted_info_nce",
    "weighted_info_nce_from_similarity",
]
