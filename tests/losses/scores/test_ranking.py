"""BPR: the specification's numbers, torch's soft margin, and the penalty that goes with it."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_recommendation import CASES

from embedkit.losses.scores.ranking import BPRLoss, batch_l2_penalty, bpr_loss
from embedkit.testing import check_module

POSITIVE = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
NEGATIVE = torch.tensor([0.5, 3.0, -1.0], dtype=torch.float64)
seeds = st.integers(0, 2**31)


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def value_and_gradients(loss, *tensors):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = loss(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves)


def test_hand_numbers():
    assert bpr_loss(POSITIVE, NEGATIVE).item() == pytest.approx(0.826829, abs=5e-7)
    total = bpr_loss(POSITIVE, NEGATIVE, reduction="sum")
    assert total.item() == pytest.approx(2.480486, abs=5e-7)
    assert bpr_loss(POSITIVE, POSITIVE).item() == pytest.approx(math.log(2), abs=1e-12)


def test_hand_numbers_of_the_penalty():
    user, item = torch.tensor([[1.0, 2.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    assert batch_l2_penalty(user, item).item() == (1 + 4 + 4 + 9 + 1 + 1) / 4
    # d / dx of ||x||^2 / (2 b) is x / b.
    user = user.requires_grad_()
    batch_l2_penalty(user, item).backward()
    torch.testing.assert_close(user.grad, user.detach() / 2)


@given(seed=seeds, scale=st.sampled_from([1.0, 30.0, 1e3]))
def test_agrees_with_torchs_soft_margin_loss(seed, scale):
    positive, negative = scale * draw(seed, 6), scale * draw(seed + 1, 6)

    def oracle(p, n):
        return -F.logsigmoid(p - n).mean()

    torch.testing.assert_close(
        value_and_gradients(bpr_loss, positive, negative),
        value_and_gradients(oracle, positive, negative),
    )
    margin = F.soft_margin_loss(positive / scale - negative / scale, torch.ones(6).double())
    torch.testing.assert_close(bpr_loss(positive / scale, negative / scale), margin)


@pytest.mark.parametrize("gap", [21.0, 30.0, 60.0, -21.0, -60.0])
def test_every_digit_of_float64_is_right(gap):
    row = bpr_loss(torch.tensor([0.0]).double(), torch.tensor([gap]).double()).item()
    assert row == pytest.approx(max(gap, 0) + math.log1p(math.exp(-abs(gap))), rel=1e-15)


@given(seed=seeds, k=st.integers(1, 4))
def test_many_negatives_are_the_mean_of_one_each(seed, k):
    positive, negative = draw(seed, 5), draw(seed + 1, 5, k)
    rows = torch.stack([bpr_loss(positive, n, reduction="none") for n in negative.T]).mean(0)
    torch.testing.assert_close(bpr_loss(positive, negative, reduction="none"), rows)
    torch.testing.assert_close(bpr_loss(positive, negative), rows.mean())


@given(seed=seeds, shift=st.floats(-10, 10))
def test_only_differences_count(seed, shift):
    positive, negative = draw(seed, 5), draw(seed + 1, 5, 2)
    want = bpr_loss(positive, negative)
    torch.testing.assert_close(bpr_loss(positive + shift, negative + shift), want)
    order = torch.randperm(5)
    torch.testing.assert_close(bpr_loss(positive[order], negative[order]), want)


def test_weights_scale_and_do_not_normalise():
    weight = torch.tensor([2.0, 0.0, 1.0]).double()
    rows = bpr_loss(POSITIVE, NEGATIVE, reduction="none")
    torch.testing.assert_close(
        bpr_loss(POSITIVE, NEGATIVE, weight=weight), (rows * weight).sum() / 3
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_far_scores_are_finite_and_exact(dtype):
    positive = torch.tensor([-3e4, 3e4, 0.0], dtype=dtype, requires_grad=True)
    negative = torch.tensor([[3e4], [-3e4], [0.0]], dtype=dtype)
    value = bpr_loss(positive, negative, reduction="sum")
    value.backward()
    wide = negative.to(value.dtype)[0, 0]
    torch.testing.assert_close(value.detach(), 2 * wide + math.log(2))
    torch.testing.assert_close(positive.grad, torch.tensor([-1.0, 0.0, -0.5], dtype=dtype))
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert batch_l2_penalty(negative).isfinite()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0)])
def test_nothing_to_compare_is_no_loss(shape):
    positive, negative = (torch.rand(s, requires_grad=True) for s in (shape[:1], shape))
    value = bpr_loss(positive, negative) + batch_l2_penalty(positive[:0], negative[:0])
    value.backward()
    assert value == 0
    assert positive.grad.equal(torch.zeros(shape[:1]))
    assert bpr_loss(positive, negative, reduction="none").shape == shape[:1]


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_not_finite_is_not_silent(bad):
    assert not bpr_loss(torch.tensor([0.1, bad]), torch.rand(2)).isfinite()
    assert not batch_l2_penalty(torch.tensor([[0.1], [bad]])).isfinite()


@pytest.mark.parametrize("module", CASES, ids=lambda module: module.__name__)
def test_contract(module):
    build, inputs = CASES[module]
    check_module(build, inputs, exempt={"compile": "one at a time"})


@pytest.mark.compile
@pytest.mark.parametrize("module", CASES, ids=lambda module: module.__name__)
def test_contract_compiled(module):
    build, inputs = CASES[module]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "one at a time"))


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match=r"negative: expected 3 rows, got shape \(2, 1\). Each"):
        bpr_loss(POSITIVE, NEGATIVE[:2])
    with pytest.raises(ValueError, match=r"positive: expected 1 axes \(b\), got shape \(3, 1\)"):
        bpr_loss(POSITIVE[:, None], NEGATIVE)
    with pytest.raises(
        ValueError, match=r"negative: expected 2 axes \(b, k\), got shape \(3, 1, 1"
    ):
        bpr_loss(POSITIVE, NEGATIVE[:, None, None])
    with pytest.raises(TypeError, match=r"negative: expected a floating-point tensor, got torch.i"):
        bpr_loss(POSITIVE, NEGATIVE.long())
    with pytest.raises(ValueError, match=r"weight: expected shape \(3,\), one number >= 0 per row"):
        bpr_loss(POSITIVE, NEGATIVE, weight=POSITIVE[:2])
    with pytest.raises(ValueError, match=r"embeddings\[1\]: expected 3 rows, got shape \(2,\)"):
        batch_l2_penalty(POSITIVE, NEGATIVE[:2])
    with pytest.raises(TypeError, match=r"embeddings\[0\]: expected a floating-point tensor"):
        batch_l2_penalty(POSITIVE.long())


@pytest.mark.wording
def test_settings_teach():
    with pytest.raises(ValueError, match=r"BPRLoss: reduction must be one of mean, sum, none, got"):
        BPRLoss("median")
    with pytest.raises(ValueError, match=r"batch_l2_penalty: expected the vectors of a batch, got"):
        batch_l2_penalty()


def test_an_infinite_score_is_seen_though_it_wins():
    far = torch.full((2,), torch.inf)
    assert not bpr_loss(far, torch.zeros(2)).isfinite()
    assert not bpr_loss(torch.zeros(2), -far).isfinite()
