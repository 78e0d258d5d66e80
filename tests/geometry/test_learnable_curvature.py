"""A curvature that learns stays positive, within bounds, and says what is wrong."""

import pytest
import torch

from embedkit.geometry import Curvature, poincare


def test_it_starts_where_asked_and_trains_the_logarithm():
    curvature = Curvature(0.5)
    torch.testing.assert_close(curvature(), torch.tensor(0.5))
    curvature().backward()
    torch.testing.assert_close(curvature.log_curvature.grad, torch.tensor(0.5))
    assert curvature().ndim == 0


@pytest.mark.parametrize(("sign", "bound"), [(1, 5.0), (-1, 0.05)])
def test_clamp_keeps_it_within_a_factor_of_ten(sign, bound):
    curvature = Curvature(0.5)
    with torch.no_grad():
        curvature.log_curvature += sign * 100
    curvature.clamp_()
    torch.testing.assert_close(curvature(), torch.tensor(bound))
    curvature.reset_parameters()
    torch.testing.assert_close(curvature(), torch.tensor(0.5))


def test_it_learns_the_space_that_distances_come_from():
    torch.manual_seed(0)
    v = torch.randn(20, 3).double()
    true = poincare.pairwise_distance(*[poincare.expmap0(v, curvature=2.0)] * 2, curvature=2.0)
    curvature = Curvature(0.5).double()
    optimizer = torch.optim.Adam(curvature.parameters(), lr=0.1)
    for _ in range(100):
        points = poincare.expmap0(v, curvature=curvature())
        distance = poincare.pairwise_distance(points, points, curvature=curvature())
        optimizer.zero_grad()
        (distance - true).square().mean().backward()
        optimizer.step()
        curvature.clamp_()
    assert curvature().item() == pytest.approx(2.0, rel=0.02)


def test_print_shows_the_curvature_of_the_space():
    curvature = Curvature(0.5)
    with torch.no_grad():
        curvature.log_curvature += torch.tensor(2.0).log()
    assert "init=0.5, minimum=0.05, maximum=5, now a space of -1)" in repr(curvature)
    assert "init=0.5" in repr(curvature.to("meta"))


def test_errors_teach():
    with pytest.raises(
        ValueError, match=r"Curvature: init must be > 0, got -1. It is c of a space"
    ):
        Curvature(-1.0)
    with pytest.raises(ValueError, match=r"minimum must be > 0, got 0"):
        Curvature(1.0, minimum=0.0)
    with pytest.raises(ValueError, match=r"init=1 must be from minimum=2 to maximum=10"):
        Curvature(1.0, minimum=2.0)
