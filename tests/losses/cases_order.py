"""Losses on lists of scores in the contract."""

import torch

from embedkit.losses.scores.correlation import PearsonLoss, RankKLLoss
from embedkit.losses.scores.ordering import AnglELoss, CoSENTLoss
from embedkit.losses.scores.preference import PROLoss


def scores(b):
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(b, generator=generator)
    return pred, torch.randint(0, 4, (b,), generator=generator)


def rows(b):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, b, 6, generator=generator)
    return query, key, torch.arange(b) // 2


CASES = {
    PearsonLoss: (PearsonLoss, scores),
    RankKLLoss: (lambda: RankKLLoss(temperature=0.5), scores),
    PROLoss: (lambda: PROLoss(temperature=0.5), scores),
    CoSENTLoss: (lambda: CoSENTLoss(temperature=0.5), scores),
    AnglELoss: (lambda: AnglELoss(temperature=0.5), rows),
}
