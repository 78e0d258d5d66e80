"""Projection heads in the contract."""

import torch

from embedkit.heads.projection import ProjectionHead, ReweightingHead, SymmetricReLU


def rows(b):
    return (torch.randn(b, 6, generator=torch.Generator().manual_seed(0)),)


CASES = {
    ProjectionHead: (lambda: ProjectionHead(6, 3, 5, num_layers=3), rows),
    ReweightingHead: (lambda: ReweightingHead(6, kappa=1.5), rows),
    SymmetricReLU: (lambda: SymmetricReLU(0.3), rows),
}
