"""Attention over views in the contract."""

import torch

from embedkit.pooling.semantic import SemanticAttentionPool

CASES = {
    SemanticAttentionPool: (
        lambda: SemanticAttentionPool(4, hidden=3),
        lambda b: (torch.randn(2, b, 4),),
    ),
}
