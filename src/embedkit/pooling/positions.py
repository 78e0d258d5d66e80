"""Weights that a place decides: late tokens of a causal encoder, text behind instructions."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embedkit._checks import check_integer, check_ndim, check_rows, check_tokens
from embedkit.ops import accumulation_dtype, masked_mean, segment_ids, segment_mean


def position_weighted_pool(
    tokens: Float[Tensor, "*b n d"],
    mask: Bool[Tensor, "*b n"] | None = None,
    *,
    offsets: Int[Tensor, " s"] | None = None,
) -> Float[Tensor, "b_or_s d"]:
    """Average the real tokens with weights that grow with their place: sum_i i t_i / sum_i i.

    i = 1 is the first real token. A causal encoder's late tokens have seen more of the text.

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
        ValueError: if ``tokens`` has not three axes or ``mask`` not its first two; if ``offsets``
            come with a mask or do not add up to the packed tokens.

    Source: Muennighoff 2022, SGPT: GPT Sentence Embeddings for Semantic Search
    (position-weighted mean pooling).
    """
    check_tokens(tokens, mask, offsets)
    wide = tokens.to(accumulation_dtype(tokens.dtype))
    if offsets is not None:
        ids, count = segment_ids(offsets, tokens.shape[0]), offsets.shape[0] - 1
        place = 1 + torch.arange(tokens.shape[0], device=tokens.device) - offsets[ids]
        # The mean of i t_i over that of i, which is (length + 1) / 2.
        pooled = segment_mean(wide * place[:, None], ids, count)
        return (2.0 * pooled / (offsets.diff()[:, None] + 1)).to(tokens.dtype)
    if mask is None:
        mask = torch.ones(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
    place = mask.cumsum(dim=1).to(wide.dtype)[..., None]
    pooled = masked_mean(wide * place, mask) / masked_mean(place, mask).clamp(min=1.0)
    return pooled.to(tokens.dtype)


def instruction_mask(mask: Bool[Tensor, "b n"], lengths: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """Leave the first real tokens of each row out of the pool, whatever side the padding is on.

    An instruction ("Given a question, retrieve ...") is read by the encoder and not pooled.

    Args:
        mask: True where a token is real: what the encoder attended to.
        lengths: how many real tokens of each row belong to the instruction, a start token that
            comes before it included.

    Returns:
        The mask for the pool.

    Raises:
        TypeError: if ``mask`` is not bool or ``lengths`` not integers.
        ValueError: if there is not one length per row; if a length is below 0 or leaves nothing of
            a row that has tokens (looked at on a CPU, outside compiled graphs; such a row pools to
            zeros elsewhere).

    Source: Lee et al. 2024, NV-Embed (instruction tokens are masked out of the average).

    >>> instruction_mask(torch.tensor([[False, True, True, True]]), torch.tensor([2]))
    tensor([[False, False, False,  True]])
    """
    check_ndim("mask", mask, "b n")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected bool (True is real), got {mask.dtype}. Use mask.bool().")
    check_integer("lengths", lengths)
    check_ndim("lengths", lengths, "b")
    check_rows("lengths", lengths, mask.shape[0], "One instruction length per row of the mask.")
    if mask.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_lengths(mask.sum(dim=1), lengths)
    return mask & (mask.cumsum(dim=1) > lengths[:, None])


def _check_lengths(real: Tensor, lengths: Tensor) -> None:
    if (lengths < 0).any():
        raise ValueError(
            f"instruction_mask: lengths must be >= 0, got {int(lengths.min())}; they count tokens."
        )
    wrong = (lengths >= real) & (real > 0)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"instruction_mask: row {row} has {int(real[row])} real tokens and an instruction of "
            f"{int(lengths[row])}: nothing would be left to pool. Count real tokens, not padding, "
            "and truncate the text less."
        )


class PositionWeightedPool(nn.Module):
    """:func:`position_weighted_pool` as a Module.

    >>> PositionWeightedPool()(torch.tensor([[[0.0], [3.0]]]))
    tensor([[2.]])
    """

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, d) and an optional bool (b, n) -> (b, d), or packed (t, d) with offsets."""
        return position_weighted_pool(tokens, mask, offsets=offsets)
