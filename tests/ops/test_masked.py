import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from torch.autograd import gradcheck

from embedkit.ops import accumulation_dtype, masked_mean, masked_softmax, zero_padding

SEEDS = st.integers(0, 2**31)
JUNK = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])


def junk(*shape):
    return JUNK[torch.randint(len(JUNK), shape)]


@given(seed=SEEDS, n=st.integers(1, 6))
def test_softmax_never_sees_padding(seed, n):
    torch.manual_seed(seed)
    scores, mask = torch.randn(3, n) * 10, torch.rand(3, n) > 0.4
    grads, weights = [], []
    for x in (scores, torch.where(mask, scores, junk(3, n))):
        leaf = x.clone().requires_grad_()
        weights.append(masked_softmax(leaf, mask))
        weights[-1].square().sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*weights)
    assert torch.equal(*grads)
    assert (weights[0][~mask] == 0).all()
    assert (grads[0][~mask] == 0).all()


@given(seed=SEEDS)
def test_softmax_agrees_with_scipy_on_the_real_entries(seed):
    torch.manual_seed(seed)
    scores, mask = torch.randn(4, 6).double() * 5, torch.rand(4, 6) > 0.4
    got = masked_softmax(scores, mask)
    for row, real, weights in zip(scores.numpy(), mask.numpy(), got.numpy(), strict=True):
        np.testing.assert_allclose(weights[real], softmax(row[real]), rtol=1e-12)


def test_softmax_without_a_mask_agrees_with_scipy():
    scores = torch.randn(4, 6).double()
    np.testing.assert_allclose(masked_softmax(scores), softmax(scores.numpy(), axis=-1))


@pytest.mark.parametrize("low", [-3e38, torch.finfo(torch.float32).min])
def test_softmax_of_very_low_real_scores_still_sums_to_one(low):
    weights = masked_softmax(torch.full((1, 3), low), torch.tensor([[True, True, False]]))
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 0.0]]))


def test_softmax_of_a_row_of_padding_is_zero_with_a_zero_gradient():
    scores = torch.full((1, 3), torch.nan, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        weights = masked_softmax(scores, torch.zeros(1, 3, dtype=torch.bool))
        weights.sum().backward()
    assert (weights == 0).all()
    assert (scores.grad == 0).all()


def test_softmax_lets_a_real_nan_through():
    scores = torch.tensor([[torch.nan, 1.0], [0.0, torch.nan]])
    weights = masked_softmax(scores, torch.tensor([[True, True], [True, False]]))
    assert weights[0].isnan().all()
    assert weights[1].tolist() == [1.0, 0.0]


def test_softmax_mask_broadcasts_over_leading_axes():
    scores, mask = torch.randn(2, 4, 5), torch.rand(2, 1, 5) > 0.3
    assert torch.equal(masked_softmax(scores, mask), masked_softmax(scores, mask.expand(2, 4, 5)))


def test_gradients_match_finite_differences():
    scores = torch.randn(3, 4).double().requires_grad_()
    tokens = torch.randn(3, 4, 2).double().requires_grad_()
    mask = torch.tensor([[True] * 4, [False, True, False, True], [False] * 4])
    assert gradcheck(lambda s: masked_softmax(s, mask), (scores,))
    assert gradcheck(lambda t: masked_mean(t, mask), (tokens,))


@given(seed=SEEDS, n=st.integers(1, 6))
def test_mean_agrees_with_numpy_masked_arrays(seed, n):
    torch.manual_seed(seed)
    tokens, mask = torch.randn(3, n, 2).double(), torch.rand(3, n) > 0.4
    hidden = np.broadcast_to(~mask.numpy()[..., None], tokens.shape)
    want = np.ma.array(tokens.numpy(), mask=hidden).mean(axis=1).filled(0.0)
    tokens[~mask] = junk(*tokens[~mask].shape).double()
    np.testing.assert_allclose(masked_mean(tokens, mask), want, rtol=1e-12, atol=1e-15)


def test_mean_of_any_leading_axes():
    tokens, mask = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4) > 0.4
    want = masked_mean(tokens.flatten(0, 1), mask.flatten(0, 1))
    torch.testing.assert_close(masked_mean(tokens, mask).flatten(0, 1), want)
    torch.testing.assert_close(masked_mean(tokens), tokens.mean(-2))
    assert masked_mean(tokens[0, 0], mask[0, 0]).shape == (5,)


def test_mean_without_tokens_is_zero():
    no_mask = torch.zeros(2, 0, dtype=torch.bool)
    for mask in (None, no_mask):
        assert torch.equal(masked_mean(torch.randn(2, 0, 3), mask), torch.zeros(2, 3))


def test_mean_of_half_precision_sums_in_float32():
    tokens = torch.full((1, 1000, 1), 60000.0, dtype=torch.float16)
    mask = torch.ones(1, 1000, dtype=torch.bool)
    for pooled in (masked_mean(tokens, mask), masked_mean(tokens)):
        assert pooled.dtype == torch.float16
        assert pooled.item() == 60000.0


def test_zero_padding_replaces_whatever_stands_there_and_stops_its_gradient():
    tokens, mask = junk(2, 3, 4).requires_grad_(), torch.zeros(2, 3, dtype=torch.bool)
    out = zero_padding(tokens, mask)
    out.sum().backward()
    assert (out == 0).all()
    assert (tokens.grad == 0).all()
    assert zero_padding(tokens, None) is tokens


@pytest.mark.parametrize(
    ("given_dtype", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_accumulation_dtype(given_dtype, wide):
    assert accumulation_dtype(given_dtype) == wide
