"""Reductions over real tokens only: padding contributes exactly nothing, whatever it holds."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Float32 for half precision, the dtype itself where it is wider."""
    return torch.promote_types(dtype, torch.float32)


def zero_padding(
    tokens: Float[Tensor, "*b n d"], mask: Bool[Tensor, "*b n"] | None
) -> Float[Tensor, "*b n d"]:
    """Replace padded token vectors by zeros, NaN and infinity included.

    Do this before anything is multiplied by ``tokens``: a weight of 0 does not silence a NaN, and
    the gradient of a product takes the NaN to the other factor even where the result is thrown
    away. The gradient at padding is zero.
    """
    return tokens if mask is None else tokens.masked_fill(~mask[..., None], 0.0)


def masked_softmax(
    scores: Float[Tensor, "*b n"], mask: Bool[Tensor, "*#b n"] | None = None
) -> Float[Tensor, "*b n"]:
    """Softmax over the last axis among entries whose mask is True; the others get weight 0.

    Runs in float32 or wider and gives back the dtype of ``scores``. A row without a True entry,
    and a row of length zero, get all-zero weights and a zero gradient. What stands in padding never
    matters; a NaN among the real scores makes its row NaN.

    >>> masked_softmax(torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    wide = scores.to(accumulation_dtype(scores.dtype))
    if mask is None:
        return wide.softmax(dim=-1).to(scores.dtype)
    # Minus infinity leaves the real entries alone however low they are. A row of nothing else would
    # be NaN on the way to its zeros, so a row without a real entry is filled with zeros instead.
    floor = torch.where(mask.any(dim=-1, keepdim=True), -torch.inf, 0.0)
    weights = torch.where(mask, wide, floor.to(wide.dtype)).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0).to(scores.dtype)


def masked_mean(
    tokens: Float[Tensor, "*b n d"], mask: Bool[Tensor, "*b n"] | None = None
) -> Float[Tensor, "*b d"]:
    """Mean over the token axis among real tokens, summed in float32 or wider.

    A sequence of padding only, and a sequence of length zero, give zeros and a zero gradient.

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    total = zero_padding(tokens, mask).sum(dim=-2, dtype=accumulation_dtype(tokens.dtype))
    if mask is None:
        return (total / max(tokens.shape[-2], 1)).to(tokens.dtype)
    return (total / mask.sum(dim=-1, keepdim=True).clamp(min=1)).to(tokens.dtype)
