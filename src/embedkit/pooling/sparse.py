"""SPLADE pooling: the logits of a language model head become one sparse vector of word weights."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embedkit._checks import check_choice, check_tokens
from embedkit.ops import accumulation_dtype, segment_ids, segment_max, zero_padding

Over = Literal["max", "sum"]


def sparse_pool(
    tokens: Float[Tensor, "*b n v"],
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    offsets: Int[Tensor, " s"] | None = None,
    over: Over = "max",
) -> Float[Tensor, "b_or_s v"]:
    """Weight of each vocabulary entry in a text:  max_n or sum_n of  log(1 + max(0, t_nv)).

    The logarithm grows with the logit, so the maximum is taken first: padded and with "max", what
    stays for backward is the position of each maximum, (b, v), and nothing of size (b, n, v).
    "sum" keeps two tensors of that size.

    Args:
        tokens: a logit per token and vocabulary entry, e.g. of a masked language model's head;
            padding may hold anything, NaN and infinity included.
        mask: True where a token is real, False where it is padding. None: all real.
        offsets: (s + 1,) integers: tokens are packed, (t, v), without padding, and sequence i is
            ``tokens[offsets[i]:offsets[i + 1]]`` (``cu_seqlens``). Not with a mask.
        over: "max" (SPLADE v2 and later) or "sum" (the first SPLADE).

    Returns:
        Weights >= 0, in float32 or wider inside and in the dtype of ``tokens``; zeros for a
        sequence of padding only and for length zero. An entry whose logits are all <= 0 weighs 0
        and gets no gradient. Of several tokens with the same maximum, one gets the gradient;
        packed, they share it.

    Raises:
        TypeError: if ``tokens`` is not floating point or ``mask`` is not bool.
        ValueError: if ``tokens`` has not three axes or ``mask`` not its first two; if
            ``offsets`` come with a mask or do not add up to the packed tokens; for an unknown
            ``over``.

    Source: Formal et al. 2021, SPLADE: Sparse Lexical and Expansion Model for First Stage Ranking,
    section 3 (sum); Formal et al. 2021, SPLADE v2: Sparse Lexical and Expansion Model for
    Information Retrieval, section 3 (max).

    >>> sparse_pool(torch.tensor([[[-1.0, 0.0, 1.0], [-2.0, 3.0, 0.5]]]))
    tensor([[0.0000, 1.3863, 0.6931]])
    """
    check_tokens(tokens, mask, offsets)
    check_choice("sparse_pool", "over", over, ("max", "sum"))
    wide = accumulation_dtype(tokens.dtype)
    if offsets is not None:
        ids, size = segment_ids(offsets, tokens.shape[0]), offsets.shape[0] - 1
        if over == "max":
            return segment_max(tokens, ids, size).to(wide).relu().log1p().to(tokens.dtype)
        weights = tokens.to(wide).relu().log1p()
        total = weights.new_zeros(size, tokens.shape[1]).index_add(0, ids, weights)
        return total.to(tokens.dtype)
    if over == "sum" or tokens.shape[1] == 0:
        weights = zero_padding(tokens, mask).to(wide).relu().log1p()
        return weights.sum(dim=1).to(tokens.dtype)
    if mask is not None:
        tokens = tokens.masked_fill(~rearrange(mask, "b n -> b n 1"), -torch.inf)
    return tokens.max(dim=1).values.to(wide).relu().log1p().to(tokens.dtype)


class SparsePool(nn.Module):
    """:func:`sparse_pool` as a Module.

    Args:
        over: "max" or "sum".

    >>> SparsePool()(torch.randn(4, 5, 100), torch.rand(4, 5) > 0.3).shape
    torch.Size([4, 100])
    """

    def __init__(self, over: Over = "max") -> None:
        super().__init__()
        check_choice("SparsePool", "over", over, ("max", "sum"))
        self.over = over

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, v) and an optional bool (b, n) -> (b, v), or packed (t, v) with offsets."""
        return sparse_pool(tokens, mask, offsets=offsets, over=self.over)

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"over={self.over!r}"
