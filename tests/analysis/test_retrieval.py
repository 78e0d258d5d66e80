import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score
from torch.utils._python_dispatch import TorchDispatchMode

from embedkit.analysis import retrieval_metrics
from embedkit.search import exact_search

NAMES = ("recall", "precision", "hit", "mrr", "map", "ndcg")


def brute(ranking, wanted, k, exclude=()):
    """One query, with Python lists and sets."""
    wanted = {i for i in wanted if i >= 0 and i not in exclude}
    ranking = [i for i in ranking if i < 0 or i not in exclude]
    hits = [r in wanted and r not in ranking[:i] for i, r in enumerate(ranking)][:k]
    if not wanted:
        return None
    best = min(len(wanted), k)
    ranks = [i for i, hit in enumerate(hits, start=1) if hit]
    return {
        f"recall@{k}": len(ranks) / len(wanted),
        f"precision@{k}": len(ranks) / k,
        f"hit@{k}": float(bool(ranks)),
        f"mrr@{k}": 1 / ranks[0] if ranks else 0.0,
        f"map@{k}": sum((n + 1) / rank for n, rank in enumerate(ranks)) / best,
        f"ndcg@{k}": sum(1 / math.log2(r + 1) for r in ranks)
        / sum(1 / math.log2(r + 1) for r in range(1, best + 1)),
    }


@given(
    seed=st.integers(0, 2**31),
    q=st.integers(0, 6),
    n=st.integers(0, 9),
    r=st.integers(0, 5),
    e=st.integers(0, 3),
    ids=st.integers(1, 14),
)
def test_agrees_with_python_loops(seed, q, n, r, e, ids):
    # few ids: repeated ones, -1 anywhere, queries without a relevant id
    generator = torch.Generator().manual_seed(seed)
    retrieved, relevant, exclude = (
        torch.randint(-1, ids, (q, size), generator=generator) for size in (n, r, e)
    )
    cuts = (1, 3, 12)
    rows = retrieval_metrics(retrieved, relevant, k=cuts, exclude=exclude, reduction="none")
    mean = retrieval_metrics(retrieved, relevant, k=cuts, exclude=exclude)
    assert list(mean) == [f"{name}@{cut}" for cut in cuts for name in NAMES] == list(rows)
    lists = (t.tolist() for t in (retrieved, relevant, exclude))
    want = [
        {name: value for cut in cuts for name, value in (brute(a, b, cut, c) or {}).items()}
        for a, b, c in zip(*lists, strict=True)
    ]
    taking_part = [w for w in want if w]
    for name, value in rows.items():
        assert value.tolist() == pytest.approx([w.get(name, 0.0) for w in want])
        average = np.mean([w[name] for w in taking_part]) if taking_part else 0.0
        assert mean[name] == pytest.approx(average)
        assert 0 <= mean[name] <= 1 + 1e-12


def test_agrees_with_scikit_learn_at_full_ranking():
    score, truth = torch.rand(20, 30), torch.rand(20, 30) < 0.2
    truth[:, 0] = True
    relevant = torch.where(truth, torch.arange(30), -1)
    ours = retrieval_metrics(score.argsort(dim=1, descending=True), relevant, k=[5, 30])
    truth, score = truth.numpy(), score.numpy()
    assert ours["map@30"] == pytest.approx(label_ranking_average_precision_score(truth, score))
    assert ours["ndcg@30"] == pytest.approx(ndcg_score(truth, score))
    assert ours["ndcg@5"] == pytest.approx(ndcg_score(truth, score, k=5))


def test_by_hand():
    got = retrieval_metrics(torch.tensor([[4, 7, 2, 9]]), torch.tensor([[9, 7, 5]]), k=[4])
    assert got == {
        "recall@4": pytest.approx(2 / 3),
        "precision@4": 0.5,
        "hit@4": 1.0,
        "mrr@4": 0.5,
        "map@4": pytest.approx((1 / 2 + 2 / 4) / 3),
        "ndcg@4": pytest.approx(
            (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2)
        ),
    }


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_perfect_ranking_is_one(k):
    ids = torch.tensor([[3, 1, 4, 5, 9]])
    got = retrieval_metrics(ids, ids.flip(1), k=[k])
    assert [got[f"{name}@{k}"] for name in NAMES] == pytest.approx([k / 5, 1, 1, 1, 1, 1])


def test_an_id_retrieved_twice_counts_once_and_keeps_its_rank():
    got = retrieval_metrics(torch.tensor([[7, 7, 8]]), torch.tensor([[7, 8]]), k=[2, 3])
    assert got["recall@2"] == got["precision@2"] == 0.5
    assert got["map@3"] == pytest.approx((1 + 2 / 3) / 2)


def test_an_id_listed_twice_counts_once():
    retrieved = torch.tensor([[7, 8, 1]])
    twice = retrieval_metrics(retrieved, torch.tensor([[7, 7, 9, -1]]), k=[1, 3])
    assert twice == retrieval_metrics(retrieved, torch.tensor([[7, 9]]), k=[1, 3])


def test_nothing_at_a_rank_still_takes_the_rank():
    got = retrieval_metrics(torch.tensor([[-1, 7]]), torch.tensor([[7, -1]]), k=[2])
    assert got["mrr@2"] == 0.5


def test_queries_without_relevant_ids_do_not_take_part():
    retrieved, relevant = torch.tensor([[1, 2], [1, 2]]), torch.tensor([[1], [-1]])
    assert retrieval_metrics(retrieved, relevant)["recall@1"] == 1.0
    rows = retrieval_metrics(retrieved, relevant, reduction="none")["recall@1"]
    assert rows.tolist() == [1.0, 0.0]
    assert rows.dtype == torch.float64
    assert set(retrieval_metrics(retrieved[:1], relevant[1:]).values()) == {0.0}


@pytest.mark.parametrize("exclude", [torch.tensor([5, 6]), torch.tensor([[-1, 5], [6, 6]])])
def test_a_query_is_taken_out_of_both_before_ranking(exclude):
    retrieved = torch.tensor([[5, 5, 1, 2], [3, 6, 4, 2]])
    relevant = torch.tensor([[1, 5], [4, -1]])
    got = retrieval_metrics(retrieved, relevant, k=[1, 2], exclude=exclude, reduction="none")
    assert got["recall@1"].tolist() == [1.0, 0.0]
    assert got["mrr@2"].tolist() == [1.0, 0.5]


def test_equal_similarities_rank_by_corpus_index():
    corpus = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    found = exact_search(torch.tensor([[1.0, 0.0]]), corpus, k=3).index
    got = [retrieval_metrics(found, torch.tensor([[i]]), k=[3])["mrr@3"] for i in (1, 2, 0)]
    assert got == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8])
def test_any_integers_and_any_strides(dtype):
    retrieved = torch.tensor([[1, 2], [3, 4], [5, 6]]).T
    relevant = torch.tensor([[3], [2]])
    want = retrieval_metrics(retrieved.contiguous(), relevant)
    assert retrieval_metrics(retrieved.to(dtype), relevant, exclude=None) == want


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor):
                self.entries = max(self.entries, t.numel())
        return out


def test_no_tensor_has_queries_times_retrieved_times_relevant_entries():
    retrieved, relevant = torch.randint(0, 999, (8, 60)), torch.randint(0, 999, (8, 40))
    with Largest() as largest:
        retrieval_metrics(retrieved, relevant, k=[10**9], exclude=retrieved[:, :5])
    assert largest.entries <= 8 * 61


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": []}, ValueError, "k must hold a cut-off, got none"),
        ({"k": [1, 0]}, ValueError, "retrieval_metrics: k must be >= 1, got 0"),
        ({"retrieved": torch.tensor([[1, -2]])}, ValueError, "retrieved must hold .* got -2"),
        ({"retrieved": torch.tensor([1, 2])}, ValueError, "retrieved: expected 2 axes"),
        ({"relevant": torch.tensor([[1.0]])}, TypeError, "relevant: expected integers"),
        ({"relevant": torch.tensor([[1], [1]])}, ValueError, "relevant: expected 1 rows"),
        ({"exclude": torch.tensor([1, 2])}, ValueError, "exclude: expected 1 rows"),
        ({"exclude": torch.tensor([-3])}, ValueError, "exclude must hold .* got -3"),
        ({"reduction": "sum"}, ValueError, "reduction must be one of mean, none, got 'sum'"),
    ],
)
def test_bad_arguments_are_explained(change, error, words):
    good = {"retrieved": torch.tensor([[1, 2]]), "relevant": torch.tensor([[1]])}
    with pytest.raises(error, match=words):
        retrieval_metrics(**(good | change))
