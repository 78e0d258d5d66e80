import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.pooling import first_token_pool, last_token_pool, max_pool, mean_pool

SEEDS = st.integers(0, 2**31)


def some_tokens(seed, n):
    torch.manual_seed(seed)
    return torch.randn(4, n, 3).double(), torch.rand(4, n) > 0.5


@given(seed=SEEDS, n=st.integers(1, 6))
@pytest.mark.parametrize(("pool", "name"), [(mean_pool, "mean"), (max_pool, "max")])
def test_agrees_with_numpy_masked_arrays(pool, name, seed, n):
    tokens, mask = some_tokens(seed, n)
    hidden = np.broadcast_to(~mask.numpy()[..., None], tokens.shape)
    want = getattr(np.ma.array(tokens.numpy(), mask=hidden), name)(axis=1).filled(0.0)
    np.testing.assert_allclose(pool(tokens, mask), want, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(pool(tokens), getattr(tokens.numpy(), name)(axis=1), rtol=1e-12)


@given(seed=SEEDS, n=st.integers(1, 6))
def test_first_and_last_agree_with_numpy_indexing_for_any_mask(seed, n):
    tokens, mask = some_tokens(seed, n)
    mask[:, 0] |= ~mask.any(1)  # rows of padding only have a test of their own
    rows = [row[real] for row, real in zip(tokens.numpy(), mask.numpy(), strict=True)]
    np.testing.assert_array_equal(first_token_pool(tokens, mask), [row[0] for row in rows])
    np.testing.assert_array_equal(last_token_pool(tokens, mask), [row[-1] for row in rows])
    np.testing.assert_array_equal(first_token_pool(tokens), tokens[:, 0])
    np.testing.assert_array_equal(last_token_pool(tokens), tokens[:, -1])


@given(seed=SEEDS)
def test_reversing_time_exchanges_first_and_last(seed):
    tokens, mask = some_tokens(seed, 5)
    assert torch.equal(
        first_token_pool(tokens, mask), last_token_pool(tokens.flip(1), mask.flip(1))
    )


@pytest.mark.parametrize(
    ("mask", "first", "last"),
    [
        ([1, 1, 1, 0], 0, 2),  # right padding
        ([0, 1, 1, 1], 1, 3),  # left padding
        ([0, 1, 0, 1], 1, 3),  # a hole
        ([0, 0, 1, 0], 2, 2),  # one token
    ],
)
def test_first_and_last_are_found_from_the_mask(mask, first, last):
    tokens, mask = torch.arange(4.0).reshape(1, 4, 1), torch.tensor([mask]).bool()
    assert first_token_pool(tokens, mask).item() == first
    assert last_token_pool(tokens, mask).item() == last


def test_the_gradient_goes_to_the_token_that_was_taken_and_nowhere_else():
    mask = torch.tensor([[False, True, True, False]])
    for pool, position in ((first_token_pool, 1), (last_token_pool, 2)):
        tokens = torch.randn(1, 4, 3, requires_grad=True)
        pool(tokens, mask).sum().backward()
        want = torch.zeros(1, 4, 3)
        want[:, position] = 1
        assert torch.equal(tokens.grad, want)


def test_tokens_that_tie_for_the_maximum_share_the_gradient():
    tokens = torch.tensor([[[2.0], [2.0], [1.0], [2.0]]], requires_grad=True)
    max_pool(tokens, torch.tensor([[True, True, True, False]])).sum().backward()
    assert tokens.grad.flatten().tolist() == [0.5, 0.5, 0.0, 0.0]


def test_a_maximum_below_zero_is_not_raised_to_zero():
    tokens, mask = torch.full((1, 2, 1), -3.0), torch.tensor([[True, False]])
    assert max_pool(tokens, mask).item() == -3.0
