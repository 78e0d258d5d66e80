"""Tables: what they are built with and fed."""

import torch
from torch import nn

from embedkit.tables import HyperbolicEmbedding, MultiplexedHash, SubwordEmbedding, UnifiedEmbedding


def features(b):
    """A univalent, a dense multivalent and a ragged feature, the last with empty bags."""
    dense = torch.arange(3 * b).reshape(b, 3) - 2
    ragged = (torch.arange(2 * (b // 2)) * 10**12, torch.arange(b) // 2 * 2)
    return {"user": torch.arange(b) * 7, "tags": dense, "history": ragged}


INTEGERS = "integers in, integers out: nothing to differentiate"
CASES = {
    MultiplexedHash: (
        lambda: MultiplexedHash(2, 3, num_buckets=50),
        lambda b: (torch.arange(b), 1),
        {
            "gradients": INTEGERS,
            "compile": INTEGERS + "; test_hashed.py compiles it",
            "empty_batch": INTEGERS,
        },
    ),
    UnifiedEmbedding: (
        lambda: UnifiedEmbedding({"user": 2, "tags": 1, "history": 3}, 11, 3, num_tables=2),
        lambda b: (features(b),),
    ),
    SubwordEmbedding: (
        lambda: SubwordEmbedding(13, 4),
        lambda b: (torch.arange(2 * (b // 2)) % 13, torch.arange(b) // 2 * 2),
    ),
    HyperbolicEmbedding: (
        lambda: HyperbolicEmbedding(nn.Embedding(7, 3)),
        lambda b: (torch.arange(b) % 7,),
    ),
}
