"""embedkit's blocks as modules of sentence-transformers: the recipe of docs/interoperability.md."""

from sentence_transformers.base.modules import Module

import embedkit as ek
from embedkit.heads.nested import MatryoshkaHead


class _Block(Module):
    """A block that is rebuilt from its sizes and then gets its weights."""

    def save(self, output_path, *args, safe_serialization=True, **kwargs):
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path, subfolder="", **kwargs):
        names = ("token", "cache_folder", "revision", "local_files_only")
        where = {"subfolder": subfolder, **{n: kwargs[n] for n in names if n in kwargs}}
        block = cls(**cls.load_config(model_name_or_path, **where))
        return cls.load_torch_weights(model_name_or_path, model=block, **where)


class LatentAttention(_Block):
    """(b, n, d) and a mask -> (b, d)."""

    config_keys = ["dim", "num_latents"]  # noqa: RUF012

    def __init__(self, dim, num_latents=512):
        super().__init__()
        self.dim, self.num_latents = dim, num_latents
        self.pool = ek.pooling.LatentAttentionPool(dim, num_latents, num_heads=2)

    def forward(self, features):
        mask = features["attention_mask"].bool()
        return features | {"sentence_embedding": self.pool(features["token_embeddings"], mask)}


class Matryoshka(_Block):
    """(b, d) -> (b, c)."""

    config_keys = ["in_features", "dims"]  # noqa: RUF012

    def __init__(self, in_features, dims):
        super().__init__()
        self.in_features, self.dims = in_features, dims
        self.head = MatryoshkaHead(in_features, dims)

    def forward(self, features):
        return features | {"sentence_embedding": self.head(features["sentence_embedding"])}
