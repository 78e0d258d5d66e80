"""All-ranking evaluation of a recommender: every item is ranked for every user."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_integer,
    check_last_dim,
    check_ndim,
    check_same_shape,
)
from embedkit.analysis.retrieval import retrieval_metrics
from embedkit.search import exact_search

Pairs = tuple[Tensor, Tensor] | Int[Tensor, "2 _e"]
_ENTRIES, _USERS = 2**22, 8192  # of one chunk: ids of items in padded rows, and users


@torch.no_grad()
def all_ranking_metrics(
    user_vectors: Float[Tensor, "u d"],
    item_vectors: Float[Tensor, "i d"],
    train: Pairs,
    test: Pairs,
    *,
    k: Sequence[int] = (20,),
    similarity: Literal["dot", "cosine"] = "dot",
    ideal: Literal["relevant", "retrieved"] = "relevant",
) -> dict[str, float]:
    """Recall, precision, hit and nDCG at k of a recommender, with all items ranked for each user.

    For each user with test items T: all items but the user's own of training are ordered by their
    similarity, and :func:`retrieval_metrics` compares the first k with T. The mean is over those
    users. With h_i = 1 where rank i holds an item of T:

    - recall@k = sum_{i<=k} h_i / |T|;  precision@k = sum_{i<=k} h_i / k;  hit@k = max_{i<=k} h_i
    - ndcg@k = sum_{i<=k} h_i / log2(i + 1)  /  sum_{i<=min(k, |T|)} 1 / log2(i + 1)

    Users are taken in chunks, so neither the matrix of all scores nor one row of training items per
    user is held. Equal similarities are ordered by item, the lowest first.

    Args:
        user_vectors: one row per user; of a propagated embedding the first rows.
        item_vectors: one row per item, numbered from 0 on their own.
        train: (user, item), each (e,): pairs that are never recommended again. All that the model
            was trained on belongs here, and nothing of ``test``.
        test: (user, item) that should be found. A pair that is in ``train`` too is left out, as is
            the second of two equal ones; a user without any other takes no part.
        k: cut-offs, each at least 1. Where fewer items are left to rank, the ranks beyond are
            empty: recall can still reach 1, precision cannot.
        similarity: "dot", as recommenders rank, or "cosine". Never pass scores through a sigmoid:
            in float32 it is 1 above 17, and ties destroy the ranking.
        ideal: "relevant": the nDCG above. "retrieved": its divisor takes the hits among the first
            max(k) in place of |T|, as the released code of NGCF and KGAT does; it is larger, and
            good for comparing with old tables alone (pass the same list of cut-offs as they did).

    Returns:
        A dict with "recall@20", "precision@20", "hit@20", "ndcg@20" and so on for every k.

    Raises:
        TypeError: if vectors are not floating, ids not integers, or ``k`` is one number.
        ValueError: if shapes don't fit, an id is out of range, vectors are not finite, no user has
            a test item, a cut-off is below 1, or a choice is unknown.

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, section 4.2.1; He et al. 2020,
    LightGCN, section 4.1.

    >>> users, items = torch.tensor([[1.0]]), torch.tensor([[3.0], [2.0], [1.0]])
    >>> train, test = torch.tensor([[0], [0]]), torch.tensor([[0], [2]])
    >>> all_ranking_metrics(users, items, train, test, k=[2])
    {'recall@2': 1.0, 'precision@2': 0.5, 'hit@2': 1.0, 'ndcg@2': 0.63092975...}
    """
    owner, num_users, num_items = "all_ranking_metrics", len(user_vectors), len(item_vectors)
    for name, vectors in (("user_vectors", user_vectors), ("item_vectors", item_vectors)):
        check_ndim(name, vectors, "n d")
        check_finite(owner, name, vectors)
    check_last_dim("item_vectors", item_vectors, user_vectors.shape[1], "One model makes both.")
    check_choice(owner, "similarity", similarity, ("dot", "cosine"))
    check_choice(owner, "ideal", ideal, ("relevant", "retrieved"))
    if isinstance(k, int):
        raise TypeError(f"{owner}: k must be a list of cut-offs, got {k}. Try k=({k},).")
    if not k:
        raise ValueError(f"{owner}: k must hold a cut-off, got none. Try k=(20,).")
    for cut in k:
        check_at_least(owner, "k", cut, 1)
    known = _keys("train", train, num_users, num_items)
    wanted = _keys("test", test, num_users, num_items)
    found = len(wanted)
    wanted = wanted[~torch.isin(wanted, known)]
    users = torch.unique_consecutive(wanted // max(num_items, 1))
    if not len(users):
        raise ValueError(
            f"{owner}: no user has a test item to find: test holds {found} pairs, "
            f"{'all of which are in train' if found else 'so nothing can be measured'}."
        )
    sums: dict[str, float] = {}
    for some in _chunks(users, known, wanted, num_items):
        own, relevant = (_rows(some, keys, num_items) for keys in (known, wanted))
        ranked = exact_search(
            user_vectors[some], item_vectors, max(k), similarity=similarity, exclude=own
        )
        measured = retrieval_metrics(ranked.index, relevant, k=k, reduction="none")
        if ideal == "retrieved":
            _divide_by_retrieved(measured, (relevant >= 0).sum(dim=1).cpu(), k)
        for name, value in measured.items():
            sums[name] = sums.get(name, 0.0) + float(value.sum())
    names = [f"{name}@{cut}" for cut in k for name in ("recall", "precision", "hit", "ndcg")]
    return {name: sums[name] / len(users) for name in names}


def _keys(name: str, pairs: Pairs, num_users: int, num_items: int) -> Tensor:
    """user * num_items + item of the distinct pairs, in order."""
    if len(pairs) != 2:
        raise ValueError(
            f"all_ranking_metrics: {name} must be two tensors, users and items, got {len(pairs)}. "
            "Pairs in rows need a transpose: pairs.T."
        )
    user, item = pairs
    for what, ids, end in (("user", user, num_users), ("item", item, num_items)):
        check_integer(f"{name}: {what}", ids)
        check_ndim(f"{name}: {what}", ids, "e")
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < end:
            raise ValueError(
                f"all_ranking_metrics: {what}s of {name} must lie in [0, {end - 1}], a row of "
                f"{what}_vectors each, got values in [{int(ids.min())}, {int(ids.max())}]. Users "
                "and items are numbered from 0, each on their own."
            )
    check_same_shape(f"{name}: one item per user.", user=user, item=item)
    keys: Tensor = torch.unique(user.long() * num_items + item.long())
    return keys


def _span(users: Tensor, keys: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
    """Where the pairs of each user start, and how many there are."""
    start = torch.searchsorted(keys, users * num_items)
    return start, torch.searchsorted(keys, (users + 1) * num_items) - start


def _chunks(users: Tensor, known: Tensor, wanted: Tensor, num_items: int) -> Iterator[Tensor]:
    """Users with the most pairs first, so that those of one chunk have about as many."""
    sizes = [_span(users, keys, num_items)[1] for keys in (known, wanted)]
    width, order = torch.maximum(*sizes).sort(descending=True)
    start = 0
    while start < len(users):
        rows = max(1, min(_USERS, _ENTRIES // max(1, int(width[start]))))
        yield users[order[start : start + rows]]
        start += rows


def _rows(users: Tensor, keys: Tensor, num_items: int) -> Int[Tensor, "u w"]:
    """The items of each user, filled up with -1."""
    start, size = _span(users, keys, num_items)
    place = torch.arange(int(size.max()), device=keys.device)
    at = (start[:, None] + place).clamp(max=max(len(keys) - 1, 0))
    return torch.where(place < size[:, None], keys[at] % num_items, -1)


def _divide_by_retrieved(measured: dict[str, Tensor], total: Tensor, k: Sequence[int]) -> None:
    """In place: the nDCG of each user with the hits in the whole list as the ideal."""
    rank = torch.arange(1, max(k) + 1, dtype=torch.float64)
    ideal = (1 / torch.log2(rank + 1)).cumsum(dim=0)
    hits = (measured[f"precision@{max(k)}"] * max(k)).round().long()
    for cut in k:
        gain = measured[f"ndcg@{cut}"] * ideal[total.clamp(1, cut) - 1]
        measured[f"ndcg@{cut}"] = gain / ideal[hits.clamp(1, cut) - 1]
