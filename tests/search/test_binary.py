import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import embedkit.search.binary as binary
from embedkit.search.binary import hamming_search, pack_bits, quantize_binary, unpack_bits


@given(seed=st.integers(0, 2**31), n=st.integers(0, 5), b=st.integers(0, 70))
def test_packing_agrees_with_numpy_and_unpacks_again(seed, n, b):
    bits = torch.rand(n, b, generator=torch.Generator().manual_seed(seed)) > 0.5
    codes = pack_bits(bits)
    np.testing.assert_array_equal(codes.numpy(), np.packbits(bits.numpy(), axis=-1))
    assert codes.dtype == torch.uint8
    assert torch.equal(unpack_bits(codes, b), bits)
    assert torch.equal(pack_bits(bits[0]) if n else codes[:0], codes[0] if n else codes[:0])


def test_binary_agrees_with_sentence_transformers():
    theirs = importlib.import_module("sentence_transformers.util.quantization").quantize_embeddings
    x = torch.randn(50, 37)
    x[3], x[:, 5] = 0.0, 0.0
    want = theirs(x.numpy(), precision="ubinary")
    np.testing.assert_array_equal(quantize_binary(x).numpy(), want)
    np.testing.assert_array_equal(quantize_binary(x.bfloat16()).numpy(), want)


def test_binary_blocks_do_not_matter(monkeypatch):
    x = torch.randn(50, 37)
    want = quantize_binary(x)
    monkeypatch.setattr(binary, "_BLOCK", 100)
    assert torch.equal(quantize_binary(x), want)
    assert quantize_binary(x[:0]).shape == (0, 5)


@given(
    seed=st.integers(0, 2**31),
    q=st.integers(0, 4),
    n=st.integers(0, 20),
    c=st.integers(1, 9),
    k=st.integers(1, 25),
    block=st.integers(1, 12),
)
def test_any_block_size_finds_the_fewest_different_bits(seed, q, n, c, k, block):
    generator = torch.Generator().manual_seed(seed)
    query, corpus = (
        torch.randint(0, 256, (rows, c), generator=generator).to(torch.uint8) for rows in (q, n)
    )
    corpus &= 17  # few different codes, many ties
    rows = [
        sorted(
            (sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True)), j)
            for j, other in enumerate(corpus.tolist())
        )[:k]
        for one in query.tolist()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary, "CODE_ROWS", block)
        found = hamming_search(query, corpus, k)
    fill = k - min(k, n)
    assert found.index.tolist() == [[j for _, j in row] + [-1] * fill for row in rows]
    lost = [-float("inf")] * fill
    assert found.similarity.tolist() == [[float(-h) for h, _ in row] + lost for row in rows]


def test_agrees_with_faiss():
    faiss = importlib.import_module("faiss")
    corpus, query = (quantize_binary(torch.randn(rows, 128)) for rows in (2000, 20))
    index = faiss.IndexBinaryFlat(128)
    index.add(corpus.numpy())
    distance, _ = index.search(query.numpy(), 10)
    np.testing.assert_array_equal(-hamming_search(query, corpus, 10).similarity.numpy(), distance)


def test_agrees_with_scipy():
    cdist = importlib.import_module("scipy.spatial.distance").cdist
    bits = torch.rand(30, 45) > 0.5
    want = cdist(bits.numpy()[:4], bits.numpy(), "hamming") * 45
    found = hamming_search(pack_bits(bits[:4]), pack_bits(bits), 30)
    np.testing.assert_allclose(-found.similarity.numpy(), np.sort(want, axis=1), atol=1e-9)


def test_hand_number():
    codes = torch.tensor([[0b10110010], [0b11100110]], dtype=torch.uint8)
    assert hamming_search(codes[:1], codes, 2).similarity.tolist() == [[0.0, -3.0]]


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor) and func is not torch.ops.aten.split.Tensor:
                self.bytes = max(self.bytes, t.numel() * t.element_size())
        return out


def test_the_corpus_is_unpacked_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr(binary, "CODE_ROWS", 192)
    corpus = quantize_binary(torch.randn(20_000, 64))
    with Largest() as largest:
        hamming_search(corpus[:5], corpus, 3)
    assert largest.bytes <= max(192 * 64 * 8, corpus.numel()) < 20_000 * 64


@pytest.mark.wording
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: pack_bits(torch.ones(3)), TypeError, "bits: expected bool, got torch.float32. Sa"),
        (lambda: pack_bits(torch.tensor(True)), ValueError, "bits: expected bits on the last axis"),
        (
            lambda: unpack_bits(torch.ones(2, 3, dtype=torch.uint8), 25),
            ValueError,
            r"codes: expected 4 bytes for 25 bits on the last axis, got shape \(2, 3\)",
        ),
        (lambda: unpack_bits(torch.ones(2, 3), 24), TypeError, "codes: expected packed codes, uin"),
        (lambda: quantize_binary(torch.ones(2, 3).int()), TypeError, "embeddings: expected a floa"),
        (lambda: quantize_binary(torch.ones(3)), ValueError, r"embeddings: expected 2 axes \(n, d"),
        (
            lambda: quantize_binary(torch.tensor([[0.0], [torch.nan]])),
            ValueError,
            "quantize_binary: embeddings must be finite, got NaN .* first in row 1",
        ),
        (
            lambda: hamming_search(torch.ones(1, 3), torch.ones(2, 3, dtype=torch.uint8), 1),
            TypeError,
            "query: expected packed codes, uint8, got torch.float32",
        ),
        (
            lambda: hamming_search(*(torch.ones(2, c, dtype=torch.uint8) for c in (2, 3)), 1),
            ValueError,
            r"query: expected 3 bytes for 24 bits on the last axis, got shape \(2, 2\)",
        ),
        (
            lambda: hamming_search(*(torch.ones(2, 3, dtype=torch.uint8) for _ in "ab"), 0),
            ValueError,
            "hamming_search: k must be >= 1, got 0",
        ),
    ],
)
def test_bad_arguments_are_explained(call, error, words):
    with pytest.raises(error, match=words):
        call()
