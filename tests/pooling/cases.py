import torch
from pooling.cases_hyperbolic import CASES as HYPERBOLIC
from pooling.cases_semantic import CASES as SEMANTIC
from pooling.cases_sparse import CASES as SPARSE

from embedkit.pooling import (
    AttentionPool,
    FirstTokenPool,
    LastTokenPool,
    LatentAttentionPool,
    LayerWeightedPool,
    MaxPool,
    MeanPool,
    PositionWeightedPool,
)


def tokens_and_mask(batch):
    return torch.randn(batch, 5, 8), torch.rand(batch, 5) > 0.3


def attention_pool():
    pool = AttentionPool(8, num_heads=2)
    torch.nn.init.normal_(pool.query)  # away from mean pooling, where it starts
    return pool


POOLS = {
    MeanPool: (MeanPool, tokens_and_mask),
    MaxPool: (MaxPool, tokens_and_mask),
    FirstTokenPool: (FirstTokenPool, tokens_and_mask),
    LastTokenPool: (LastTokenPool, tokens_and_mask),
    **SPARSE,
    PositionWeightedPool: (PositionWeightedPool, tokens_and_mask),
    AttentionPool: (attention_pool, tokens_and_mask),
    LatentAttentionPool: (
        lambda: LatentAttentionPool(8, num_latents=3, num_heads=2, ff_mult=1),
        tokens_and_mask,
    ),
}
CASES = {
    **POOLS,
    LayerWeightedPool: (
        lambda: LayerWeightedPool(3),
        lambda b: (torch.randn(3, b, 4),),
    ),
    **SEMANTIC,
    **HYPERBOLIC,
}
