"""Margin softmax, proxies, weighted pairs and redundancy reduction in the contract."""

import torch

from embedkit.losses.classes.margin_softmax import ArcFaceLoss, CosFaceLoss
from embedkit.losses.classes.pair_weighting import CircleLoss, MultiSimilarityLoss
from embedkit.losses.classes.proxy import ProxyAnchorLoss, ProxyNCALoss
from embedkit.losses.redundancy import BarlowTwinsLoss, VICRegLoss


def labelled(b):
    generator = torch.Generator().manual_seed(
        7
    )  # not the seed of the class vectors: no cosine of 1
    return torch.randn(b, 6, generator=generator), torch.arange(b) % 2


def views(b):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(b, 4, generator=generator), torch.randn(b, 4, generator=generator)


CASES = {
    ArcFaceLoss: (lambda: ArcFaceLoss(3, 6, scale=4.0), labelled),
    CosFaceLoss: (lambda: CosFaceLoss(3, 6, scale=4.0), labelled),
    ProxyNCALoss: (lambda: ProxyNCALoss(3, 6), labelled),
    ProxyAnchorLoss: (lambda: ProxyAnchorLoss(3, 6, scale=4.0), labelled),
    MultiSimilarityLoss: (MultiSimilarityLoss, labelled),
    CircleLoss: (
        CircleLoss,
        labelled,
        {"gradients": "its weights are held constant in the derivative, as in the paper"},
    ),
    VICRegLoss: (VICRegLoss, views),
    BarlowTwinsLoss: (BarlowTwinsLoss, views),
}
