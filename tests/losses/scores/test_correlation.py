"""Pearson and rank KL, and what all losses on lists of scores promise."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_order import CASES
from scipy import stats

from embedkit.losses.scores.correlation import PearsonLoss, RankKLLoss, pearson_loss, rank_kl_loss
from embedkit.losses.scores.ordering import CoSENTLoss, cosent_loss
from embedkit.losses.scores.preference import PROLoss, pro_loss
from embedkit.testing import check_module

PRED = torch.tensor([0.9, 0.2, 0.5, 0.4], dtype=torch.float64)
TARGET = torch.tensor([5, 1, 3, 3])
LOSSES = [pearson_loss, rank_kl_loss, cosent_loss, pro_loss]
every_loss = pytest.mark.parametrize("loss", LOSSES)
seeds = st.integers(0, 2**31)


def some_list(seed, n=12, levels=5):
    torch.manual_seed(seed)
    pred = torch.rand(n, dtype=torch.float64)
    return pred, torch.randint(0, levels, (n,)).double() / (levels - 1)


def value_and_gradient(loss, pred, target, **settings):
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, target, **settings)
    value.backward()
    return value.detach(), pred.grad


# What the spec computed by hand.


def test_hand_numbers():
    for got, want in [
        (pearson_loss(PRED, TARGET), 0.029275),
        (rank_kl_loss(PRED, TARGET), 0.000200),
        (rank_kl_loss(PRED, TARGET, temperature=0.5), 0.015308),
        (rank_kl_loss(PRED, TARGET, temperature=0.5, reduction="mean"), 0.003827),
    ]:
        assert got.item() == pytest.approx(want, abs=5e-7)


# Other people's code.


@given(seed=seeds)
def test_pearson_agrees_with_scipy(seed):
    pred, target = some_list(seed)
    want = 1 - stats.pearsonr(pred.numpy(), target.numpy()).statistic
    assert pearson_loss(pred, target).item() == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_rank_kl_agrees_with_kl_div_of_scipy_ranks(reduction):
    pred, target = some_list(1)
    ranks = torch.tensor(stats.rankdata(-target.numpy(), method="average")) - 1
    ideal = (11 - ranks) / 11

    def oracle(x, _):
        wanted = (ideal / 0.2).softmax(0)
        return F.kl_div((x / 0.2).log_softmax(0), wanted, reduction="sum") / (
            12 if reduction == "mean" else 1
        )

    def ours(x, y):
        return rank_kl_loss(x, y, temperature=0.2, reduction=reduction)

    torch.testing.assert_close(
        value_and_gradient(ours, pred, target), value_and_gradient(oracle, pred, target)
    )


# What must not matter.


@given(seed=seeds, scale=st.floats(0.1, 1e6), shift=st.floats(-10, 10))
def test_pearson_ignores_scale_and_offset_of_both(seed, scale, shift):
    pred, target = some_list(seed)
    want = pearson_loss(pred, target)
    torch.testing.assert_close(pearson_loss(scale * pred + shift, target), want)
    torch.testing.assert_close(pearson_loss(pred, scale * target + shift), want)
    torch.testing.assert_close(pearson_loss(-pred, target), 2 - want)


def test_pearson_has_its_bounds():
    pred = torch.rand(20, dtype=torch.float64)
    for factor, want in ((3, 0.0), (-3, 2.0)):
        assert pearson_loss(pred, factor * pred + 1).item() == pytest.approx(want, abs=1e-12)


@given(seed=seeds, shift=st.floats(-5, 5))
def test_orders_ignore_increasing_maps_of_targets_and_shifts_of_predictions(seed, shift):
    pred, target = some_list(seed)
    for loss in (rank_kl_loss, cosent_loss):
        want = loss(pred, target)
        torch.testing.assert_close(loss(pred, target.exp() * 7), want)
        torch.testing.assert_close(loss(pred + shift, target), want)


@every_loss
@given(seed=seeds)
def test_order_of_rows_changes_nothing(loss, seed):
    pred, target = some_list(seed)
    order = torch.randperm(12)
    torch.testing.assert_close(loss(pred[order], target[order]), loss(pred, target))


def test_a_perfect_list_has_no_rank_divergence():
    value, gradient = value_and_gradient(
        rank_kl_loss, torch.arange(5).double() / 4, torch.arange(5)
    )
    assert value.abs() < 1e-12
    assert gradient.abs().max() < 1e-12


# What must stay finite.


@every_loss
@pytest.mark.parametrize("n", [0, 1, 6])
@pytest.mark.parametrize("fill", [0.3, 0.1, -7.0])
def test_equal_targets_give_zero_and_no_gradient(loss, n, fill):
    value, gradient = value_and_gradient(loss, torch.rand(n), torch.full((n,), fill))
    assert value == 0
    assert gradient.equal(torch.zeros(n))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_equal_predictions_have_a_finite_gradient_that_drives_them_apart(loss, dtype):
    pred, target = torch.full((8,), 0.9, dtype=dtype), torch.arange(8) / 7
    value, gradient = value_and_gradient(loss, pred, target)
    assert value > 0
    assert gradient.isfinite().all()
    assert gradient[0] > gradient[-1]


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    pred, target = some_list(3)
    value, gradient = value_and_gradient(loss, pred.to(dtype), target)
    want, _ = value_and_gradient(loss, pred.to(dtype).float(), target)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value.equal(want)


@pytest.mark.parametrize("loss", [rank_kl_loss, cosent_loss, pro_loss])
@pytest.mark.parametrize("temperature", [1e-3, 1e4])
def test_extreme_temperatures_stay_finite(loss, temperature):
    pred, target = some_list(0)
    pred = 2 * pred.float() - 1
    for x in value_and_gradient(loss, pred, target, temperature=temperature):
        assert x.isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e15, 1e30])
def test_pearson_of_any_scale_stays_finite(scale):
    pred, target = some_list(0)
    value, gradient = value_and_gradient(pearson_loss, pred.float() * scale, target)
    assert 0 <= value <= 2
    assert gradient.isfinite().all()
    other = pearson_loss(pred.float(), target.float() * scale)
    torch.testing.assert_close(other, pearson_loss(pred.float(), target.float()))


@every_loss
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_silent(loss, bad):
    spoiled = torch.tensor([0.1, bad, 0.5])
    assert not loss(spoiled, torch.arange(3)).isfinite()
    assert not loss(torch.rand(3), spoiled).isfinite()
    assert not loss(spoiled, torch.ones(3)).isfinite()


@every_loss
def test_targets_are_constants_of_any_dtype(loss):
    pred, target = some_list(5, levels=2)
    learned = target.double().requires_grad_()
    value = loss(pred.requires_grad_(), learned)
    value.backward()
    assert learned.grad is None
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16):
        torch.testing.assert_close(loss(pred, target.to(dtype)), value)


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


# What the user reads.


@pytest.mark.wording
@every_loss
def test_wrong_shapes_and_dtypes_teach(loss):
    with pytest.raises(ValueError, match=r"got pred \(3,\), target \(2,\). One wanted score per"):
        loss(torch.rand(3), torch.rand(2))
    with pytest.raises(ValueError, match=r"pred: expected 1 axes \(n\), got shape \(3, 1\)"):
        loss(torch.rand(3, 1), torch.rand(3, 1))
    with pytest.raises(TypeError, match=r"pred: expected a floating-point tensor, got torch.int64"):
        loss(torch.arange(3), torch.rand(3))


@pytest.mark.wording
def test_wrong_settings_teach():
    with pytest.raises(ValueError, match=r"PearsonLoss: eps must be > 0, got 0. It is the least"):
        PearsonLoss(eps=0)
    for module in (RankKLLoss, CoSENTLoss, PROLoss):
        with pytest.raises(ValueError, match=f"{module.__name__}: temperature must be > 0, got -1"):
            module(temperature=-1)
    for loss in (rank_kl_loss, cosent_loss, pro_loss):
        with pytest.raises(ValueError, match=r"divides the predicted scores; try 0.05"):
            loss(torch.rand(2), torch.rand(2), temperature=0.0)
    with pytest.raises(ValueError, match="RankKLLoss: reduction must be one of sum, mean, got 'no"):
        RankKLLoss(reduction="none")
