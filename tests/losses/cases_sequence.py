"""The cross-entropy of padded sequences in the contract."""

import torch

from embedkit.losses.sequence import SequenceCrossEntropyLoss


def sentences(b):
    draw = torch.Generator().manual_seed(0)
    targets = torch.randint(1, 6, (b, 4), generator=draw)
    targets[:, 2:] = 0
    return torch.randn(b, 4, 6, generator=draw), targets


CASES = {SequenceCrossEntropyLoss: (lambda: SequenceCrossEntropyLoss(0), sentences)}
