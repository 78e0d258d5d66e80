"""Precision@k over the pairs of all rows at once, in expectation over the order of equal scores."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def best_pairs(
    score: Float[Tensor, "b n"],
    relevant: Bool[Tensor, "b n"],
    candidate: Bool[Tensor, "b n"],
    most: int,
    before: Float[Tensor, "3 u"] | None = None,
) -> Float[Tensor, "3 v"]:
    """The best scores of a block of rows and of those ``before`` it, to cover ``most`` pairs.

    Every distinct score from the largest, how many candidates have it, and how many of these are
    relevant.
    """
    value, hit = score[candidate].double(), relevant[candidate].double()
    if len(value) > most:
        keep = value >= value.topk(most).values[-1]
        value, hit = value[keep], hit[keep]
    count = torch.ones_like(value)
    if before is not None:
        value, count, hit = torch.cat([before, torch.stack([value, count, hit])], dim=1)
    distinct, which = torch.unique(value, return_inverse=True)
    none = torch.zeros_like(distinct)
    sums = none.index_add(0, which, count), none.index_add(0, which, hit)
    found = torch.stack([distinct, *sums]).flip(1)
    return found[:, found[1].cumsum(0) - found[1] < most]


def pair_precision(best: Float[Tensor, "3 u"], at: Sequence[int]) -> list[float]:
    """Share of relevant ones among the best k pairs, in expectation over the order of equals."""
    _, count, hit = best
    before = count.cumsum(0) - count
    taken = [(k - before).clamp(min=0).minimum(count) for k in at]
    return [float((part * hit / count).sum()) / k for part, k in zip(taken, at, strict=True)]
