"""The affine map in the contract."""

import torch

from embedkit.geometry import AffineMap, fit_whitening


def fitted():
    return fit_whitening(torch.randn(20, 3), n_components=2)


def rows(b):
    return (torch.randn(b, 3, generator=torch.Generator().manual_seed(1)),)


CASES = {AffineMap: (fitted, rows)}
