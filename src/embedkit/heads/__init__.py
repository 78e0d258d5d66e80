"""A vector in, a vector out: what stands between an encoder and its loss."""

from embedkit.heads.nested import MatryoshkaHead, truncate_embedding

__all__ = ["MatryoshkaHead", "truncate_embedding"]
