"""Embeddings (or similarities) and who matches whom in, a number out."""

from embedkit.losses.contrastive import InfoNCELoss, info_nce, info_nce_from_similarity
from embedkit.losses.decoupled import DecoupledContrastiveLoss, decoupled_contrastive
from embedkit.losses.nested import MatryoshkaLoss
from embedkit.losses.ring import ring_info_nce
from embedkit.losses.sigmoid import SigmoidContrastiveLoss, sigmoid_contrastive
from embedkit.losses.supervised import SupConLoss, sup_con
from embedkit.losses.temperature import LearnableTemperature

__all__ = [
    "DecoupledContrastiveLoss",
    "InfoNCELoss",
    "LearnableTemperature",
    "MatryoshkaLoss",
    "SigmoidContrastiveLoss",
    "SupConLoss",
    "decoupled_contrastive",
    "info_nce",
    "info_nce_from_similarity",
    "ring_info_nce",
    "sigmoid_contrastive",
    "sup_con",
]
