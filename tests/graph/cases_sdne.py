"""SDNE in the contract."""

import torch

from embedkit.graph.structure.autoencoder import SDNE

CASES = {
    SDNE: (
        lambda: SDNE(6, hidden=(5,), dim=3),
        lambda b: (torch.rand(b, 6, generator=torch.Generator().manual_seed(0)),),
    ),
}
