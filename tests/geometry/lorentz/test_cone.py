"""Entailment cones: the formulas of Ganea et al. on the ball, and of MERU, in many digits."""

import importlib
import math

import pytest
import torch
from geometry.spaces import ball, directions
from hypothesis import given
from hypothesis import strategies as st

from embedkit.geometry import lorentz, poincare
from embedkit.geometry.lorentz.cone import exterior_angle, half_aperture


def on_the_ball(x, y):
    """Ganea et al. 2018, eq. 28, for c = 1."""
    xx, yy, xy = x.square().sum(-1), y.square().sum(-1), (x * y).sum(-1)
    above = xy * (1 + xx) - xx * (1 + yy)
    below = xx.sqrt() * (x - y).norm(dim=-1) * (1 + xx * yy - 2 * xy).sqrt()
    return (above / below).clamp(-1, 1).acos()


@given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3))
def test_agrees_with_the_form_on_the_ball(seed, c):
    x, y = ball(6, 3, seed=seed), ball(6, 3, seed=seed + 9)
    p, q = (poincare.poincare_to_lorentz(t / c**0.5, curvature=c) for t in (x, y))
    got = exterior_angle(p, q, curvature=c)
    torch.testing.assert_close(got, on_the_ball(x, y), rtol=1e-6, atol=1e-7)
    radius = x.norm(dim=-1)
    want = (0.1 * (1 - radius.square()) / radius).clamp(max=1).asin()
    torch.testing.assert_close(half_aperture(p, curvature=c), want)


@pytest.mark.parametrize("radius", [1e-4, 0.5, 5.0, 15.0])
@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-6])
def test_keeps_its_digits_for_near_points_and_far_out(radius, apart):
    mpmath = importlib.import_module("mpmath")
    mpmath.mp.dps = 80
    u = directions((20, 3), seed=1)
    p = lorentz.expmap0(radius * u)
    q = lorentz.expmap0(radius * (u + apart * directions((20, 3), seed=2)))
    want = []
    for a, b in zip(p[:, 1:].tolist(), q[:, 1:].tolist(), strict=True):
        a, b = [mpmath.mpf(t) for t in a], [mpmath.mpf(t) for t in b]
        norm = mpmath.sqrt(sum(t * t for t in a))
        times = [mpmath.sqrt(1 + sum(t * t for t in v)) for v in (a, b)]
        inner = sum(s * t for s, t in zip(a, b, strict=True)) - times[0] * times[1]
        cosine = (times[1] + times[0] * inner) / (norm * mpmath.sqrt(inner**2 - 1))
        want.append(float(mpmath.acos(cosine)))
    got = exterior_angle(p, q)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def test_behind_is_zero_and_before_is_pi():
    p = lorentz.expmap0(torch.tensor([[1.0, 2.0]], dtype=torch.float64).mul(0.5))
    on_the_ray = lorentz.expmap0(torch.tensor([[1.0, 2.0]], dtype=torch.float64) * 0.9)
    torch.testing.assert_close(exterior_angle(p, on_the_ray), torch.zeros(1).double())
    pi = torch.full((1,), math.pi, dtype=torch.float64)
    torch.testing.assert_close(exterior_angle(on_the_ray, p), pi)
    assert exterior_angle(p, p) == 0
    origin = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(exterior_angle(origin, p), pi / 2)
    torch.testing.assert_close(half_aperture(origin), pi / 2)


def test_gradients_match_finite_differences():
    p, q = (lorentz.expmap0(directions((5, 3), seed=s)).requires_grad_() for s in (1, 2))
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, q, c: exterior_angle(p, q, curvature=c), (p, q, c))
    assert torch.autograd.gradcheck(lambda p, c: half_aperture(p, curvature=c), (p, c))


@pytest.mark.compile
def test_one_graph():
    def both(p, q, c):
        return exterior_angle(p, q, curvature=c) - half_aperture(p, curvature=c)

    p, q = (lorentz.expmap0(directions((5, 3), seed=s)) for s in (1, 2))
    c = torch.tensor(0.7, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(both, fullgraph=True)(p, q, c), both(p, q, c))


@pytest.mark.wording
def test_bad_arguments_are_explained():
    p = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"half_aperture: min_radius must be > 0, got 0. Try 0.1"):
        half_aperture(p, min_radius=0.0)
    with pytest.raises(ValueError, match=r"exterior_angle: curvature must be > 0, got -1"):
        exterior_angle(p, p, curvature=-1.0)
    with pytest.raises(ValueError, match=r"q: expected last axis of size 3"):
        exterior_angle(p, torch.zeros(2, 4))
