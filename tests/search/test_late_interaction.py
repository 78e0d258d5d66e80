import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import embedkit.ops.late_interaction as ops
import embedkit.search.late_interaction as search
from embedkit.ops.late_interaction import max_sim
from embedkit.search.late_interaction import late_interaction_search


def whole(seed, q=3, n=4, c=9, m=5, d=3, values=None):
    """Padded and packed forms of one corpus of documents of 0 to m tokens."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(*shape):
        if values is None:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)
        return torch.randint(-values, values + 1, shape, generator=generator).double()

    query, corpus = tokens(q, n, d), tokens(c, m, d)
    query_mask = torch.rand(q, n, generator=generator) > 0.3
    lengths = torch.randint(0, m + 1, (c,), generator=generator)
    mask = torch.arange(m) < lengths[:, None]
    return query, query_mask, corpus, mask, torch.tensor([0, *lengths]).cumsum(0)


@given(
    seed=st.integers(0, 2**31),
    q=st.integers(0, 4),
    c=st.integers(0, 12),
    m=st.integers(0, 5),
    k=st.integers(1, 14),
    block=st.integers(1, 30),
    packed=st.booleans(),
)
def test_any_block_size_gives_what_sorting_all_gives(seed, q, c, m, k, block, packed):
    # few whole numbers: products are exact, and many documents are equally similar
    query, query_mask, corpus, mask, offsets = whole(seed, q=q, c=c, m=m, values=1)
    every = max_sim(query, corpus, query_mask, mask, similarity="dot")
    want, order = every.sort(dim=1, descending=True, stable=True)
    form = (
        {"corpus": corpus[mask], "corpus_offsets": offsets}
        if packed
        else {"corpus": corpus, "corpus_mask": mask}
    )
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (search, "CORPUS_TOKENS"),
            (search, "DOCUMENTS"),
            (search, "QUERY_TOKENS"),
            (ops, "KEY_TOKENS"),
            (ops, "ENTRIES"),
        ):
            patch.setattr(module, name, block)
        found = late_interaction_search(query, k=k, query_mask=query_mask, similarity="dot", **form)
    here = min(k, c)
    assert found.index.shape == found.similarity.shape == (q, k)
    assert torch.equal(found.index[:, :here], order[:, :here])
    assert torch.equal(found.similarity[:, :here], want[:, :here])
    assert (found.index[:, here:] == -1).all()
    assert (found.similarity[:, here:] == -torch.inf).all()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cosine_agrees_with_max_sim_of_everything(packed, dtype):
    query, query_mask, corpus, mask, offsets = whole(1, q=6, c=40, d=8)
    query, corpus = query.to(dtype), corpus.to(dtype)
    want = max_sim(query, corpus, query_mask, mask).topk(5)
    form = {"corpus_offsets": offsets} if packed else {"corpus_mask": mask}
    with torch.autocast("cpu", torch.bfloat16):
        found = late_interaction_search(
            query, corpus[mask] if packed else corpus, 5, query_mask=query_mask, **form
        )
    torch.testing.assert_close(found.similarity, want.values)
    assert found.similarity.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(found.index, want.indices)


def test_one_token_each_is_exact_search():
    query, corpus = torch.randn(5, 8), torch.randn(60, 8)
    found = late_interaction_search(query[:, None], corpus[:, None], 7)
    want = search.SearchResult(*(query @ corpus.T / corpus.norm(dim=1)).topk(7))
    assert torch.equal(found.index, want.index)
    torch.testing.assert_close(found.similarity, want.similarity / query.norm(dim=1)[:, None])


def test_padding_may_hold_anything():
    query, query_mask, corpus, mask, _ = whole(2)
    want = late_interaction_search(query, corpus, 4, query_mask=query_mask, corpus_mask=mask)
    query[~query_mask], corpus[~mask] = torch.nan, torch.inf
    found = late_interaction_search(query, corpus, 4, query_mask=query_mask, corpus_mask=mask)
    assert torch.equal(found.index, want.index)
    assert torch.equal(found.similarity, want.similarity)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made, views aside."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor) and t._base is None:
                self.entries = max(self.entries, t.numel())
        return out


@pytest.mark.parametrize("packed", [True, False])
def test_memory_does_not_grow_with_the_corpus(packed, monkeypatch):
    for module, name in ((search, "CORPUS_TOKENS"), (ops, "KEY_TOKENS"), (search, "QUERY_TOKENS")):
        monkeypatch.setattr(module, name, 64)
    monkeypatch.setattr(ops, "ENTRIES", 4096)
    query, largest = torch.randn(40, 3, 4), []
    for c in (200, 800):
        corpus, offsets = torch.randn(c, 5, 4), None
        if packed:
            corpus, offsets = corpus.flatten(0, 1), torch.arange(c + 1) * 5
        with Largest() as seen:
            late_interaction_search(query, corpus, 3, corpus_offsets=offsets)
        largest.append(seen.entries)
    assert largest[0] == largest[1] < 200 * 5 * 40


def test_no_graph_is_kept():
    found = late_interaction_search(
        torch.randn(2, 3, 4, requires_grad=True), torch.randn(5, 3, 4), 2
    )
    assert not found.similarity.requires_grad


def test_non_finite_tokens_are_named():
    corpus = torch.randn(5, 3, 4)
    corpus[3, 1, 0] = torch.nan
    words = "got nan for query 0 and document 3. A real token"
    with pytest.raises(ValueError, match=words):
        late_interaction_search(torch.randn(2, 3, 4), corpus, 1)
    with pytest.raises(ValueError, match="similarities must be finite, got nan for query 0 and do"):
        late_interaction_search(
            torch.randn(2, 3, 4), corpus.flatten(0, 1), 1, corpus_offsets=torch.arange(6) * 3
        )


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([1, 6], "got 1 first and 6 last. From lengths"),
        ([0, 3, 2, 6], "got 3 before 2"),
        ([0, 4], "got 0 first and 4 last"),
        ([], "got none"),
    ],
)
def test_offsets_that_do_not_add_up(offsets, words):
    with pytest.raises(ValueError, match="corpus_offsets: expected 0 first, 6 last .*" + words):
        late_interaction_search(
            torch.ones(1, 2, 4),
            torch.ones(6, 4),
            1,
            corpus_offsets=torch.tensor(offsets, dtype=torch.long),
        )


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ValueError, "late_interaction_search: k must be >= 1, got 0"),
        ({"query": torch.ones(2, 4)}, ValueError, r"query: expected 3 axes \(q, n, d\)"),
        ({"query": torch.ones(2, 3, 5)}, ValueError, "query: expected last axis of size 4"),
        ({"corpus": torch.ones(6, 4)}, ValueError, r"corpus: expected 3 axes \(c, m, d\), got sh"),
        ({"corpus": torch.ones(2, 3, 4).long()}, TypeError, "corpus: expected a floating-point"),
        ({"similarity": "l2"}, ValueError, "similarity must be one of cosine, dot, got 'l2'"),
        ({"query_mask": torch.ones(2, 2).bool()}, ValueError, r"query_mask: expected shape \(2, 3"),
        ({"corpus_mask": torch.ones(2, 3)}, TypeError, "corpus_mask: expected bool"),
        (
            {"corpus_offsets": torch.tensor([0])},
            ValueError,
            r"corpus: expected 2 axes \(t, d\), got shape \(2, 3, 4\)",
        ),
        (
            {"corpus": torch.ones(6, 4), "corpus_offsets": torch.tensor([0.0])},
            TypeError,
            "corpus_offsets: expected integers",
        ),
        (
            {
                "corpus": torch.ones(6, 4),
                "corpus_offsets": torch.tensor([0]),
                "corpus_mask": torch.ones(6).bool(),
            },
            ValueError,
            "corpus_mask: packed tokens have no padding",
        ),
    ],
)
def test_bad_arguments_are_explained(change, error, words):
    good = {"query": torch.ones(2, 3, 4), "corpus": torch.ones(2, 3, 4), "k": 1}
    with pytest.raises(error, match=words):
        late_interaction_search(**(good | change))


def test_a_query_without_tokens_has_similarity_zero_to_packed_documents():
    found = late_interaction_search(
        torch.randn(2, 0, 4), torch.randn(10, 4), 2, corpus_offsets=torch.tensor([0, 4, 4, 10])
    )
    assert found.similarity.tolist() == [[0.0, 0.0]] * 2
