"""Few-shot losses in the contract."""

import torch

from embedkit.losses.classes.few_shot import ICNNLoss, ProtoTripletLoss


def episode(b):
    generator = torch.Generator().manual_seed(0)
    query, prototypes = (torch.randn(n, 5, generator=generator) for n in (b, 3))
    return query, torch.arange(b) % 3, prototypes


def labelled(b):
    x, labels, _ = episode(2 * b)
    return x, labels


CASES = {
    ProtoTripletLoss: (lambda: ProtoTripletLoss(margin=2.0), episode),
    ICNNLoss: (lambda: ICNNLoss(k=2), labelled),
}
