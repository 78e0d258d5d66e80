"""SDNE's loss in the contract."""

import torch

from embedkit.losses.sdne import SDNELoss


def batch(b):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(b, 9, generator=generator)
    rebuilt, code = torch.rand(b, 9, generator=generator), torch.randn(b, 4, generator=generator)
    return rebuilt, rows, code, torch.randperm(9, generator=generator)[:b]


CASES = {SDNELoss: (lambda: SDNELoss(beta=3.0, alpha=0.5), batch)}
