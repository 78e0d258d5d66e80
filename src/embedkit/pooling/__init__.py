"""Many vectors in, one out: token vectors (b, n, d) and a mask (b, n) become (b, d)."""

from embedkit.pooling.attention import AttentionPool, attention_pool
from embedkit.pooling.latent import LatentAttentionPool, latent_attention
from embedkit.pooling.masked import (
    FirstTokenPool,
    LastTokenPool,
    MaxPool,
    MeanPool,
    first_token_pool,
    last_token_pool,
    max_pool,
    mean_pool,
)

__all__ = [
    "AttentionPool",
    "FirstTokenPool",
    "LastTokenPool",
    "LatentAttentionPool",
    "MaxPool",
    "MeanPool",
    "attention_pool",
    "first_token_pool",
    "last_token_pool",
    "latent_attention",
    "max_pool",
    "mean_pool",
]
