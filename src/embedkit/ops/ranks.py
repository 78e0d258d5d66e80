"""Ranks with ties averaged: what Spearman's coefficient and losses on orders are made of."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from embedkit.ops.masked import accumulation_dtype


def average_ranks(x: Shaped[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    """Rank of every entry within the last axis, from 1 for the smallest; ties share their mean.

    rank_i = (#{j : x_j < x_i} + #{j : x_j <= x_i} + 1) / 2,  from one sort and two binary searches:
    O(n log n), on the device, without waiting for it. Values are compared exactly; where equal
    labels may differ by rounding, round them first (``x.round(decimals=4)``).

    Args:
        x: numbers of any dtype, infinity included.

    Returns:
        Ranks in [1, n], multiples of 1/2, without a gradient: float64 for float64, else float32
        (exact up to 2^23 entries; pass float64 for more). NaN makes its whole row NaN.

    Raises:
        ValueError: if ``x`` has no axis.

    >>> average_ranks(torch.tensor([5.0, 1.0, 3.0, 3.0]))
    tensor([4.0000, 1.0000, 2.5000, 2.5000])
    """
    if x.ndim == 0:
        raise ValueError("average_ranks: expected entries on the last axis, got a single number")
    dtype = accumulation_dtype(x.dtype) if x.is_floating_point() else torch.float32
    # Half precision and bool lack kernels on some devices; float32 holds each of their values.
    values = x.detach().to(dtype) if x.is_floating_point() or x.dtype == torch.bool else x
    values = values.contiguous()
    ordered = values.sort(dim=-1).values.contiguous()
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    ranks = (below + up_to + 1).to(dtype) / 2
    if not x.is_floating_point():
        return ranks
    return ranks.masked_fill(values.isnan().any(dim=-1, keepdim=True), torch.nan)
