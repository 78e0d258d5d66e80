"""VICReg and Barlow Twins: pytorch-metric-learning, loops, few rows, dead features."""

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses.redundancy import BarlowTwinsLoss, VICRegLoss, barlow_twins, vicreg

BOTH = pytest.mark.parametrize("loss", [vicreg, barlow_twins])


def drawn(rows=9, dim=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator, dtype=dtype)
    y = x + torch.randn(rows, dim, generator=generator, dtype=dtype)
    return x.requires_grad_(), (0.7 * y + 0.3).requires_grad_()


def columns(view):
    """Features as lists of numbers with mean 0."""
    for column in view.T.tolist():
        mean = sum(column) / len(column)
        yield [value - mean for value in column]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_vicreg_agrees_with_pytorch_metric_learning(dtype, tolerance):
    losses = importlib.import_module("pytorch_metric_learning.losses")
    x, y = drawn(dtype=dtype)
    theirs = losses.VICRegLoss(invariance_lambda=20, variance_mu=15, covariance_v=2)
    want = theirs(x, ref_emb=y)
    got = vicreg(x, y, invariance_weight=20.0, variance_weight=15.0, covariance_weight=2.0)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        torch.autograd.grad(got, [x, y]),
        torch.autograd.grad(want, [x, y]),
        rtol=10 * tolerance,
        atol=10 * tolerance,
    )


@given(seed=st.integers(0, 2**31), rows=st.integers(2, 8), dim=st.integers(1, 4))
def test_vicreg_by_loops(seed, rows, dim):
    x, y = drawn(rows, dim, seed=seed)
    near = sum(
        (a - b) ** 2 for a, b in zip(x.flatten().tolist(), y.flatten().tolist(), strict=True)
    )
    spread = overlap = 0.0
    for view in (x, y):
        features = list(columns(view))
        for i, a in enumerate(features):
            spread += max(0.0, 1 - math.sqrt(dot(a, a) / (rows - 1) + 1e-4)) / (2 * dim)
            for j, b in enumerate(features):
                overlap += (dot(a, b) / (rows - 1)) ** 2 / dim if i != j else 0.0
    want = 25 * near / (rows * dim) + 25 * spread + overlap
    assert abs(vicreg(x, y).item() - want) < 1e-9 * max(want, 1)


@given(seed=st.integers(0, 2**31), rows=st.integers(2, 8), dim=st.integers(1, 4))
def test_barlow_twins_by_loops(seed, rows, dim):
    x, y = drawn(rows, dim, seed=seed)
    want = 0.0
    for i, a in enumerate(columns(x)):
        for j, b in enumerate(columns(y)):
            correlation = dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
            want += (1 - correlation) ** 2 if i == j else 0.1 * correlation**2
    assert abs(barlow_twins(x, y, redundancy_weight=0.1).item() - want) < 1e-9


def test_barlow_twins_agrees_with_numpy_and_batch_normalisation():
    x, y = drawn()
    numpy = importlib.import_module("numpy")
    matrix = torch.from_numpy(numpy.corrcoef(x.detach(), y.detach(), rowvar=False)[:4, 4:])

    def loss_of(c):
        return (1 - c.diagonal()).square().sum() + 5e-3 * (c - c.diagonal().diag()).square().sum()

    torch.testing.assert_close(barlow_twins(x, y), loss_of(matrix), rtol=1e-9, atol=1e-9)
    norm = torch.nn.BatchNorm1d(4, affine=False, eps=1e-14).double()
    want = loss_of(norm(x).T @ norm(y) / 9)
    torch.testing.assert_close(
        torch.autograd.grad(barlow_twins(x, y), [x, y]), torch.autograd.grad(want, [x, y])
    )


def test_hand_numbers():
    x = torch.tensor([[1.0, 1], [-1, -1]], dtype=torch.float64)  # both features are the same
    spread = 0.0  # deviation sqrt(2) > 1
    assert abs(vicreg(x, x).item() - (25 * spread + 2 * (2 * 2**2) / 2)) < 1e-12
    assert abs(barlow_twins(x, x).item() - 5e-3 * 2) < 1e-12
    assert abs(barlow_twins(x, -x).item() - (2 * 2**2 + 5e-3 * 2)) < 1e-12


@given(seed=st.integers(0, 2**31))
def test_barlow_twins_does_not_see_scale_and_offset_of_features(seed):
    x, y = drawn(seed=seed)
    scale = torch.tensor([1e-3, 2.0, 30.0, 1e4]).double()
    torch.testing.assert_close(
        barlow_twins(x * scale + 5.0, y), barlow_twins(x, y), rtol=1e-6, atol=1e-6
    )


@BOTH
def test_views_may_change_places_and_rows_their_order(loss):
    x, y = drawn()
    order = torch.randperm(9)
    torch.testing.assert_close(loss(y[order], x[order]), loss(x, y))


@BOTH
@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_few_rows_and_dead_features_are_finite(loss, rows, dtype):
    x, y = drawn(rows)
    x, y = (v.detach().to(dtype) for v in (x, y))
    x[:, 1] = 0.25
    x.requires_grad_()
    y.requires_grad_()
    value = loss(x, y)
    grads = torch.autograd.grad(value, [x, y])
    assert value.isfinite()
    assert all(g.isfinite().all() for g in grads)
    if rows == 0 or (rows == 1 and loss is barlow_twins):
        assert value == 0
    if rows == 1 and loss is vicreg:
        torch.testing.assert_close(value, 25 * (x.to(value) - y.to(value)).square().mean())


@BOTH
def test_non_finite_input_gives_a_non_finite_loss(loss):
    for rows in (1, 5):
        x, y = drawn(rows)
        bad = x.detach().clone()
        bad[0, 0] = math.nan
        assert not loss(bad, y).isfinite()
        assert not loss(y, bad).isfinite()


@BOTH
def test_autocast_leaves_the_statistics_wide(loss):
    x, y = drawn(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(x, y)
    torch.testing.assert_close(low, loss(x, y))


@BOTH
def test_second_derivatives(loss):
    assert torch.autograd.gradgradcheck(loss, drawn(4, 3))


def test_errors_teach():
    with pytest.raises(ValueError, match="VICRegLoss: eps must be > 0, got 0"):
        VICRegLoss(eps=0.0)


@pytest.mark.wording
def test_errors_about_shapes_teach():
    x, y = drawn()
    with pytest.raises(ValueError, match=r"first and second: expected equal shapes, got first \(9"):
        BarlowTwinsLoss()(x, y[:4])
    with pytest.raises(TypeError, match=r"first: expected a floating-point tensor, got torch.int"):
        VICRegLoss()(x.long(), y)
    with pytest.raises(ValueError, match=r"first: expected 2 axes \(b, d\)"):
        vicreg(x[0], y[0])
