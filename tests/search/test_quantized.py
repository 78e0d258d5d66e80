import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import embedkit.search.quantized as quantized
from embedkit.ops import normalize
from embedkit.search import exact_search
from embedkit.search.binary import hamming_search, quantize_binary, unpack_bits
from embedkit.search.quantized import (
    Int8Rows,
    dequantize_int8,
    quantize_int8,
    quantized_search,
)


def clusters(n=4000, d=64, q=60):
    """Corpus and queries around 40 centres."""
    centre = torch.randn(40, d)
    rows = centre[torch.randint(40, (n + q,))] + 0.5 * torch.randn(n + q, d)
    return rows[:q], rows[q:]


def recall(found, truth):
    return (found.index[:, :, None] == truth.index[:, None]).any(2).float().mean().item()


@given(seed=st.integers(0, 2**31), size=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_an_entry_moves_by_half_a_step_at_most(seed, size):
    x = torch.randn(7, 9, generator=torch.Generator().manual_seed(seed)) * size
    rows = quantize_int8(x)
    step = x.abs().amax(dim=1, keepdim=True) / 127
    assert ((dequantize_int8(rows) - x).abs() <= step * 0.5001).all()
    assert rows.codes.abs().amax() == 127
    torch.testing.assert_close(rows.scale, step[:, 0], rtol=1e-6, atol=0)


def test_codes_agree_with_torch_fake_quantisation():
    x = torch.randn(20, 33)
    rows = quantize_int8(x)
    want = torch.fake_quantize_per_channel_affine(
        x, rows.scale, torch.zeros(20, dtype=torch.int32), 0, -127, 127
    )
    torch.testing.assert_close(dequantize_int8(rows), want, rtol=1e-6, atol=1e-7)


def test_error_is_of_the_size_of_sentence_transformers():
    module = importlib.import_module("sentence_transformers.util.quantization")
    x = normalize(torch.randn(500, 64))
    ranges = np.stack([x.numpy().min(0), x.numpy().max(0)])
    codes = module.quantize_embeddings(x.numpy(), precision="int8", ranges=ranges)
    theirs = (codes.astype(float) + 128 + 0.5) * (ranges[1] - ranges[0]) / 255 + ranges[0]
    error = (dequantize_int8(quantize_int8(x)) - x).square().mean()
    assert error < np.square(theirs - x.numpy()).mean()


def test_a_row_and_its_code_point_the_same_way():
    x = normalize(torch.randn(2000, 128))
    cosine = (normalize(dequantize_int8(quantize_int8(x))) * x).sum(dim=1)
    assert (1 - cosine).max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_dtype_and_block_gives_the_codes_of_its_values(dtype, monkeypatch):
    x = torch.randn(30, 16).to(dtype)
    want = quantize_int8(x.float())
    monkeypatch.setattr(quantized, "_BLOCK", 40)
    rows = quantize_int8(x)
    assert (rows.codes.int() - want.codes.int()).abs().max() <= (dtype == torch.float64)
    assert rows.scale.dtype == torch.promote_types(dtype, torch.float32)


def test_zeros_and_no_rows():
    rows = quantize_int8(torch.zeros(3, 4))
    assert (rows.codes == 0).all()
    assert (dequantize_int8(rows) == 0).all()
    for shape in ((0, 4), (3, 0)):
        assert dequantize_int8(quantize_int8(torch.zeros(shape))).shape == shape


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("kind", ["int8", "binary"])
def test_without_rescoring_it_is_the_search_of_what_the_codes_stand_for(
    kind, similarity, monkeypatch
):
    query, corpus = torch.randn(9, 13), torch.randn(400, 13)
    codes = quantize_int8(corpus) if kind == "int8" else quantize_binary(corpus)
    rows = dequantize_int8(codes) if kind == "int8" else unpack_bits(codes, 13) * 2.0 - 1
    want = exact_search(query, rows, 8, similarity=similarity)
    monkeypatch.setattr(quantized, "CODE_ROWS", 77)
    found = quantized_search(query, codes, 8, similarity=similarity)
    assert torch.equal(found.index, want.index)
    torch.testing.assert_close(found.similarity, want.similarity)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("better", ["float", "int8"])
def test_a_shortlist_of_everything_finds_what_exact_search_finds(better, similarity, monkeypatch):
    query, corpus = torch.randn(9, 13), torch.randn(50, 13)
    corpus[20:30] = corpus[3]  # equals
    rows = corpus if better == "float" else quantize_int8(corpus)
    dense = corpus if better == "float" else dequantize_int8(rows)
    want = exact_search(query, dense, 60, similarity=similarity)
    monkeypatch.setattr(quantized, "_BLOCK", 1500)
    found = quantized_search(
        query, quantize_binary(corpus), 60, rescore=rows, similarity=similarity
    )
    torch.testing.assert_close(found.similarity, want.similarity)
    assert (found.index[:, 50:] == -1).all()
    assert recall(found, want) == 1.0
    first = [
        row.index(min(r for r in row if r == 3 or 20 <= r < 30)) for row in found.index.tolist()
    ]
    for row, at in zip(found.index.tolist(), first, strict=True):
        assert row[at : at + 11] == [3, *range(20, 30)]


def test_of_equals_after_rescoring_the_lowest_index_comes_first():
    query = torch.tensor([[1.0, 0.25]])
    corpus = torch.tensor([[1.25, -1.0], [0.5, 2.0]])  # both 1; the second code is nearer
    codes = quantize_binary(corpus)
    assert quantized_search(query, codes, 2, similarity="dot").index.tolist() == [[1, 0]]
    found = quantized_search(query, codes, 2, rescore=corpus, similarity="dot")
    assert found.index.tolist() == [[0, 1]]
    assert found.similarity.tolist() == [[1.0, 1.0]]


def test_rescoring_returns_the_similarity_to_the_better_rows():
    query, corpus = clusters()
    found = quantized_search(query, quantize_binary(corpus), 5, rescore=corpus)
    cosine = (normalize(query)[:, None] * normalize(corpus)[found.index]).sum(dim=2)
    torch.testing.assert_close(found.similarity, cosine)
    assert (found.similarity.diff(dim=1) <= 0).all()


def test_recall_grows_with_bits_and_with_the_shortlist():
    query, corpus = clusters()
    truth = exact_search(query, corpus, 10)
    codes, rows = quantize_binary(corpus), quantize_int8(corpus)
    short, long = (
        recall(quantized_search(query, codes, 10, rescore=corpus, shortlist=s), truth)
        for s in (2, 10)
    )
    alone = recall(quantized_search(query, codes, 10), truth)
    assert alone < short < long
    assert long > 0.98
    assert recall(quantized_search(query, rows, 10), truth) > 0.97
    assert recall(quantized_search(query, codes, 10, rescore=rows), truth) > 0.95


def test_a_float_query_finds_more_than_its_own_code():
    query, corpus = clusters()
    truth, codes = exact_search(query, corpus, 10), quantize_binary(corpus)
    assert recall(quantized_search(query, codes, 10), truth) > recall(
        hamming_search(quantize_binary(query), codes, 10), truth
    )


def test_memory_of_the_codes():
    corpus = torch.randn(1000, 256)
    rows, codes = quantize_int8(corpus), quantize_binary(corpus)
    assert codes.nbytes * 32 == corpus.nbytes
    assert rows.codes.nbytes * 4 == corpus.nbytes
    assert rows.scale.nbytes == 4 * 1000


def test_half_precision_queries_under_autocast():
    query, corpus = clusters(n=500)
    rows = quantize_int8(corpus)
    want = quantized_search(query.bfloat16().float(), rows, 5, rescore=corpus)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantized_search(query.bfloat16(), rows, 5, rescore=corpus)
    assert torch.equal(found.index, want.index)
    torch.testing.assert_close(found.similarity, want.similarity)


@pytest.mark.parametrize("kind", ["int8", "binary"])
def test_no_queries_and_no_corpus(kind):
    make = quantize_int8 if kind == "int8" else quantize_binary
    for q, n in ((0, 5), (2, 0)):
        corpus = torch.randn(n, 8)
        for better in (None, corpus):
            found = quantized_search(torch.randn(q, 8), make(corpus), 3, rescore=better)
            assert found.index.shape == (q, 3)
            assert (found.index == -1).all()


def test_rows_scored_again_that_are_not_finite_are_named():
    query, corpus = torch.randn(3, 8), torch.randn(20, 8)
    codes = quantize_int8(corpus)
    corpus[7] = torch.nan
    with pytest.raises(ValueError, match="rescore must be finite, got NaN or infinity in row 7"):
        quantized_search(query, codes, 2, rescore=corpus)


ROWS = Int8Rows(torch.ones(3, 8, dtype=torch.int8), torch.ones(3))


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ValueError, "quantized_search: k must be >= 1, got 0"),
        ({"shortlist": 0}, ValueError, "quantized_search: shortlist must be >= 1, got 0"),
        ({"similarity": "l2"}, ValueError, "similarity must be one of cosine, dot, got 'l2'"),
        ({"query": torch.ones(2, 8).char()}, TypeError, "query: expected a floating-point .*float"),
        ({"query": torch.ones(2, 9)}, ValueError, "query: expected last axis of size 8"),
        ({"corpus": torch.ones(3, 8)}, TypeError, "corpus: expected packed codes, uint8, got torc"),
        (
            {"corpus": torch.ones(3, 2, dtype=torch.uint8)},
            ValueError,
            r"corpus: expected 1 bytes for 8 bits on the last axis, got shape \(3, 2\)",
        ),
        (
            {"corpus": 3},
            TypeError,
            "corpus: expected Int8Rows of int8, as quantize_int8 gives, got",
        ),
        (
            {"corpus": Int8Rows(torch.ones(3, 8), torch.ones(3))},
            TypeError,
            "corpus: expected Int8Rows of int8, as quantize_int8 gives, got torch.float32",
        ),
        (
            {"corpus": ROWS._replace(scale=torch.ones(2))},
            ValueError,
            "corpus.scale: expected 3 rows",
        ),
        ({"rescore": torch.ones(2, 8)}, ValueError, r"rescore: expected 3 rows, got shape \(2, 8"),
        ({"rescore": torch.ones(3, 9)}, ValueError, "rescore: expected last axis of size 8"),
        ({"rescore": torch.ones(3, 8).int()}, TypeError, "rescore: expected a floating-point"),
        ({"query": torch.full((2, 8), torch.nan)}, ValueError, "query must be finite"),
    ],
)
def test_bad_arguments_are_explained(change, error, words):
    with pytest.raises(error, match=words):
        quantized_search(**({"query": torch.ones(2, 8), "corpus": ROWS, "k": 1} | change))


@pytest.mark.wording
def test_what_cannot_be_quantised():
    with pytest.raises(ValueError, match="quantize_int8: embeddings must be finite"):
        quantize_int8(torch.tensor([[torch.inf]]))
    with pytest.raises(TypeError, match="embeddings: expected a floating-point tensor"):
        quantize_int8(torch.ones(2, 3).int())
    with pytest.raises(TypeError, match="rows: expected Int8Rows of int8"):
        dequantize_int8(torch.ones(2, 3))
