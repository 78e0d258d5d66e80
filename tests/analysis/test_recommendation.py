"""All-ranking evaluation, beside PyG's metrics."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis import recommendation
from embedkit.analysis.recommendation import all_ranking_metrics


def vectors(seed, users=9, items=12):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(users, 4, generator=draw), torch.randn(items, 4, generator=draw)


def split(seed, users=9, items=12):
    """Train and test pairs, each of another cell of the click matrix."""
    draw = torch.Generator().manual_seed(seed)
    cells = torch.randperm(users * items, generator=draw)[:50]
    pairs = torch.stack([cells // items, cells % items])
    return pairs[:, :35], pairs[:, 35:]


def pyg_metrics(user, item, train, test, k):
    """Of users with test items only, which PyG takes as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.metrics import (
            LinkPredHitRatio,
            LinkPredNDCG,
            LinkPredPrecision,
            LinkPredRecall,
        )
    scores = user @ item.T
    scores[train[0], train[1]] = -torch.inf
    ranked = scores.sort(dim=1, descending=True).indices[:, :k]
    kinds = {
        "recall": LinkPredRecall,
        "precision": LinkPredPrecision,
        "hit": LinkPredHitRatio,
        "ndcg": LinkPredNDCG,
    }
    result = {}
    for name, kind in kinds.items():
        metric = kind(k)
        metric.update(ranked, test)
        result[f"{name}@{k}"] = float(metric.compute())
    return result


@pytest.mark.parametrize("entries", [20, 2**22])
@given(seed=st.integers(0, 2**31))
def test_agrees_with_pyg(entries, seed):
    user, item = vectors(seed)
    train, test = split(seed)
    before, recommendation._ENTRIES = recommendation._ENTRIES, entries
    try:
        got = all_ranking_metrics(user, item, train, test, k=(1, 3, 5))
    finally:
        recommendation._ENTRIES = before
    want = {}
    for k in (1, 3, 5):
        want |= pyg_metrics(user, item, train, test, k)
    assert got == pytest.approx(want, abs=1e-6)


def ranked(hits, relevant):
    """One user whose ranking has hits at these ranks; more relevant items come last."""
    item = torch.arange(len(hits) + 3, 0, -1.0)[:, None]
    found = [rank for rank, hit in enumerate(hits) if hit]
    test = found + [len(hits) + 2 - i for i in range(relevant - len(found))]
    none = torch.zeros(2, 0, dtype=torch.long)
    return torch.ones(1, 1), item, none, torch.tensor([[0] * relevant, test])


def test_hand_numbers_of_both_ideals():
    one = ranked([0, 1, 0, 1, 0], 3)
    right = all_ranking_metrics(*one, k=(5,))
    assert right["ndcg@5"] == pytest.approx(0.498189, abs=1e-6)
    assert right["recall@5"] == pytest.approx(2 / 3)
    assert right["precision@5"] == pytest.approx(2 / 5)
    assert right["hit@5"] == 1.0
    old = all_ranking_metrics(*one, k=(5,), ideal="retrieved")
    assert old["ndcg@5"] == pytest.approx(0.650921, abs=1e-6)
    assert {n: v for n, v in old.items() if n != "ndcg@5"} == {
        n: v for n, v in right.items() if n != "ndcg@5"
    }


def test_the_retrieved_ideal_sees_the_longest_list():
    # Hits at ranks 2 and 4: cut at 3, the released code's ideal still holds both.
    old = all_ranking_metrics(*ranked([0, 1, 0, 1, 0], 3), k=(3, 5), ideal="retrieved")
    assert old["ndcg@3"] == pytest.approx(0.6309298 / 1.6309298, abs=1e-6)
    nothing = all_ranking_metrics(*ranked([0, 0], 1), k=(2,), ideal="retrieved")
    assert nothing["ndcg@2"] == 0.0


def test_training_pairs_never_come_back_and_leaks_are_left_out():
    user, item = torch.ones(2, 1), torch.tensor([[3.0], [2.0], [1.0]])
    train = torch.tensor([[0, 0], [0, 1]])
    alone = all_ranking_metrics(user, item, train, torch.tensor([[0], [2]]), k=(1,))
    assert alone["recall@1"] == 1.0
    leaky = torch.tensor([[0, 0, 0], [2, 2, 0]])
    assert all_ranking_metrics(user, item, train, leaky, k=(1,)) == alone
    # A user all of whose test items leak takes no part.
    both = torch.tensor([[0, 0, 1], [0, 1, 0]])
    test = torch.tensor([[0, 1], [2, 0]])
    assert all_ranking_metrics(user, item, both, test, k=(1,)) == alone


def test_more_ranks_than_items():
    user, item = torch.ones(1, 1), torch.tensor([[3.0], [2.0], [1.0]])
    train, test = torch.zeros(2, 1).long(), torch.tensor([[0, 0], [1, 2]])
    got = all_ranking_metrics(user, item, train, test, k=(10,))
    assert got == {"recall@10": 1.0, "precision@10": 0.2, "hit@10": 1.0, "ndcg@10": 1.0}


@given(seed=st.integers(0, 2**31))
def test_new_numbers_of_items_and_users_change_nothing(seed):
    user, item = vectors(seed)
    train, test = split(seed)
    users, items = torch.randperm(9), torch.randperm(12)
    moved = [torch.stack([users.argsort()[p[0]], items.argsort()[p[1]]]) for p in (train, test)]
    got = all_ranking_metrics(user[users], item[items], *moved, k=(4,))
    assert got == pytest.approx(all_ranking_metrics(user, item, train, test, k=(4,)), abs=1e-12)


def test_cosine_ignores_lengths():
    user, item = vectors(0)
    train, test = split(0)
    want = all_ranking_metrics(user, item, train, test, similarity="cosine")
    long = item * torch.rand(12, 1).add(0.1)
    assert all_ranking_metrics(user, long, train, test, similarity="cosine") == want
    pairs = tuple(train), tuple(test)
    assert all_ranking_metrics(user, item, *pairs, similarity="cosine") == want


@pytest.mark.wording
def test_errors_teach():
    user, item = vectors(0)
    train, test = split(0)
    with pytest.raises(ValueError, match="no user has a test item to find: test holds 0 pairs"):
        all_ranking_metrics(user, item, train, test[:, :0])
    with pytest.raises(ValueError, match="test holds 35 pairs, all of which are in train"):
        all_ranking_metrics(user, item, train, train)
    with pytest.raises(ValueError, match=r"items of test must lie in \[0, 11\].*numbered from 0"):
        all_ranking_metrics(user, item, train, (test[0], test[1] + 9))
    with pytest.raises(ValueError, match=r"users of train must lie in \[0, 2\]"):
        all_ranking_metrics(user[:3], item, train, test)
    with pytest.raises(ValueError, match=r"train must be two tensors, users and items, got 35"):
        all_ranking_metrics(user, item, train.T, test)
    with pytest.raises(ValueError, match=r"all_ranking_metrics: item_vectors must be finite"):
        all_ranking_metrics(user, item / 0, train, test)
    with pytest.raises(ValueError, match="k must hold a cut-off"):
        all_ranking_metrics(user, item, train, test, k=())
    with pytest.raises(TypeError, match=r"k must be a list of cut-offs, got 20\. Try k=\(20,\)"):
        all_ranking_metrics(user, item, train, test, k=20)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        all_ranking_metrics(user, item, train, test, k=(0,))
    with pytest.raises(ValueError, match="ideal must be one of relevant, retrieved, got 'best'"):
        all_ranking_metrics(user, item, train, test, ideal="best")
    with pytest.raises(TypeError, match="train: item: expected integers"):
        all_ranking_metrics(user, item, (train[0], train[1].float()), test)
    with pytest.raises(ValueError, match="item_vectors: expected last axis of size 4"):
        all_ranking_metrics(user, item[:, :3], train, test)
