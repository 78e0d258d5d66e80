"""Losses between domains in the contract."""

import torch

from embedkit.heads.domain import DomainDiscriminator, JointFeatures
from embedkit.losses.domains.adversarial import DomainAdversarialLoss
from embedkit.losses.domains.alignment import CORALLoss, MMDLoss, SlicedWassersteinLoss
from embedkit.losses.domains.conditional import ConditionalDomainAdversarialLoss

REVERSED = {"gradients": "reversal is no derivative of its forward"}


def samples(b, *more):
    generator = torch.Generator().manual_seed(b)
    sizes = (b, 3), (b + 2 if b else 0, 3), *more
    return tuple(torch.randn(size, generator=generator) for size in sizes)


CASES = {
    DomainAdversarialLoss: (
        lambda: DomainAdversarialLoss(DomainDiscriminator(3, [4]), 0.5),
        samples,
        REVERSED,
    ),
    ConditionalDomainAdversarialLoss: (
        lambda: ConditionalDomainAdversarialLoss(DomainDiscriminator(6, [4]), JointFeatures(3, 2)),
        lambda b: samples(b, (b, 2), (b + 2 if b else 0, 2)),
        REVERSED,
    ),
    MMDLoss: (lambda: MMDLoss([0.5, 2.0], unbiased=True), samples),
    CORALLoss: (CORALLoss, samples),
    SlicedWassersteinLoss: (SlicedWassersteinLoss, lambda b: samples(b, (4, 3))),
}
