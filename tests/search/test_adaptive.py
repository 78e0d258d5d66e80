import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import embedkit.search.adaptive as adaptive
from embedkit.search import exact_search
from embedkit.search.adaptive import adaptive_search


@given(
    seed=st.integers(0, 2**31),
    q=st.integers(0, 4),
    n=st.integers(0, 20),
    k=st.integers(1, 25),
    dims=st.sampled_from([[4], [1, 4], [2, 3, 4], [1, 2, 3, 4]]),
    similarity=st.sampled_from(["cosine", "dot"]),
    exclude=st.booleans(),
)
def test_a_shortlist_of_all_is_exact_search(seed, q, n, k, dims, similarity, exclude):
    generator = torch.Generator().manual_seed(seed)
    # powers of two in pairs: products and norms are exact, and many similarities are equal
    query, corpus = (
        torch.randint(-1, 2, (rows, 4), generator=generator).double() for rows in (q, n)
    )
    out = None
    if exclude:
        out = torch.randint(-1, max(n, 1), (q, 3), generator=generator).clamp(max=n - 1)
    settings = {"similarity": similarity, "exclude": out}
    found = adaptive_search(
        query, corpus, k, dims=dims, shortlist=[max(n, k)] * (len(dims) - 1), **settings
    )
    want = exact_search(query, corpus, k, **settings)
    torch.testing.assert_close(found.similarity, want.similarity)
    if similarity == "dot":  # exact products, hence exact ties
        assert torch.equal(found.index, want.index)
    assert found.index.shape == (q, k)
    assert found.index.dtype == torch.long


def test_a_shortlist_of_all_is_exact_search_on_real_numbers():
    query, corpus = torch.randn(30, 32), torch.randn(500, 32)
    found = adaptive_search(query, corpus, 9, dims=[4, 32], shortlist=500)
    want = exact_search(query, corpus, 9)
    assert torch.equal(found.index, want.index)
    torch.testing.assert_close(found.similarity, want.similarity)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_each_stage_is_an_exact_search_of_what_is_left(similarity):
    query, corpus = torch.randn(6, 16).double(), torch.randn(200, 16).double()
    found = adaptive_search(
        query, corpus, 5, dims=[2, 4, 16], shortlist=[60, 20], similarity=similarity
    )
    for i, row in enumerate(query):
        left = torch.arange(200)
        for dim, size in ((2, 60), (4, 20), (16, 5)):
            part = exact_search(row[None, :dim], corpus[left][:, :dim], size, similarity=similarity)
            left = left[part.index[0]] if dim == 16 else left[part.index[0]].sort().values
        assert found.index[i].tolist() == left.tolist()
        torch.testing.assert_close(found.similarity[i], part.similarity[0])


def test_one_number_halves_at_every_width():
    assert adaptive._shortlists(10, [16, 32, 64, 128, 256], 200) == [200, 100, 50, 25, 10]
    assert adaptive._shortlists(10, [16, 32, 64, 128], 20) == [20, 10, 10, 10]
    assert adaptive._shortlists(3, [16], 200) == [3]


def test_equal_rows_come_by_index():
    corpus = torch.randn(7, 24)[torch.randint(0, 7, (300,))]
    found = adaptive_search(torch.randn(20, 24), corpus, 60, dims=[8, 24], shortlist=200)
    equal = found.similarity.diff(dim=1) == 0
    assert equal.any(dim=1).all()
    assert (found.index.diff(dim=1)[equal] > 0).all()


@pytest.mark.parametrize("scale", [1e-11, 1e30])
def test_cosine_does_not_depend_on_scale(scale):
    query, corpus = torch.randn(5, 8), torch.randn(50, 8)
    corpus[3] = 0
    settings = {"dims": [2, 8], "shortlist": 50}
    found = adaptive_search(query * scale, corpus * scale, 50, **settings)
    want = adaptive_search(query, corpus, 50, **settings)
    torch.testing.assert_close(found, want)
    assert (found.similarity[found.index == 3] == 0).all()


def test_blocks_of_queries_change_nothing(monkeypatch):
    query, corpus = torch.randn(13, 8), torch.randn(100, 8)
    want = adaptive_search(query, corpus, 5, dims=[2, 8], shortlist=30)
    monkeypatch.setattr(adaptive, "ENTRIES", 3 * 30 * 8)
    found = adaptive_search(query, corpus, 5, dims=[2, 8], shortlist=30)
    assert torch.equal(found.index, want.index)
    assert torch.equal(found.similarity, want.similarity)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    query, corpus = torch.randn(5, 16).to(dtype), torch.randn(100, 16).to(dtype)
    found = adaptive_search(query, corpus, 6, dims=[4, 16], shortlist=20)
    want = adaptive_search(query.float(), corpus.float(), 6, dims=[4, 16], shortlist=20)
    assert found.similarity.dtype == torch.float32
    assert torch.equal(found.index, want.index)


@pytest.mark.parametrize(("q", "n"), [(0, 5), (3, 0), (0, 0), (2, 1)])
def test_few_rows_or_none(q, n):
    query, corpus = torch.randn(q, 4, requires_grad=True), torch.randn(n, 4)
    found = adaptive_search(query, corpus, 2, dims=[2, 4])
    assert found.similarity.shape == found.index.shape == (q, 2)
    assert (found.index[:, n:] == -1).all()
    assert (found.similarity[:, n:] == -torch.inf).all()
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


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(adaptive, "ENTRIES", 2**14)
    query, corpus = torch.randn(2000, 16), torch.randn(500, 16)
    index = torch.randint(0, 500, (2000, 50))
    with Largest() as largest:
        adaptive._rescore(query, corpus, index, True)
    assert largest.entries <= 2000 * 50  # the result; all candidates would be 16 times as many


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dims": [2, 8]}, ValueError, "dims go up to 8, but the corpus has width 4"),
        ({"dims": []}, ValueError, "adaptive_search: dims must be positive, different"),
        ({"dims": [4, 2]}, ValueError, "in increasing order, got"),
        ({"k": 0}, ValueError, "adaptive_search: k must be >= 1, got 0"),
        ({"shortlist": 1}, ValueError, r"must not grow nor fall below k=2, got \[1\]"),
        ({"shortlist": [3, 3]}, ValueError, "expected 1 shortlists, one for each of dims but the"),
        (
            {"dims": [1, 2, 4], "shortlist": [3, 4]},
            ValueError,
            r"must not grow nor fall below k=2, got \[3, 4\]. Pass shortlist=40",
        ),
        ({"query": torch.ones(2, 3)}, ValueError, "query and corpus of one width, got 3 and 4"),
        ({"query": torch.ones(4)}, ValueError, r"query: expected 2 axes \(q, d\)"),
        ({"corpus": torch.full((3, 4), torch.nan)}, ValueError, "corpus must be finite, got NaN"),
        ({"similarity": "l2"}, ValueError, "similarity must be one of cosine, dot, got 'l2'"),
        ({"query": torch.full((2, 4), 1e30)}, ValueError, "dot products may overflow"),
        ({"exclude": torch.tensor([[0], [3]])}, ValueError, "rows from 0 to 2, or -1 .* got 3"),
    ],
)
def test_bad_arguments_are_explained(change, error, words):
    good = {"query": torch.ones(2, 4), "corpus": torch.full((3, 4), 1e10), "k": 2}
    settings = {"dims": [2, 4], "shortlist": 3, "similarity": "dot"}
    with pytest.raises(error, match=words):
        adaptive_search(**(good | settings | change))
