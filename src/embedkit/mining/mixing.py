"""Harder negatives made of the ones there are, by mixing in embedding space."""

from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
)
from embedkit.ops import accumulation_dtype, masked_softmax, normalize, zero_padding

_OPPOSITE = 1e-4  # a mixture of unit vectors shorter than this has no direction worth trusting


class MixedNegatives(NamedTuple):
    """Synthetic negatives of each query, to be joined to its own ones along the second axis."""

    negative: Float[Tensor, "q m d"]
    """Rows of length 1; zeros where the mask is False."""
    mask: Bool[Tensor, "q m"]
    """True where there was something to mix."""


def mix_negative_pairs(
    negative: Float[Tensor, "q h d"],
    mask: Bool[Tensor, "q h"] | None = None,
    *,
    num_mixed: int | None = None,
    generator: torch.Generator | None = None,
) -> MixedNegatives:
    """Mix random pairs of each query's hard negatives on the unit sphere.

    h = u n_j + (1 - u) n_k,  then  h / ||h||,  with j and k different real negatives of the query
    and u ~ Beta(2, 2). The mixture of two negatives that are equally similar to the query is at
    least as similar as they are. Gradients flow to both; pass ``negative.detach()`` to stop them.

    Args:
        negative: hard negatives of each query, of any length; they are scaled to length 1 first.
        mask: True where a negative is real; padding may hold anything. None: all real.
        num_mixed: mixtures per query. None: as many as negatives.
        generator: source of the random numbers, on the device of ``negative``.

    Returns:
        Mixtures and their mask. Queries with fewer than two real negatives get none.

    Raises:
        ValueError: if shapes do not fit or ``num_mixed`` is negative.
        TypeError: if ``negative`` is not floating point or ``mask`` not bool.

    Source: Zhao et al. 2025, KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A
    Versatile Embedding Model, the online hard-negative mixing (pair-wise).

    >>> negative = torch.randn(4, 3, 8)
    >>> mixed = mix_negative_pairs(negative)
    >>> torch.cat([negative, mixed.negative], dim=1).shape  # info_nce(..., negative=this)
    torch.Size([4, 6, 8])
    """
    unit, mask = _unit(negative, mask)
    queries, hard = mask.shape
    many = hard if num_mixed is None else num_mixed
    check_at_least("mix_negative_pairs", "num_mixed", many, 0)
    if hard < 2:  # nothing to mix: an empty axis, or zeros that are masked out
        empty = (unit[:, :1].expand(-1, many if hard else 0, -1) * 0.0).to(negative.dtype)
        return MixedNegatives(empty, mask[:, :1].expand(-1, empty.shape[1]) & False)
    # Real negatives first; draw one place, then another by a step of 1 to count - 1 around.
    order = mask.sort(dim=1, descending=True, stable=True).indices
    count = mask.sum(dim=1)[:, None]
    draws = torch.rand(
        5, queries, many, generator=generator, device=unit.device, dtype=torch.float64
    )
    first = (draws[0] * count).long()
    second = (first + 1 + (draws[1] * (count - 1)).long()) % count.clamp(min=1)
    share = draws[2:].median(dim=0).values  # the median of three uniform numbers is Beta(2, 2)
    left, right = (
        unit.take_along_dim(order.gather(1, place)[..., None], dim=1) for place in (first, second)
    )
    return _mixtures(_blend(left, right, share), (count > 1).expand(-1, many), negative)


def mix_negative_lists(
    query: Float[Tensor, "q d"],
    negative: Float[Tensor, "q h d"],
    mask: Bool[Tensor, "q h"] | None = None,
    *,
    temperature: float = 0.05,
) -> MixedNegatives:
    """Mix all hard negatives of each query into one, the more similar ones more.

    h = sum_m softmax_m(cos(q, n_m) / temperature) n_m,  then  h / ||h||.  The weights are
    constants; gradients flow to the negatives.

    Args:
        query: rows of any length.
        negative: hard negatives of each query, of any length; they are scaled to length 1 first.
        mask: True where a negative is real; padding may hold anything. None: all real.
        temperature: > 0; that of the loss is a good one. Small ones give back the hardest negative.

    Returns:
        One mixture per query, (q, 1, d), and its mask: False for a query without a negative.

    Raises:
        ValueError: if shapes do not fit or ``temperature`` is not > 0.
        TypeError: if vectors are not floating point or ``mask`` not bool.

    Source: Zhao et al. 2025, KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A
    Versatile Embedding Model, the online hard-negative mixing (list-wise).
    Differs: the paper's temperature and the gradient of its weights could not be read.
    """
    check_floating("query", query)
    check_ndim("query", query, "q d")
    check_positive("mix_negative_lists", "temperature", temperature)
    unit, mask = _unit(negative, mask)
    check_rows("negative", negative, query.shape[0], "Each query has its own negatives.")
    check_last_dim("negative", negative, query.shape[1], "It meets the query in one space.")
    anchor = normalize(query.detach().to(unit.dtype))
    cosine = einsum(anchor, unit.detach(), "q d, q h d -> q h")
    weight = masked_softmax(cosine / temperature, mask)
    mixed = einsum(weight, unit, "q h, q h d -> q d")[:, None]
    return _mixtures(mixed, mask.any(dim=1, keepdim=True), negative)


def _unit(negative: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Real negatives at length 1, zeros elsewhere, in float32 or wider; and the mask."""
    check_floating("negative", negative)
    check_ndim("negative", negative, "q h d")
    if mask is None:
        mask = torch.ones(negative.shape[:2], dtype=torch.bool, device=negative.device)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected bool (True is a real negative), got {mask.dtype}")
    if mask.shape != negative.shape[:2]:
        raise ValueError(
            f"mask: expected shape {tuple(negative.shape[:2])}, one entry per negative, got "
            f"{tuple(mask.shape)}"
        )
    wide = zero_padding(negative, mask).to(accumulation_dtype(negative.dtype))
    return normalize(wide), mask


def _blend(left: Tensor, right: Tensor, share: Tensor) -> Tensor:
    share = share.to(left.dtype)[..., None]
    return share * left + (1.0 - share) * right


def _mixtures(mixed: Tensor, real: Tensor, like: Tensor) -> MixedNegatives:
    """Mixtures at length 1; opposite parents leave nothing, and are masked out."""
    short = torch.linalg.vector_norm(mixed.detach(), dim=-1) < _OPPOSITE
    mask = real & ~short
    unit = normalize(mixed.masked_fill(~mask[..., None], 0.0))
    return MixedNegatives(unit.to(like.dtype), mask)
