"""Pools without parameters: the mean, the maximum, the first or the last real token."""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embedkit._checks import check_tokens
from embedkit.ops import masked_mean, segment_ids, segment_max, segment_mean


def mean_pool(
    tokens: Float[Tensor, "*b n d"],
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    offsets: Int[Tensor, " s"] | None = None,
) -> Float[Tensor, "b_or_s d"]:
    """Average the real tokens of each sequence: sum_n m_n t_n / sum_n m_n.

    Args:
        tokens: token vectors; padding may hold anything, NaN and infinity included.
        mask: True where a token is real, False where it is padding. None: all real.
        offsets: (s + 1,) integers: tokens are packed, (t, d), without padding, and sequence i is
            ``tokens[offsets[i]:offsets[i + 1]]`` (``cu_seqlens``). Not with a mask.

    Returns:
        One vector per sequence, summed in float32 or wider, in the dtype of ``tokens``; zeros for
        a sequence of padding only and for length zero.

    Raises:
        TypeError: if ``tokens`` is not floating point or ``mask`` is not bool.
        ValueError: if ``tokens`` has not three axes or ``mask`` not its first two; if
            ``offsets`` come with a mask or do not add up to the packed tokens.

    Source: Reimers & Gurevych 2019, Sentence-BERT, section 3 (MEAN strategy).
    """
    check_tokens(tokens, mask, offsets)
    if offsets is not None:
        return segment_mean(tokens, segment_ids(offsets, tokens.shape[0]), offsets.shape[0] - 1)
    return masked_mean(tokens, mask)


def max_pool(
    tokens: Float[Tensor, "*b n d"],
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    offsets: Int[Tensor, " s"] | None = None,
) -> Float[Tensor, "b_or_s d"]:
    """Take the largest value of each coordinate over the real tokens: max_n t_nd.

    Where several tokens hold the maximum, they share the gradient in equal parts.

    Args:
        tokens: token vectors; padding may hold anything, NaN and infinity included.
        mask: True where a token is real, False where it is padding. None: all real.
        offsets: (s + 1,) integers: tokens are packed, (t, d), without padding, and sequence i is
            ``tokens[offsets[i]:offsets[i + 1]]`` (``cu_seqlens``). Not with a mask.

    Returns:
        One vector per sequence in the dtype of ``tokens``; zeros for a sequence of padding only and
        for length zero.

    Raises:
        TypeError: if ``tokens`` is not floating point or ``mask`` is not bool.
        ValueError: if ``tokens`` has not three axes or ``mask`` not its first two; if
            ``offsets`` come with a mask or do not add up to the packed tokens.

    Source: Reimers & Gurevych 2019, Sentence-BERT, section 3 (MAX strategy).
    """
    check_tokens(tokens, mask, offsets)
    if offsets is not None:
        return segment_max(tokens, segment_ids(offsets, tokens.shape[0]), offsets.shape[0] - 1)
    if tokens.shape[1] == 0:
        return tokens.sum(dim=1)
    if mask is None:
        return tokens.amax(dim=1)
    largest = tokens.masked_fill(~rearrange(mask, "b n -> b n 1"), -torch.inf).amax(dim=1)
    return largest.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def first_token_pool(
    tokens: Float[Tensor, "*b n d"],
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    offsets: Int[Tensor, " s"] | None = None,
) -> Float[Tensor, "b_or_s d"]:
    """Take the first real token of each sequence, found from the mask.

    Right padding, left padding and holes are all read from the mask, row by row. This is the pool
    of encoders that put a summary token (``[CLS]``) in front.

    Args:
        tokens: token vectors; padding may hold anything, NaN and infinity included.
        mask: True where a token is real, False where it is padding. None: all real.
        offsets: (s + 1,) integers: tokens are packed, (t, d), without padding, and sequence i is
            ``tokens[offsets[i]:offsets[i + 1]]`` (``cu_seqlens``). Not with a mask.

    Returns:
        One vector per sequence in the dtype of ``tokens``; zeros for a sequence of padding only and
        for length zero.

    Raises:
        TypeError: if ``tokens`` is not floating point or ``mask`` is not bool.
        ValueError: if ``tokens`` has not three axes or ``mask`` not its first two; if
            ``offsets`` come with a mask or do not add up to the packed tokens.

    Source: Devlin et al. 2019, BERT, section 3 (the final state of [CLS]).
    Differs: the first token that is real, not column 0, so that left padding works.
    """
    check_tokens(tokens, mask, offsets)
    if offsets is not None:
        return _take_packed(tokens, offsets, offsets[:-1])
    if tokens.shape[1] == 0:
        return tokens.sum(dim=1)
    if mask is None:
        return tokens[:, 0]
    return _take(tokens, mask, mask.int().argmax(dim=1))


def last_token_pool(
    tokens: Float[Tensor, "*b n d"],
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    offsets: Int[Tensor, " s"] | None = None,
) -> Float[Tensor, "b_or_s d"]:
    """Take the last real token of each sequence, found from the mask.

    Right padding, left padding and holes are all read from the mask, row by row. This is the pool
    of causal decoders, whose last token alone has seen the whole text.

    Args:
        tokens: token vectors; padding may hold anything, NaN and infinity included.
        mask: True where a token is real, False where it is padding. None: all real.
        offsets: (s + 1,) integers: tokens are packed, (t, d), without padding, and sequence i is
            ``tokens[offsets[i]:offsets[i + 1]]`` (``cu_seqlens``). Not with a mask.

    Returns:
        One vector per sequence in the dtype of ``tokens``; zeros for a sequence of padding only and
        for length zero.

    Raises:
        TypeError: if ``tokens`` is not floating point or ``mask`` is not bool.
        ValueError: if ``tokens`` has not three axes or ``mask`` not its first two; if
            ``offsets`` come with a mask or do not add up to the packed tokens.

    Source: Neelakantan et al. 2022, Text and Code Embeddings by Contrastive
        Pre-Training, section 2.
    """
    check_tokens(tokens, mask, offsets)
    if offsets is not None:
        return _take_packed(tokens, offsets, offsets[1:] - 1)
    if tokens.shape[1] == 0:
        return tokens.sum(dim=1)
    if mask is None:
        return tokens[:, -1]
    return _take(tokens, mask, mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1))


def _take(
    tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"], position: Int[Tensor, " b"]
) -> Float[Tensor, "b d"]:
    """Pick one token per row; a row of padding only, where any position is wrong, gives zeros."""
    index = repeat(position, "b -> b 1 d", d=tokens.shape[2])
    picked = rearrange(tokens.gather(1, index), "b 1 d -> b d")
    return picked.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def _take_packed(
    tokens: Float[Tensor, "t d"], offsets: Int[Tensor, " s"], position: Int[Tensor, " b"]
) -> Float[Tensor, "b d"]:
    """Pick one packed token per sequence; an empty one gives zeros."""
    segment_ids(offsets, tokens.shape[0])  # raises where offsets do not add up
    if tokens.shape[0] == 0:
        return tokens.sum(dim=0).expand(position.shape[0], -1)
    picked = tokens[position.clamp(0, tokens.shape[0] - 1)]
    return picked.masked_fill((offsets.diff() == 0)[:, None], 0.0)


class MeanPool(nn.Module):
    """:func:`mean_pool` as a Module.

    >>> MeanPool()(torch.randn(4, 5, 8), torch.rand(4, 5) > 0.3).shape
    torch.Size([4, 8])
    """

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, d) and an optional bool (b, n) -> (b, d), or packed (t, d) with offsets."""
        return mean_pool(tokens, mask, offsets=offsets)


class MaxPool(nn.Module):
    """:func:`max_pool` as a Module.

    >>> MaxPool()(torch.tensor([[[1.0, 5.0], [3.0, 2.0]]]))
    tensor([[3., 5.]])
    """

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, d) and an optional bool (b, n) -> (b, d), or packed (t, d) with offsets."""
        return max_pool(tokens, mask, offsets=offsets)


class FirstTokenPool(nn.Module):
    """:func:`first_token_pool` as a Module.

    >>> FirstTokenPool()(torch.tensor([[[9.0], [1.0], [2.0]]]), torch.tensor([[False, True, True]]))
    tensor([[1.]])
    """

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, d) and an optional bool (b, n) -> (b, d), or packed (t, d) with offsets."""
        return first_token_pool(tokens, mask, offsets=offsets)


class LastTokenPool(nn.Module):
    """:func:`last_token_pool` as a Module.

    >>> LastTokenPool()(torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, d) and an optional bool (b, n) -> (b, d), or packed (t, d) with offsets."""
        return last_token_pool(tokens, mask, offsets=offsets)
