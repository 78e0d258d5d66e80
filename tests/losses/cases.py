"""Losses in the contract."""

import torch

from embedkit.losses import (
    DecoupledContrastiveLoss,
    InfoNCELoss,
    LearnableTemperature,
    MatryoshkaLoss,
    SigmoidContrastiveLoss,
    SupConLoss,
)


def pairs(b):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(b, 6, generator=generator), torch.randn(b, 6, generator=generator)


def labelled(b):
    return pairs(b)[0], torch.arange(b) % 2


CASES = {
    InfoNCELoss: (lambda: InfoNCELoss(LearnableTemperature(0.5), symmetric=True), pairs),
    SupConLoss: (lambda: SupConLoss(temperature=0.5), labelled),
    DecoupledContrastiveLoss: (lambda: DecoupledContrastiveLoss(temperature=0.5), pairs),
    SigmoidContrastiveLoss: (lambda: SigmoidContrastiveLoss(temperature=0.5, bias=-1.0), pairs),
    MatryoshkaLoss: (lambda: MatryoshkaLoss(InfoNCELoss(temperature=0.5), [2, 4, 6]), pairs),
    LearnableTemperature: (
        LearnableTemperature,
        lambda b: (),
        {"empty_batch": "it takes no batch", "moves": "it takes no input"},
    ),
}
