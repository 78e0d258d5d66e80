"""Losses of recommenders in the contract."""

import torch

from embedkit.losses.pairs.sampled_softmax import SampledSoftmaxLoss
from embedkit.losses.scores.ranking import BPRLoss
from embedkit.losses.temperature import LearnableTemperature


def scores(b):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(b, generator=generator), torch.randn(b, 3, generator=generator)


def drawn(b):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, b, 6, generator=generator)
    return query, key, torch.rand(b, generator=generator).log()


CASES = {
    BPRLoss: (BPRLoss, scores),
    SampledSoftmaxLoss: (lambda: SampledSoftmaxLoss(LearnableTemperature(0.5)), drawn),
}
