"""The proxy A-distance where theory knows it."""

import sys

import pytest
import torch

from embedkit.analysis.domains.proxy_distance import proxy_a_distance


def test_one_distribution_is_near_zero():
    values = [proxy_a_distance(*torch.randn(2, 500, 5), costs=(0.01, 1.0)) for _ in range(4)]
    assert all(0 <= value < 0.3 for value in values)


def test_apart_is_two():
    x = torch.randn(40, 2, requires_grad=True)
    assert proxy_a_distance(x, x + 20) == 2.0
    assert proxy_a_distance(x.half(), x[:6].half() + 20) == 2.0


def test_a_shift_of_one_deviation():
    torch.manual_seed(0)
    x, y = torch.randn(2, 4000, 1)
    assert proxy_a_distance(x, y + 1, costs=(0.1, 1.0)) == pytest.approx(0.766, abs=0.08)
    other = proxy_a_distance(y + 1, x, costs=(0.1, 1.0))
    assert other == pytest.approx(0.766, abs=0.08)
    few = proxy_a_distance(x, y[:800] + 1, costs=(0.1, 1.0))
    assert few == pytest.approx(0.766, abs=0.15)


def test_the_same_seed_gives_the_same_number():
    x, y = torch.randn(2, 60, 3)
    assert proxy_a_distance(x, y, seed=3) == proxy_a_distance(x, y, seed=3)


def test_small_differences_of_many_dimensions_add_up():
    x, y = torch.randn(2, 200, 400)
    apart = y + 0.3
    assert proxy_a_distance(x[:, :2], apart[:, :2], costs=(0.01,)) < 0.7
    assert proxy_a_distance(x, apart, costs=(0.01,)) > 1.5
    assert proxy_a_distance(x, y, costs=(0.01,)) < 0.6


@pytest.mark.wording
def test_errors_teach(monkeypatch):
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"target must have two rows or more, got 0. Telling two"):
        proxy_a_distance(x, x[:0])
    with pytest.raises(ValueError, match="target: expected last axis of size 3"):
        proxy_a_distance(x, x[:, :2])
    with pytest.raises(TypeError, match="target: expected a tensor, got NoneType"):
        proxy_a_distance(x, None)
    with pytest.raises(ValueError, match="each of costs must be > 0, got 0"):
        proxy_a_distance(x, x, costs=(0.0,))
    with pytest.raises(ValueError, match="costs must hold one number at least"):
        proxy_a_distance(x, x, costs=())
    with pytest.raises(ValueError, match="source must be finite, got NaN or infinity in 4 of 4"):
        proxy_a_distance(x * torch.inf, x)
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        proxy_a_distance(x, x)
