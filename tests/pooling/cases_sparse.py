"""SPLADE pooling in the contract."""

import torch

from embedkit.pooling.sparse import SparsePool


def logits_and_mask(batch):
    return torch.randn(batch, 5, 8), torch.rand(batch, 5) > 0.3


CASES = {SparsePool: (SparsePool, logits_and_mask)}
