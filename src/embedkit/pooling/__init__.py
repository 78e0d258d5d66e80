"""Many vectors in, one out: token vectors (b, n, d) and a mask (b, n) become (b, d)."""

from embedkit.pooling.attention import AttentionPool, attention_pool
from embedkit.pooling.hyperbolic import (
    HyperbolicAttentionPool,
    MidpointPool,
    hyperbolic_attention_pool,
)
from embedkit.pooling.latent import LatentAttentionPool, latent_attention
from embedkit.pooling.layers import LayerWeightedPool
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
from embedkit.pooling.nv_embed import load_nv_embed_pool
from embedkit.pooling.positions import (
    PositionWeightedPool,
    instruction_mask,
    position_weighted_pool,
)
from embedkit.pooling.semantic import SemanticAttentionPool, semantic_attention
from embedkit.pooling.sparse import SparsePool, sparse_pool

__all__ = [
    "AttentionPool",
    "FirstTokenPool",
    "HyperbolicAttentionPool",
    "LastTokenPool",
    "LatentAttentionPool",
    "LayerWeightedPool",
    "MaxPool",
    "MeanPool",
    "MidpointPool",
    "PositionWeightedPool",
    "SemanticAttentionPool",
    "SparsePool",
    "attention_pool",
    "first_token_pool",
    "hyperbolic_attention_pool",
    "instruction_mask",
    "last_token_pool",
    "latent_attention",
    "load_nv_embed_pool",
    "max_pool",
    "mean_pool",
    "position_weighted_pool",
    "semantic_attention",
    "sparse_pool",
]
