"""The cross-entropy over fixed prototypes in the contract."""

import torch

from embedkit.losses.classes.frozen_prototypes import PrototypeCrossEntropyLoss


def build():
    return PrototypeCrossEntropyLoss(torch.randn(5, 3), chunk_size=2)


def rows(b):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(b, 3, generator=generator), torch.arange(b) % 5


CASES = {PrototypeCrossEntropyLoss: (build, rows)}
