"""Projection, reweighting and symmetric ReLU."""

import copy

import pytest
import torch
import torch.nn.functional as F
from heads.cases_projection import CASES
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.heads.projection import (
    ProjectionHead,
    ReweightingHead,
    SymmetricReLU,
    symmetric_relu,
)
from embedkit.testing import check_module

CHECKED = "state_dict copies gradients autocast empty_batch moves seed"
seeds = st.integers(0, 2**31)


def normalised():
    return ProjectionHead(6, 3, 5, batch_norm=True)


def wide_rows(b):
    return (4 * torch.randn(b, 6, generator=torch.Generator().manual_seed(1)),)


BUILDS = [*CASES.values(), (normalised, wide_rows)]
NAMES = [*(module.__name__ for module in CASES), "batch_norm"]


# Projection head.


@pytest.mark.parametrize("training", [True, False])
def test_the_heads_of_simclr_are_these_layers(training):
    simclr = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 128))
    second = nn.Sequential(
        *(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU()),
        *(nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU()),
        nn.Linear(5, 3),
    )
    for head, layers in (
        (ProjectionHead(6), simclr),
        (ProjectionHead(6, 3, 5, num_layers=3, batch_norm=True), second),
        (ProjectionHead(6, 4, num_layers=1), nn.Sequential(nn.Linear(6, 4))),
    ):
        layers.load_state_dict(head.layers.state_dict(), strict=True)
        x = torch.randn(7, 6)
        for _ in range(2):
            torch.testing.assert_close(head.train(training)(x), layers.train(training)(x))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_leading_axes_are_rows(batch_norm):
    head, twin = (ProjectionHead(6, 3, batch_norm=batch_norm) for _ in range(2))
    twin.load_state_dict(head.state_dict())
    x = torch.randn(2, 4, 6)
    torch.testing.assert_close(head(x), twin(x.reshape(8, 6)).reshape(2, 4, 3))
    assert head(x[0, 0]).shape == (3,)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_use_running_statistics_and_leave_them(rows):
    head = normalised()
    for _ in range(3):
        head(2 + torch.randn(8, 6))
    before = copy.deepcopy(head.state_dict())
    x = torch.randn(rows, 6, requires_grad=True)
    got = head(x)
    got.sum().backward()
    torch.testing.assert_close(head.state_dict(), before)
    torch.testing.assert_close(got, head.eval()(x))
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_of_the_rows_is_kept(dtype):
    x = torch.randn(5, 6)
    for build, _ in BUILDS:
        got = build()(x.to(dtype))
        assert got.dtype == dtype
        assert got.isfinite().all()


def test_reset_parameters_draws_anew():
    head = normalised()
    before = copy.deepcopy(head.state_dict())
    torch.manual_seed(5)
    head.reset_parameters()
    assert not head.state_dict()["layers.0.weight"].equal(before["layers.0.weight"])


# Reweighting head.


def test_weights_by_hand():
    assert ReweightingHead(4, kappa=2)(torch.ones(4)).tolist() == [1, 0.5, 0.25, 0.125]
    clamped = ReweightingHead(4, kappa=2, min_weight=0.2)
    assert clamped(torch.full((2, 4), 10.0))[1].tolist() == [10, 5, 2.5, 2]


@given(seed=seeds, kappa=st.floats(1, 3), dim=st.integers(1, 12))
def test_reweighting_is_linear_invertible_and_scales_gradients(seed, kappa, dim):
    torch.manual_seed(seed)
    head = ReweightingHead(dim, kappa)
    x, y = torch.randn(2, 5, dim, dtype=torch.float64)
    weight = torch.tensor([kappa**-i for i in range(dim)], dtype=torch.float64)
    torch.testing.assert_close(head(x) / weight, x, rtol=1e-6, atol=0)
    torch.testing.assert_close(head(2 * x - y), 2 * head(x) - head(y))
    gradient = torch.autograd.grad(head(x.requires_grad_()).sum(), x)[0]
    torch.testing.assert_close(gradient, weight.expand(5, dim), rtol=1e-6, atol=0)


def test_kappa_of_one_changes_nothing():
    x = torch.randn(3, 8)
    assert ReweightingHead(8, kappa=1)(x).equal(x)


def test_state_holds_the_weights_and_no_parameter():
    head, other = ReweightingHead(4, kappa=2), ReweightingHead(4, kappa=3)
    assert list(head.parameters()) == []
    assert list(head.state_dict()) == ["weight"]
    other.load_state_dict(head.state_dict())
    assert other(torch.ones(4)).equal(head(torch.ones(4)))


def test_steep_weights_warn_unless_clamped_and_stay_finite():
    with pytest.warns(UserWarning, match=r"kappa=10 gives all but the first 7 of 5000 coordi.*"):
        head = ReweightingHead(5000, kappa=10)
    assert head.weight[:7].tolist() == pytest.approx([10.0**-i for i in range(7)])
    assert head(torch.ones(5000, dtype=torch.float16)).isfinite().all()
    assert ReweightingHead(5000, kappa=1e30, min_weight=1e-3).weight[-1].item() == pytest.approx(
        1e-3
    )
    ReweightingHead(1, kappa=1e300)
    ReweightingHead(101, kappa=10 ** (6 / 101))


# Symmetric ReLU.


@given(seed=seeds, threshold=st.floats(0, 2))
def test_symmetric_relu_agrees_with_softshrink(seed, threshold):
    x = torch.randn(40, generator=torch.Generator().manual_seed(seed)).double()
    got = SymmetricReLU(threshold).double()(x)
    torch.testing.assert_close(got, F.softshrink(x, torch.tensor(threshold).item()))
    torch.testing.assert_close(got.abs(), (x.abs() - threshold).clamp(min=0), rtol=1e-6, atol=1e-6)


@given(seed=seeds, threshold=st.floats(-2, 2))
def test_symmetric_relu_is_odd_whatever_was_learned(seed, threshold):
    x = torch.randn(40, generator=torch.Generator().manual_seed(seed)).double()
    threshold = torch.tensor(threshold).double()
    assert symmetric_relu(-x, threshold).equal(-symmetric_relu(x, threshold))


def test_the_threshold_learns_from_what_passes():
    x, layer = torch.tensor([3.0, -2.0, 0.2, 5.0]), SymmetricReLU(0.5)
    layer(x).sum().backward()
    assert layer.threshold.grad.item() == -1 + 1 - 1  # minus the sign of each entry that passes
    below = symmetric_relu(torch.tensor([0.1, 3.0, -3.0]), torch.tensor(-0.5))
    torch.testing.assert_close(below, torch.tensor([0.2, 3.5, -3.5]))


def test_the_gradient_of_the_threshold_is_summed_in_float32():
    layer = SymmetricReLU(0.5)
    layer(torch.ones(70_000, dtype=torch.float16)).backward(torch.ones(70_000).half())
    assert layer.threshold.grad.item() == -70_000


def test_a_head_may_start_as_the_identity():
    head = nn.Sequential(nn.Linear(6, 6), SymmetricReLU(), nn.Linear(6, 6))
    for layer in (head[0], head[2]):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    x = torch.randn(5, 6)
    assert head(x).equal(x)
    assert SymmetricReLU()(x).equal(x)


# What all promise.


@pytest.mark.parametrize(("build", "inputs"), BUILDS, ids=NAMES)
def test_contract(build, inputs):
    check_module(build, inputs, exempt={"compile": "one at a time"})


@pytest.mark.compile
@pytest.mark.parametrize(("build", "inputs"), BUILDS, ids=NAMES)
def test_contract_compiled(build, inputs):
    check_module(build, inputs, exempt=dict.fromkeys(CHECKED.split(), "one at a time"))


@pytest.mark.wording
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ProjectionHead(0), ValueError, "ProjectionHead: in_features must be >= 1, got 0"),
        (lambda: ProjectionHead(4, num_layers=0), ValueError, "num_layers must be >= 1, got 0"),
        (lambda: ProjectionHead(4, hidden_features=0), ValueError, "hidden_features must be >= 1"),
        (
            lambda: ProjectionHead(4)(torch.rand(2, 3)),
            ValueError,
            r"x: expected last axis of size 4, got shape \(2, 3\). A head fits one width",
        ),
        (lambda: ProjectionHead(4)(torch.ones(2, 4).long()), TypeError, "x: expected a floating"),
        (
            lambda: ReweightingHead(65, kappa=0.5),
            ValueError,
            "ReweightingHead: kappa must be >= 1, got 0.5. Each .* try 1.075, with which the last "
            "of 65 counts 1 / 100",
        ),
        (lambda: ReweightingHead(4, kappa=-1), ValueError, "kappa must be >= 1, got -1"),
        (lambda: ReweightingHead(4, kappa=torch.nan), ValueError, "kappa must be >= 1, got nan"),
        (
            lambda: ReweightingHead(4, 2, min_weight=2),
            ValueError,
            r"min_weight must be in \[0, 1\], got 2. It is the least",
        ),
        (lambda: ReweightingHead(4, 2)(torch.rand(2, 3)), ValueError, "x: expected last axis of"),
        (lambda: SymmetricReLU(-1), ValueError, "init_threshold must be >= 0, got -1. Entries"),
        (lambda: SymmetricReLU()(torch.arange(3)), TypeError, "x: expected a floating"),
    ],
)
def test_errors_teach(call, error, words):
    with pytest.raises(error, match=words):
        call()
