import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

import embedkit.search.exact as exact
from embedkit.search import exact_search


def brute(query, corpus, k, exclude=None):
    """One Python loop over candidates: best first, then by index."""
    rows = []
    for i, row in enumerate(query.double().tolist()):
        out = set() if exclude is None else set(exclude[i].tolist())
        scored = [
            (-sum(a * b for a, b in zip(row, other, strict=True)), j)
            for j, other in enumerate(corpus.double().tolist())
            if j not in out
        ]
        rows.append([(-s, j) for s, j in sorted(scored)[:k]])
    empty = (-float("inf"), -1)
    full = [row + [empty] * (k - len(row)) for row in rows]
    return (
        torch.tensor([[s for s, _ in row] for row in full]).reshape(len(query), k),
        torch.tensor([[j for _, j in row] for row in full], dtype=torch.long).reshape(-1, k),
    )


@given(
    seed=st.integers(0, 2**31),
    q=st.integers(0, 5),
    n=st.integers(0, 30),
    k=st.integers(1, 35),
    tiles=st.tuples(st.integers(1, 4), st.integers(1, 12)),
    values=st.integers(1, 3),
)
def test_any_block_size_gives_what_brute_force_gives(seed, q, n, k, tiles, values):
    # few different integers: products are exact, and most similarities are equal
    generator = torch.Generator().manual_seed(seed)
    query = torch.randint(-values, values + 1, (q, 2), generator=generator).float()
    corpus = torch.randint(-values, values + 1, (n, 2), generator=generator).float()
    exclude = torch.randint(-1, max(n, 1), (q, 3), generator=generator).clamp(max=n - 1)
    want = brute(query, corpus, k, exclude)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "QUERY_TILE", tiles[0])
        patch.setattr(exact, "CORPUS_TILE", tiles[1])
        patch.setattr(exact, "CORPUS_ROWS", tiles[1])
        patch.setattr(exact, "BLOCK", tiles[0] * tiles[1])
        small = exact_search(query, corpus, k, similarity="dot", exclude=exclude)
    whole = exact_search(query, corpus, k, similarity="dot", exclude=exclude)
    for found in (small, whole):
        assert found.index.tolist() == want[1].tolist()
        assert found.similarity.tolist() == want[0].tolist()


def test_equal_similarities_come_by_index_across_real_blocks():
    n = 3 * exact.CORPUS_ROWS + 5
    corpus = torch.eye(4)[torch.randint(0, 4, (n,))]  # of length 1: cosines are exact
    found = exact_search(torch.eye(4), corpus, k=50)
    for row in range(4):
        assert found.index[row].tolist() == corpus[:, row].nonzero()[:50, 0].tolist()
    assert (found.similarity == 1).all()


def test_more_results_than_a_block_of_candidates():
    n = exact.CORPUS_ROWS + 11
    corpus = torch.randint(-3, 4, (n, 2)).float()
    found = exact_search(corpus[:2], corpus, k=n + 3, similarity="dot")
    value, index = (corpus[:2] @ corpus.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.index[:, :n], index)
    assert torch.equal(found.similarity[:, :n], value)
    assert (found.index[:, n:] == -1).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_agrees_with_scikit_learn(similarity):
    query, corpus = torch.randn(20, 8).double(), torch.randn(300, 8).double()
    found = exact_search(query, corpus, 7, similarity=similarity)
    if similarity == "cosine":
        oracle = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute")
        distance, index = oracle.fit(corpus.numpy()).kneighbors(query.numpy())
        np.testing.assert_allclose(found.similarity.numpy(), 1 - distance, atol=1e-12)
    else:
        index = np.argsort(-(query @ corpus.T).numpy(), axis=1)[:, :7]
    np.testing.assert_array_equal(found.index.numpy(), index)
    assert found.similarity.dtype == torch.float64


def test_a_query_finds_the_same_alone_and_among_others():
    query, corpus = torch.randn(70, 16), torch.randn(500, 16)
    together = exact_search(query, corpus, 9)
    alone = [exact_search(row[None], corpus, 9) for row in query]
    assert torch.equal(together.index, torch.cat([one.index for one in alone]))
    torch.testing.assert_close(together.similarity, torch.cat([a.similarity for a in alone]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    query, corpus = torch.randn(5, 16).to(dtype), torch.randn(400, 16).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = exact_search(query, corpus, 6)
    want = exact_search(query.float(), corpus.float(), 6)
    truth = exact_search(query.double(), corpus.double(), 6).similarity
    torch.testing.assert_close(found.similarity.double(), truth, rtol=0, atol=1e-6)
    assert found.similarity.dtype == torch.float32
    assert torch.equal(found.index, want.index)
    assert torch.equal(found.similarity, want.similarity)
    mixed = exact_search(query, corpus.float(), 6)
    assert torch.equal(mixed.index, want.index)


@pytest.mark.parametrize("scale", [1e-11, 1e30])
def test_cosine_does_not_depend_on_scale(scale):
    query, corpus = torch.randn(5, 8), torch.randn(50, 8)
    found = exact_search(query * scale, corpus * scale, 4)
    assert torch.equal(found.index, exact_search(query, corpus, 4).index)


def test_a_zero_vector_is_similar_to_nothing():
    found = exact_search(torch.zeros(1, 3), torch.randn(5, 3), 3)
    assert found.similarity.tolist() == [[0.0, 0.0, 0.0]]
    assert found.index.tolist() == [[0, 1, 2]]


def test_excluding_each_query_from_its_own_results():
    x = torch.randn(30, 4)
    found = exact_search(x, x, 29, exclude=torch.arange(30)[:, None])
    assert (found.index != torch.arange(30)[:, None]).all()
    assert (found.index.sort(dim=1).values.diff(dim=1) > 0).all()


def test_no_candidate_left():
    x = torch.randn(2, 4)
    found = exact_search(x, x, 2, exclude=torch.tensor([[0, 1], [-1, 0]]))
    assert found.index.tolist() == [[-1, -1], [1, -1]]
    assert found.similarity[0].tolist() == [-torch.inf, -torch.inf]


@pytest.mark.parametrize(("q", "n"), [(0, 5), (3, 0), (0, 0)])
def test_empty_query_and_empty_corpus(q, n):
    found = exact_search(torch.randn(q, 4), torch.randn(n, 4), 2)
    assert found.similarity.shape == found.index.shape == (q, 2)
    assert found.index.dtype == torch.long
    assert (found.index == -1).all()
    assert (found.similarity == -torch.inf).all()


def test_no_graph_is_kept():
    found = exact_search(torch.randn(2, 3, requires_grad=True), torch.randn(4, 3), 1)
    assert not found.similarity.requires_grad


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor):
                self.entries = max(self.entries, t.numel())
        return out


@pytest.mark.parametrize(("q", "n", "k"), [(2000, 20_000, 10), (3000, 3000, 10), (10, 20_000, 500)])
def test_memory_is_bounded(q, n, k):
    query, corpus = torch.randn(q, 2), torch.randn(n, 2)
    with Largest() as largest:
        exact_search(query, corpus, k)
    assert largest.entries <= exact.BLOCK * 1.1 < 2000 * 20_000


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ValueError, "exact_search: k must be >= 1, got 0"),
        (
            {"query": torch.ones(2, 5)},
            ValueError,
            r"query: expected last axis of size 4, got shape",
        ),
        (
            {"query": torch.ones(4)},
            ValueError,
            r"query: expected 2 axes \(q, d\), got shape \(4,\)",
        ),
        ({"corpus": torch.ones(3, 4, dtype=torch.long)}, TypeError, "corpus: expected a floating"),
        ({"similarity": "l2"}, ValueError, "similarity must be one of cosine, dot, got 'l2'"),
        ({"exclude": torch.tensor([0, 1])}, ValueError, r"exclude: expected 2 axes \(q, e\)"),
        ({"exclude": torch.tensor([[0]])}, ValueError, "exclude: expected 2 rows"),
        ({"exclude": torch.tensor([[0.0], [1.0]])}, TypeError, "exclude: expected integers"),
        ({"exclude": torch.tensor([[0], [3]])}, ValueError, "rows from 0 to 2, or -1 .* got 3"),
        ({"exclude": torch.tensor([[0], [-2]])}, ValueError, "rows from 0 to 2, or -1 .* got -2"),
        (
            {"corpus": torch.tensor([[1.0] * 4, [torch.nan] * 4, [torch.inf] * 4])},
            ValueError,
            "corpus must be finite, got NaN or infinity in 2 of 3 rows, first in row 1",
        ),
        ({"query": torch.full((2, 4), torch.inf)}, ValueError, "query must be finite"),
        (
            {"query": torch.full((2, 4), 1e20), "corpus": torch.full((3, 4), -1e20)},
            ValueError,
            "dot products may overflow torch.float32",
        ),
    ],
)
def test_bad_arguments_are_explained(change, error, words):
    good = {"query": torch.ones(2, 4), "corpus": torch.ones(3, 4), "k": 1, "similarity": "dot"}
    with pytest.raises(error, match=words):
        exact_search(**(good | change))
