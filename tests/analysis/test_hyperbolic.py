"""Radii of points, and how many lie at the edge."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis import hyperbolic_radius_stats, saturation_rate
from embedkit.geometry import poincare


@given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3))
def test_radii_are_twice_the_length_of_tangent_vectors(seed, c):
    v = torch.randn(30, 3, generator=torch.Generator().manual_seed(seed)).double() / c**0.5
    radius = 2 * v.norm(dim=1)
    found = hyperbolic_radius_stats(poincare.expmap0(v, curvature=c), curvature=c)
    assert found.mean == pytest.approx(radius.mean().item(), rel=1e-9)
    assert found.std == pytest.approx(radius.std(correction=0).item(), rel=1e-8)
    assert found.quantiles[0.5] == pytest.approx(radius.quantile(0.5).item(), rel=1e-9)
    assert list(found.quantiles) == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_pulled_back_points_are_counted(dtype, c):
    size = torch.tensor([0.0, 0.5, 1.0, 100.0, 1000.0]) / c**0.5
    v = torch.stack([size, 0 * size], 1).to(dtype)
    assert saturation_rate(poincare.expmap0(v, curvature=c), curvature=c) == pytest.approx(0.4)


def test_a_margin_of_ones_own():
    points = poincare.project(torch.tensor([[0.5, 0.0], [2.0, 0.0]]), margin=0.01)
    assert saturation_rate(points, margin=0.01) == 0.5
    assert saturation_rate(points) == 0.0


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match=r"hyperbolic_radius_stats: the number of points must be"):
        hyperbolic_radius_stats(torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"saturation_rate: .*finite"):
        saturation_rate(torch.tensor([[float("nan"), 0.0]]))
    with pytest.raises(ValueError, match=r"curvature must be > 0, got -1"):
        saturation_rate(torch.zeros(2, 2), curvature=-1)
