"""Attention pooling: many token vectors in, one vector out."""

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_last_dim, check_tokens
from embedkit.ops import (
    accumulation_dtype,
    masked_softmax,
    segment_ids,
    segment_softmax,
    zero_padding,
)


def attention_pool(
    tokens: Float[Tensor, "*b n d"],
    query: Float[Tensor, "h c"],
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    offsets: Int[Tensor, " s"] | None = None,
) -> Float[Tensor, "b_or_s d"]:
    """Average each sequence's tokens, weighted per head by how well they match a query.

    Head h attends over its own c = d / h channels with weights softmax_n(t_nh . q_h / sqrt(c)).

    Args:
        tokens: token vectors, any scale; padding may hold anything, NaN and infinity included.
        query: one vector per head, shared by the batch; h * c must equal d.
        mask: True where a token is real, False where it is padding. None: all real.
        offsets: (s + 1,) integers: tokens are packed, (t, d), without padding, and sequence i is
            ``tokens[offsets[i]:offsets[i + 1]]`` (``cu_seqlens``). Not with a mask.

    Returns:
        One vector per sequence, computed in float32 or wider, in the dtype of ``tokens``; zeros for
        a sequence of padding only and for length zero.

    Raises:
        TypeError: if ``tokens`` is not floating point or ``mask`` is not bool.
        ValueError: if ``tokens`` has not three axes, ``mask`` not its first two, or ``query`` does
            not tile the last axis of ``tokens``; if ``offsets`` come with a mask or do not add up.

    Source: Yang et al. 2016, Hierarchical Attention Networks for Document Classification, eq. 5-7.
    Differs: no tanh layer before the score; scores scaled by 1/sqrt(c); heads.
    """
    check_tokens(tokens, mask, offsets)
    check_last_dim("tokens", tokens, query.numel(), "A pool fits one width: rebuild it or project.")
    if offsets is not None:
        return _packed(tokens, query, offsets)
    wide = zero_padding(tokens, mask).to(accumulation_dtype(tokens.dtype))
    wide = rearrange(wide, "b n (h c) -> b h n c", h=query.shape[0])
    query = query.to(wide.dtype) * query.shape[1] ** -0.5
    scores = einsum(wide, query, "b h n c, h c -> b h n")
    weights = masked_softmax(scores, None if mask is None else rearrange(mask, "b n -> b 1 n"))
    pooled = einsum(weights, wide, "b h n, b h n c -> b h c")
    return rearrange(pooled, "b h c -> b (h c)").to(tokens.dtype)


def _packed(
    tokens: Float[Tensor, "t d"], query: Float[Tensor, "h c"], offsets: Int[Tensor, " s"]
) -> Float[Tensor, "b d"]:
    ids, count = segment_ids(offsets, tokens.shape[0]), offsets.shape[0] - 1
    wide = tokens.to(accumulation_dtype(tokens.dtype))
    heads = rearrange(wide, "t (h c) -> t h c", h=query.shape[0])
    query = query.to(wide.dtype) * query.shape[1] ** -0.5
    weights = segment_softmax(einsum(heads, query, "t h c, h c -> t h"), ids, count)
    weighed = rearrange(weights[:, :, None] * heads, "t h c -> t (h c)")
    return wide.new_zeros(count, wide.shape[1]).index_add(0, ids, weighed).to(tokens.dtype)


class AttentionPool(nn.Module):
    """:func:`attention_pool` with a learned query; it starts at zero, i.e. as mean pooling.

    Args:
        dim: width of the tokens.
        num_heads: number of weights per token, each for its own slice of channels; divides ``dim``.

    Raises:
        ValueError: if ``dim`` or ``num_heads`` is below 1, or ``num_heads`` does not divide
            ``dim``.

    >>> AttentionPool(8, num_heads=2)(torch.randn(4, 5, 8)).shape
    torch.Size([4, 8])
    """

    def __init__(self, dim: int, num_heads: int = 1) -> None:
        super().__init__()
        check_at_least("AttentionPool", "dim", dim, 1)
        check_at_least("AttentionPool", "num_heads", num_heads, 1)
        if dim % num_heads:
            raise ValueError(
                f"AttentionPool: num_heads={num_heads} must divide dim={dim}. "
                "Every head weighs its own dim / num_heads channels."
            )
        self.query = nn.Parameter(torch.empty(num_heads, dim // num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the query to zero: every real token gets the same weight."""
        nn.init.zeros_(self.query)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, d) and an optional bool (b, n) -> (b, d), or packed (t, d) with offsets."""
        return attention_pool(tokens, self.query, mask, offsets=offsets)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        return f"dim={self.query.numel()}, num_heads={self.query.shape[0]}"
