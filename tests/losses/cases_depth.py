"""Losses over layers and nested classification in the contract."""

import torch

from embedkit.losses import InfoNCELoss
from embedkit.losses.depth.adaptive import AdaptiveLayerLoss, Matryoshka2dLoss
from embedkit.losses.depth.alignment import EmbeddingAlignmentLoss
from embedkit.losses.depth.espresso import EspressoLoss
from embedkit.losses.depth.sizes import LayerDimPairsLoss
from embedkit.losses.nested_classifier import MatryoshkaCrossEntropyLoss


def states(b):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, b, 6, generator=generator)
    return list(query), list(key)


def rows(b):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, b, 6, generator=generator))


def logits(b):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, b, 5, generator=generator), torch.arange(b) % 5


BASE = {"temperature": 0.5}
HELD = {"gradients": "the targets made from the input are constants, which differences see move"}
CASES = {
    AdaptiveLayerLoss: (
        lambda: AdaptiveLayerLoss(InfoNCELoss(**BASE), layers_per_step=-1),
        states,
        HELD,
    ),
    Matryoshka2dLoss: (
        lambda: Matryoshka2dLoss(InfoNCELoss(**BASE), [2, 4, 6], per_step=(-1, -1)),
        states,
        HELD,
    ),
    LayerDimPairsLoss: (
        lambda: LayerDimPairsLoss(InfoNCELoss(**BASE), [(1, 2), (1, 3), (3, 6)]),
        states,
        HELD,
    ),
    EspressoLoss: (lambda: EspressoLoss(InfoNCELoss(**BASE), dim=3), states, HELD),
    EmbeddingAlignmentLoss: (lambda: EmbeddingAlignmentLoss(mse_weight=0.5), rows, HELD),
    MatryoshkaCrossEntropyLoss: (lambda: MatryoshkaCrossEntropyLoss([1.0, 0.5, 2.0], 0.1), logits),
}
