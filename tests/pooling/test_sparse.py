import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.pooling.sparse import SparsePool, sparse_pool

OVER = pytest.mark.parametrize("over", ["max", "sum"])


def drawn(seed=0, b=4, n=5, v=7):
    generator = torch.Generator().manual_seed(seed)
    tokens = 3 * torch.randn(b, n, v, generator=generator).double()
    return tokens, torch.rand(b, n, generator=generator) > 0.4


def gradient(pool, tokens):
    leaf = tokens.clone().requires_grad_()
    out = pool(leaf)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out, torch.autograd.grad((out * weight).sum(), leaf)[0]


@OVER
def test_agrees_with_sentence_transformers(over):
    modules = importlib.import_module("sentence_transformers.sparse_encoder.modules")
    pool = modules.SpladePooling(pooling_strategy=over)
    tokens, mask = drawn()

    def theirs(x):
        features = {"token_embeddings": x * 1.0, "attention_mask": mask.long()}
        return pool(features)["sentence_embedding"]

    want = gradient(theirs, tokens)
    torch.testing.assert_close(gradient(lambda x: sparse_pool(x, mask, over=over), tokens), want)


@OVER
@given(seed=st.integers(0, 2**31), n=st.integers(0, 5))
def test_by_loops(over, seed, n):
    tokens, mask = drawn(seed, n=n)
    found = sparse_pool(tokens, mask, over=over)
    for b in range(4):
        for v in range(7):
            weights = [
                math.log1p(max(0.0, t)) for t, m in zip(tokens[b, :, v], mask[b], strict=True) if m
            ]
            want = sum(weights) if over == "sum" else max(weights, default=0.0)
            assert found[b, v].item() == pytest.approx(want, rel=1e-12, abs=1e-12)


@OVER
@given(seed=st.integers(0, 2**31))
def test_what_stands_in_padding_never_matters(over, seed):
    tokens, mask = drawn(seed)
    mask[0] = False
    junk = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])[torch.randint(4, tokens.shape)]
    dirty = torch.where(mask[..., None], tokens, junk.double())

    def pool(x):
        return sparse_pool(x, mask, over=over)

    for clean, other in zip(gradient(pool, tokens), gradient(pool, dirty), strict=True):
        assert torch.equal(clean, other)
    assert (gradient(pool, dirty)[1][~mask] == 0).all()
    assert (pool(dirty)[0] == 0).all()


def test_the_maximum_alone_keeps_nothing_of_the_size_of_the_logits():
    sizes = []
    tokens = torch.randn(3, 50, 40, requires_grad=True)
    mask = torch.rand(3, 50) > 0.3

    def keep(t):
        sizes.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        sparse_pool(tokens, mask)
    assert max(sizes) <= max(3 * 40, 3 * 50)


@OVER
def test_entries_below_zero_weigh_nothing_and_learn_nothing(over):
    out, grad = gradient(lambda x: sparse_pool(x, over=over), -torch.rand(2, 3, 4))
    assert (out == 0).all()
    assert (grad == 0).all()


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match="SparsePool: over must be one of max, sum, got 'mean'"):
        SparsePool("mean")
    with pytest.raises(ValueError, match="sparse_pool: over must be one of max, sum, got 'mean'"):
        sparse_pool(torch.ones(1, 2, 3), over="mean")
    with pytest.raises(TypeError, match="mask: expected bool"):
        sparse_pool(torch.ones(1, 2, 3), torch.ones(1, 2))
