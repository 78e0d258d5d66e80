"""Pair heads in the contract."""

import torch

from embedkit.heads.pair import PairHead

CASES = {
    PairHead: (
        lambda: PairHead(3, hidden=[5], out_features=2),
        lambda b: (torch.randn(b, 3), torch.randn(b, 3)),
    ),
}
