"""Counts of dimensions from singular values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.spectrum import (
    effective_rank,
    participation_ratio,
    rankme,
    spectrum,
    stable_rank,
)

COUNTS = [effective_rank, rankme, participation_ratio, stable_rank]
every_count = pytest.mark.parametrize("count", COUNTS)
STEPS = torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0]))


def some_rows(seed, shape=(8, 5)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).double()


def test_hand_numbers():
    assert effective_rank(STEPS) == pytest.approx(3.363586, abs=5e-7)
    assert effective_rank(STEPS.square()) == pytest.approx(2.276322, abs=5e-7)
    assert rankme(STEPS) == pytest.approx(3.363586, abs=5e-6)
    assert participation_ratio(STEPS) == pytest.approx(1.766423, abs=5e-7)
    assert stable_rank(STEPS) == pytest.approx(1.375)


@pytest.mark.parametrize("shape", [(20, 6), (6, 20), (1, 4), (4, 1)])
def test_counts_agree_with_numpy(shape):
    x = some_rows(0, shape) @ torch.diag(torch.logspace(0, -3, shape[1]).double()) + 0.1
    s = np.linalg.svd(x.numpy(), compute_uv=False)
    p = s / s.sum()
    np.testing.assert_allclose(spectrum(x).numpy(), s, rtol=1e-10)
    assert effective_rank(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-10)
    shifted = p + 1e-3
    want = np.exp(-(shifted * np.log(shifted)).sum())
    assert rankme(x, eps=1e-3) == pytest.approx(want, rel=1e-10)
    assert participation_ratio(x) == pytest.approx((s**2).sum() ** 2 / (s**4).sum(), rel=1e-10)
    assert stable_rank(x) == pytest.approx((s**2).sum() / (s**2).max(), rel=1e-10)


@every_count
def test_flat_spectra_count_all_and_one_line_counts_one(count):
    flat = torch.linalg.qr(some_rows(1, (9, 7))).Q
    assert count(flat) == pytest.approx(7, rel=1e-4)
    assert count(torch.ones(7, 3)) == pytest.approx(1, rel=1e-4)
    assert count(torch.randn(1, 3)) == pytest.approx(1, rel=1e-4)


@every_count
@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 30))
def test_counts_ignore_scale_rotation_and_order(count, seed, exponent):
    x = some_rows(seed)
    turn = torch.linalg.qr(some_rows(seed + 1, (5, 5))).Q
    want = count(x)
    assert count(x @ turn * 10.0**exponent) == pytest.approx(want)
    assert count(x.flip(0)) == pytest.approx(want)
    assert count(x.float() * 10.0**exponent) == pytest.approx(want, rel=1e-5)
    assert 1 <= want <= 5.0001


@given(seed=st.integers(0, 2**31))
def test_the_more_cautious_count_is_never_above(seed):
    x = some_rows(seed) @ torch.diag(torch.logspace(0, -2, 5).double())
    assert stable_rank(x) <= participation_ratio(x) + 1e-12 or stable_rank(x) <= effective_rank(x)
    assert participation_ratio(x) <= effective_rank(x) + 1e-12
    assert effective_rank(x) <= torch.linalg.matrix_rank(x) + 1e-12


def test_centring_is_left_to_the_caller():
    x = some_rows(0, (50, 4)) + 100
    assert effective_rank(x) < 1.1
    assert effective_rank(x - x.mean(0)) > 3
    squares = spectrum(x - x.mean(0)).square() / 49
    torch.testing.assert_close(squares, torch.linalg.eigvalsh(x.T.cov()).flip(0))


@every_count
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (4, 3)])
def test_nothing_and_zeros_give_zero(count, shape):
    assert count(torch.zeros(shape)) == 0.0
    assert spectrum(torch.zeros(shape)).tolist() == [0.0] * min(shape)


@every_count
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_any_floating_dtype_is_computed_in_float64(count, dtype):
    x = torch.randn(6, 3).to(dtype)
    got = count(x)
    assert type(got) is float
    assert got == pytest.approx(count(x.double()), rel=1e-12)
    assert spectrum(x).dtype == torch.float64


@pytest.mark.parametrize("scale", [1e300, 1e-300, 5e-324])
def test_extreme_scales_are_finite(scale):
    x = scale * torch.eye(3, dtype=torch.float64)
    assert spectrum(x).tolist() == pytest.approx([scale] * 3)
    assert all(count(x) == pytest.approx(3, rel=1e-4) for count in COUNTS)


@pytest.mark.wording
@pytest.mark.parametrize("count", [*COUNTS, spectrum])
def test_bad_arguments_are_explained(count):
    name = count.__name__
    with pytest.raises(
        ValueError, match=f"{name}: x must be finite, got NaN or infinity in 1 of 1"
    ):
        count(torch.tensor([[torch.nan]]))
    with pytest.raises(TypeError, match="x: expected a floating-point tensor"):
        count(torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"x: expected 2 axes \(n, d\), got shape \(3,\)"):
        count(torch.ones(3))
    with pytest.raises(ValueError, match="rankme: eps must be > 0, got 0"):
        rankme(torch.ones(2, 2), eps=0)
