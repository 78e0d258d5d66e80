"""The spectral contrastive loss in the contract."""

import torch

from embedkit.losses.pairs.spectral import SpectralContrastiveLoss


def views(b):
    query, key = torch.randn(2, b, 3, generator=torch.Generator().manual_seed(0))
    return query, key


CASES = {SpectralContrastiveLoss: (SpectralContrastiveLoss, views)}
