"""How well a ranking finds what is relevant: recall, precision, hit, MRR, MAP and nDCG at k."""

from collections.abc import Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_integer,
    check_ndim,
    check_rows,
)


def _contains(sets: Int[Tensor, "q r"], ids: Int[Tensor, "q n"]) -> Bool[Tensor, "q n"]:
    """Whether row i of ``sets`` (sorted, at least one entry) holds each id of row i."""
    place = torch.searchsorted(sets, ids.contiguous()).clamp(max=sets.shape[1] - 1)
    return (sets.gather(1, place) == ids) & (ids >= 0)


def _sorted(ids: Int[Tensor, "q r"]) -> Int[Tensor, "q s"]:
    """Each row in increasing order, after one -1, so that no row is empty."""
    return F.pad(ids.long(), (1, 0), value=-1).sort(dim=1).values


def _repeated(ids: Int[Tensor, "q n"]) -> Bool[Tensor, "q n"]:
    """True where the same id stands earlier in its row."""
    value, order = ids.sort(dim=1, stable=True)
    again = F.pad(value[:, 1:] == value[:, :-1], (min(1, ids.shape[1]), 0))
    return torch.zeros_like(again).scatter(1, order, again)


def _hits(
    retrieved: Int[Tensor, "q n"],
    relevant: Int[Tensor, "q r"],
    exclude: Int[Tensor, "q e"] | None,
    depth: int,
) -> tuple[Float[Tensor, "q depth"], Float[Tensor, " q"]]:
    """1 where a relevant id stands for the first time, and the number of relevant ids."""
    retrieved, relevant = retrieved.long(), relevant.long()
    if exclude is not None:
        out = _sorted(exclude)
        relevant = relevant.masked_fill(_contains(out, relevant), -1)
        kept_first = _contains(out, retrieved).to(torch.uint8).argsort(dim=1, stable=True)
        retrieved = retrieved.gather(1, kept_first)
    retrieved, sets = retrieved[:, :depth], _sorted(relevant)
    hit = _contains(sets, retrieved) & ~_repeated(retrieved)
    hit = F.pad(hit, (0, depth - hit.shape[1]))
    total = (sets[:, 1:] != sets[:, :-1]).sum(dim=1)
    return hit.cpu().double(), total.cpu().double()


def _check_ids(name: str, ids: Tensor, rows: int) -> None:
    check_ndim(name, ids, "q n")
    check_rows(name, ids, rows, "retrieved, relevant and exclude need one row for each query.")
    check_integer(name, ids)
    if (ids.long() < -1).any():
        raise ValueError(
            f"retrieval_metrics: {name} must hold ids from 0 on, or -1 for none, "
            f"got {int(ids.min())}"
        )


@overload
def retrieval_metrics(
    retrieved: Int[Tensor, "q n"],
    relevant: Int[Tensor, "q r"],
    *,
    k: Sequence[int] = ...,
    exclude: Int[Tensor, "q *e"] | None = ...,
    reduction: Literal["mean"] = ...,
) -> dict[str, float]: ...


@overload
def retrieval_metrics(
    retrieved: Int[Tensor, "q n"],
    relevant: Int[Tensor, "q r"],
    *,
    k: Sequence[int] = ...,
    exclude: Int[Tensor, "q *e"] | None = ...,
    reduction: Literal["none"],
) -> dict[str, Tensor]: ...


@torch.no_grad()
def retrieval_metrics(
    retrieved: Int[Tensor, "q n"],
    relevant: Int[Tensor, "q r"],
    *,
    k: Sequence[int] = (1, 10),
    exclude: Int[Tensor, "q *e"] | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> dict[str, float] | dict[str, Tensor]:
    """Recall, precision, hit, MRR, MAP and nDCG of a ranking, at every cut-off k.

    With h_i = 1 where rank i = 1, 2, ... holds a relevant id, and R relevant ids in all:

    - recall@k = sum_{i<=k} h_i / R;  precision@k = sum_{i<=k} h_i / k;  hit@k = max_{i<=k} h_i
    - mrr@k = 1 / (rank of the first relevant id), 0 if that rank is above k
    - map@k = sum_{i<=k} h_i precision@i / min(R, k)
    - ndcg@k = sum_{i<=k} h_i / log2(i + 1)  /  sum_{i<=min(R, k)} 1 / log2(i + 1)

    Queries without a relevant id do not take part. An id that is retrieved again keeps its rank,
    but counts as not relevant there; an id listed twice in ``relevant`` counts once. The order of
    ``retrieved`` is taken as given, so ties are for the search to break;
    :func:`embedkit.search.exact_search` puts the lowest corpus index first.

    Args:
        retrieved: corpus ids, best first; -1 where nothing was found, which holds its rank.
        relevant: the ids that should be found, in any order, filled up with -1.
        k: cut-offs, each at least 1; may exceed n.
        exclude: one id per query (q,), or several (q, e) filled up with -1, taken out of
            ``retrieved`` (later ids move up) and out of ``relevant``: above all the query itself.
        reduction: "mean" over the queries that take part, or "none".

    Returns:
        A dict whose keys are "recall@1", "precision@1", "hit@1", "mrr@1", "map@1", "ndcg@1",
        "recall@10" and so on. Its values lie in [0, 1]; they are floats, 0.0 if no query takes
        part, or for "none" float64 tensors (q,) on the CPU, 0 for a query that takes no part.

    Raises:
        TypeError: if ids are not integers.
        ValueError: for ids below -1, numbers of rows that differ, an empty ``k``, a cut-off below
            1 or an unknown ``reduction``.

    Source: Manning et al. 2008, Introduction to Information Retrieval, section 8.4.
    Differs: MAP and nDCG are cut at k, so MAP divides by min(R, k), not by R: a perfect top k is 1.

    >>> retrieved, relevant = torch.tensor([[4, 7, 2]]), torch.tensor([[7, 9]])
    >>> retrieval_metrics(retrieved, relevant, k=[3])["recall@3"]
    0.5
    """
    _check_ids("retrieved", retrieved, retrieved.shape[0])
    _check_ids("relevant", relevant, retrieved.shape[0])
    if exclude is not None:
        exclude = exclude[:, None] if exclude.ndim == 1 else exclude
        _check_ids("exclude", exclude, retrieved.shape[0])
    check_choice("retrieval_metrics", "reduction", reduction, ("mean", "none"))
    if not k:
        raise ValueError("retrieval_metrics: k must hold a cut-off, got none. Try k=(1, 10).")
    for cut in k:
        check_at_least("retrieval_metrics", "k", cut, 1)

    depth = max(1, min(max(k), retrieved.shape[1]))  # no rank beyond it holds anything
    hit, total = _hits(retrieved, relevant, exclude, depth)
    rank = torch.arange(1, max(depth, relevant.shape[1]) + 1, dtype=torch.float64)
    gain = 1 / torch.log2(rank + 1)
    precision, ideal = hit.cumsum(dim=1) / rank[:depth], gain.cumsum(dim=0)
    result: dict[str, Tensor] = {}
    for cut in k:
        h, possible = hit[:, :cut], total.clamp(min=1, max=cut)
        found = h.sum(dim=1)
        result |= {
            f"recall@{cut}": found / total.clamp(min=1),
            f"precision@{cut}": found / cut,
            f"hit@{cut}": (found > 0).double(),
            f"mrr@{cut}": (h / rank[: h.shape[1]]).amax(dim=1),
            f"map@{cut}": (h * precision[:, :cut]).sum(dim=1) / possible,
            f"ndcg@{cut}": (h @ gain[: h.shape[1]]) / ideal[possible.long() - 1],
        }
    if reduction == "none":
        return result
    rows = max(int((total > 0).sum()), 1)
    return {name: float(value.sum()) / rows for name, value in result.items()}
