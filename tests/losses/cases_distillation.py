"""Distillation in the contract."""

import torch

from embedkit.losses.scores.candidate_distillation import MarginMSELoss, SimilarityDistillationLoss
from embedkit.losses.scores.distillation import LogitDistillationLoss, ScoreRegressionLoss
from embedkit.losses.scores.soft_labels import SoftLabelLoss


def both(b):  # integers from the teacher: constants have no gradient to compare
    return torch.randn(b, 4), torch.randint(-2, 3, (b, 4))


CASES = {
    ScoreRegressionLoss: (ScoreRegressionLoss, both),
    LogitDistillationLoss: (
        LogitDistillationLoss,
        lambda b: (*both(b), torch.randint(0, 4, (b,))),
    ),
    SoftLabelLoss: (
        SoftLabelLoss,
        lambda b: (torch.randn(b, 4), torch.randn(b, 4).softmax(1)),
        {"gradients": "labels are constants: they have no gradient"},
    ),
    SimilarityDistillationLoss: (lambda: SimilarityDistillationLoss(0.5), both),
    MarginMSELoss: (
        MarginMSELoss,
        lambda b: (torch.randn(b), torch.randn(b, 3), torch.randint(-2, 3, (b, 3))),
    ),
}
