"""Average precision, precision@k and AUC of scores, in expectation over orders of equal scores."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import check_floating, check_ndim, check_same_shape


class Ordered(NamedTuple):
    """Rows sorted by score: ``order``, and where each group of equal scores starts and ends.

    Both are None where no two scores of any row are equal.
    """

    order: Tensor
    first: Tensor | None
    last: Tensor | None


def sort_scores(score: Float[Tensor, "b n"]) -> Ordered:
    """Best first, once for all questions that are asked of these scores."""
    value, order = score.sort(dim=1, descending=True)
    fresh = torch.ones_like(value, dtype=torch.bool)
    fresh[:, 1:] = value[:, 1:] != value[:, :-1]
    if fresh.all():
        return Ordered(order, None, None)
    place = torch.arange(score.shape[1], device=score.device).expand_as(order)
    ends = torch.ones_like(fresh)
    ends[:, :-1] = fresh[:, 1:]
    first = place.masked_fill(~fresh, 0).cummax(dim=1).values
    last = place.masked_fill(~ends, score.shape[1]).flip(1).cummin(dim=1).values.flip(1)
    return Ordered(order, first, last)


def expected_precision(
    ordered: Ordered,
    relevant: Bool[Tensor, "b n"],
    candidate: Bool[Tensor, "b n"],
    at: Sequence[int] = (),
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b k"], Float[Tensor, " b"]]:
    """(AP, precision at each cut, AUC) per row; both masks in the order of nodes.

    AUC is the share of pairs (relevant, other) in the right order, which follows from the ranks of
    the relevant. AP is NaN without a relevant candidate, AUC without one of both.
    """
    inside = candidate.gather(1, ordered.order)
    hit = inside & relevant.gather(1, ordered.order)
    rank, found = inside.cumsum(dim=1).double(), hit.cumsum(dim=1).double()
    share, term = hit.double(), found
    if ordered.first is not None and ordered.last is not None:
        before_rank = (rank - inside.double()).gather(1, ordered.first)
        before_found = (found - hit.double()).gather(1, ordered.first)
        size = rank.gather(1, ordered.last) - before_rank
        good = found.gather(1, ordered.last) - before_found
        # A place within a group of equal scores holds a relevant one with chance good / size,
        # after place - 1 others of which (good - 1) / (size - 1) are relevant.
        share = (good / size.clamp(min=1)).masked_fill(~inside, 0.0)
        others = (rank - before_rank - 1) * (good - 1) / (size - 1).clamp(min=1)
        term = before_found + others + 1
    total = hit.sum(dim=1).double()
    precision = (share * term / rank.clamp(min=1)).sum(dim=1) / total  # 0 / 0 is NaN
    cuts = [(share * (rank <= k)).sum(dim=1) / k for k in at]
    wrong = (share * rank).sum(dim=1) - total * (total + 1) / 2
    auc = 1 - wrong / (total * (inside.sum(dim=1) - total))
    at_cuts = torch.stack(cuts, dim=1) if cuts else precision.new_empty(len(total), 0)
    return precision, at_cuts, auc


def average_precision(
    score: Float[Tensor, "b n"],
    relevant: Bool[Tensor, "b n"],
    candidate: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, " b"]:
    """AP = (1 / R) sum over relevant ranks r of precision@r, per row.

    Equal scores count with the exact expectation over all their orders, so neither the index of a
    column nor a seed matters, and a constant score gives chance level.

    Args:
        score: larger is better; not NaN.
        relevant: what should come first.
        candidate: what is ranked at all; None: everything. Others are left out.

    Returns:
        (b,) float64 in (0, 1]; NaN for a row without a relevant candidate.

    Raises:
        ValueError: if shapes differ or a score is NaN.
        TypeError: if scores are not floating, or masks not bool.

    Source: McSherry & Najork 2008, Computing Information Retrieval Performance Measures
    Efficiently in the Presence of Tied Scores, sec. 2.
    Differs: scikit-learn takes a group of equal scores as one step, which favours ties.

    >>> score = torch.tensor([[0.9, 0.2, 0.7, 0.4]])
    >>> average_precision(score, torch.tensor([[True, True, False, False]]))
    tensor([0.7500], dtype=torch.float64)
    """
    check_floating("score", score)
    check_ndim("score", score, "b n")
    candidate = torch.ones_like(relevant) if candidate is None else candidate
    check_same_shape("One mark per score.", score=score, relevant=relevant, candidate=candidate)
    for name, mask in (("relevant", relevant), ("candidate", candidate)):
        if mask.dtype != torch.bool:
            raise TypeError(f"{name}: expected bool, got {mask.dtype}")
    check_scores("average_precision", score)
    return expected_precision(sort_scores(score), relevant, candidate)[0]


def check_scores(owner: str, score: Tensor) -> None:
    """Raise where a score cannot be ranked."""
    bad = score.isnan()
    if bad.any():
        raise ValueError(
            f"{owner}: scores must not be NaN, got {int(bad.sum())} in {int(bad.any(1).sum())} of "
            f"{score.shape[0]} rows, first in row {int(bad.any(1).nonzero()[0])}"
        )


def chance_precision(
    relevant: Float[Tensor, " b"], candidates: Float[Tensor, " b"], at: Sequence[int] = ()
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b k"]]:
    """(AP, precision at each cut) that a random order has in expectation.

    AP = ((R - 1) / (N - 1) (N - H_N) + H_N) / N  for R relevant of N candidates, H_N the harmonic
    number;  precision@k = R / N min(k, N) / k.  NaN for R = 0.
    """
    n, r = candidates.double(), relevant.double()
    harmonic = torch.digamma(n + 1) + 0.5772156649015329
    ap = ((r - 1) / (n - 1).clamp(min=1) * (n - harmonic) + harmonic) / n
    cuts = [r / n * n.clamp(max=k) / k for k in at]
    nan = torch.where(r > 0, 1.0, float("nan")).double()
    return ap * nan, torch.stack(cuts, dim=1) if cuts else ap.new_empty(len(n), 0)
