"""Geodesics: from end to end at any radius, and beyond the ends."""

import pytest
import torch
from geometry.spaces import ball, directions
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.geometry import poincare as P


@pytest.mark.parametrize("far", [0.0, 1e-6, 1.0, 15.0, 17.0, 20.0, 25.0, 30.0])
@pytest.mark.parametrize("c", [1e-2, 1.0, 1e2])
def test_a_geodesic_goes_from_end_to_end(far, c):
    x = P.expmap0(directions((5, 4)) * far / 2 / c**0.5, curvature=c)
    for y in (-x, P.expmap0(directions((5, 4), 1) * far / 2 / c**0.5, curvature=c), x.roll(1, 0)):
        for t, want in ((0.0, x), (1.0, y), (torch.ones(5), y)):
            got = P.geodesic(t, x, y, curvature=c)
            torch.testing.assert_close(got, want, rtol=1e-15, atol=1e-30)
    half = P.geodesic(0.5, x, -x, curvature=c)
    torch.testing.assert_close(half, torch.zeros_like(x), rtol=0, atol=1e-12 / c**0.5)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), t=st.floats(-2, 3), far=st.floats(0.01, 14))
def test_a_geodesic_keeps_its_pace(seed, t, far):
    x = P.expmap0(far / 4 * directions((5, 3), seed))
    y = P.expmap0(far / 4 * directions((5, 3), seed + 1))
    apart = P.distance(x, y)
    near = {"rtol": 1e-7, "atol": 1e-7}
    point = P.geodesic(t, x, y)
    kept = P.distance_to_origin(point) < 25  # beyond, float64 points are far apart
    torch.testing.assert_close(P.distance(x, point)[kept], abs(t) * apart[kept], **near)
    torch.testing.assert_close(P.distance(point, y)[kept], abs(1 - t) * apart[kept], **near)


def test_beyond_an_end_it_goes_on_without_a_jump():
    x = P.expmap0(directions((5, 3)) * 17 / 2)
    for y in (-x, x / 2):
        for t in (0.0, 1.0):
            steps = [P.geodesic(t + step, x, y) for step in (-1e-9, 0.0, 1e-9)]
            torch.testing.assert_close(steps[0], steps[1], rtol=0, atol=1e-8)
            torch.testing.assert_close(steps[2], steps[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("t", [-0.5, 0.0, 0.3, 1.0, 1.5])
def test_gradients_of_a_geodesic_match_finite_differences(t):
    x, y = ball(3, 3).requires_grad_(), ball(3, 3, seed=5).requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y, c: P.geodesic(t, x, y, curvature=c), (x, y, c))
    if t % 1:
        share = torch.full((3,), t, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda t: P.geodesic(t, x, y), share)
