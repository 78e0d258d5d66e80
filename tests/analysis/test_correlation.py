"""Pearson, Spearman and Kendall against SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from embedkit.analysis.correlation import kendall, pearson, spearman

MEASURES = [
    (pearson, stats.pearsonr),
    (spearman, stats.spearmanr),
    (kendall, stats.kendalltau),
]
measures = pytest.mark.parametrize(("measure", "oracle"), MEASURES)
every_measure = pytest.mark.parametrize("measure", [measure for measure, _ in MEASURES])


def varied(x):
    return (x != x[0]).any()


lists = st.integers(2, 20).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.int64, n, elements=st.integers(-3, 3)).filter(varied)] * 2)
)


@measures
@given(sides=lists)
def test_agrees_with_scipy_under_ties(measure, oracle, sides):
    x, y = sides
    got = measure(torch.tensor(x), torch.tensor(y))
    assert got == pytest.approx(oracle(x, y).statistic, abs=1e-12)


@measures
@pytest.mark.parametrize("n", [2, 3, 63, 64, 65, 1000])
def test_agrees_with_scipy_without_ties(measure, oracle, n):
    x = torch.randn(n, dtype=torch.float64)
    y = x + torch.randn(n, dtype=torch.float64)
    assert measure(x, y) == pytest.approx(oracle(x.numpy(), y.numpy()).statistic, abs=1e-12)
    assert measure(x, y) == measure(y, x)
    assert measure(x, -y) == pytest.approx(-measure(x, y), abs=1e-12)


@every_measure
def test_bounds(measure):
    x = torch.randn(50)
    assert measure(x, x) == pytest.approx(1)
    assert measure(x, -x) == pytest.approx(-1)
    assert measure(1e30 * x, 1e-30 * x.double()) == pytest.approx(1)


@every_measure
@pytest.mark.parametrize("n", [0, 1, 5])
def test_no_spread_is_no_correlation(measure, n):
    assert measure(torch.full((n,), 0.3), torch.rand(n)) == 0.0
    assert measure(torch.rand(n), torch.zeros(n, dtype=torch.bool)) == 0.0


def test_orders_ignore_increasing_maps():
    x, y = torch.rand(30), torch.rand(30)
    for measure in (spearman, kendall):
        assert measure(x.exp(), y) == measure(x, y)


@every_measure
@pytest.mark.wording
def test_errors_teach(measure):
    name = measure.__name__
    with pytest.raises(ValueError, match=r"equal shapes, got pred \(3,\), target \(2,\)"):
        measure(torch.rand(3), torch.rand(2))
    with pytest.raises(ValueError, match="pred: expected 1 axes"):
        measure(torch.rand(3, 1), torch.rand(3, 1))
    with pytest.raises(ValueError, match=f"{name}: target must be finite, got NaN or infinity in"):
        measure(torch.rand(2), torch.tensor([1.0, torch.nan]))
    with pytest.raises(TypeError, match=r"pred: expected real numbers, got torch.complex64"):
        measure(torch.rand(2).to(torch.complex64), torch.rand(2))
