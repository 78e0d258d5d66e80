"""Tables: ids in, vectors out, in place of ``nn.Embedding``."""

from embedkit.tables.hashed import MultiplexedHash
from embedkit.tables.hyperbolic import HyperbolicEmbedding
from embedkit.tables.multiplexed import UnifiedEmbedding
from embedkit.tables.subword import SubwordEmbedding, fnv1a32, subword_ids

__all__ = [
    "HyperbolicEmbedding",
    "MultiplexedHash",
    "SubwordEmbedding",
    "UnifiedEmbedding",
    "fnv1a32",
    "subword_ids",
]
