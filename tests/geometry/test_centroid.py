"""Centroids of both models in 80 digits, single points and pairs on a ray up to the reach."""

import importlib

import pytest
import torch
from geometry.spaces import directions

from embedkit.geometry import lorentz, poincare


def exact_centroid(space, weight, c):
    """Space part of the centroid of float rows as they are stored."""
    mpmath = importlib.import_module("mpmath")
    mpmath.mp.dps = 80
    c = mpmath.mpf(c)
    rows = [[mpmath.mpf(t) for t in row] for row in space.double().tolist()]
    weight = [mpmath.mpf(w) for w in weight.double().tolist()]
    times = [mpmath.sqrt(1 / c + sum(t * t for t in row)) for row in rows]
    time = sum(w * t for w, t in zip(weight, times, strict=True))
    total = [sum(w * r[i] for w, r in zip(weight, rows, strict=True)) for i in range(len(rows[0]))]
    root = mpmath.sqrt(c * (time**2 - sum(t * t for t in total)))
    return torch.tensor([float(t / root) for t in total], dtype=torch.float64)


def radius(p, c):
    """sqrt(c) times the distance from the origin."""
    return c**0.5 * lorentz.logmap0(p.double(), curvature=c).norm(dim=-1)


@pytest.mark.parametrize("c", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("far", [1.0, 18.0, 20.0, 31.0, 36.0, 41.0])
def test_one_point_of_the_hyperboloid_is_its_own_centroid(c, far):
    p = lorentz.expmap0(directions((5, 1, 8), dtype=torch.float32) * far / c**0.5, curvature=c)
    for weight in (None, torch.tensor([0.3]), torch.tensor([3e-5])):
        torch.testing.assert_close(lorentz.midpoint(p, weight, curvature=c), p[:, 0])
    three = p.expand(5, 3, 9)
    got = lorentz.midpoint(three, torch.tensor([0.1, 0.7, 0.3]), curvature=c)
    torch.testing.assert_close(got, p[:, 0])
    padded = torch.cat([p, torch.full_like(p, torch.nan)], dim=1)
    mask = torch.tensor([True, False]).expand(5, 2)
    got = lorentz.midpoint(padded, torch.tensor([0.3, torch.nan]), mask, curvature=c)
    torch.testing.assert_close(got, p[:, 0])


@pytest.mark.parametrize("far", [1.0, 15.0, 17.0, 20.0, 24.0, 28.0, 30.0])
def test_one_point_of_the_ball_is_its_own_centroid(far):
    x = poincare.expmap0(directions((5, 1, 8)) * far / 2)
    ids, weight = torch.arange(5), torch.tensor([0.3]).double()
    for got in (
        poincare.midpoint(x),
        poincare.midpoint(x, weight),
        poincare.segment_midpoint(x[:, 0], ids, 5, weight.expand(5)),
    ):
        torch.testing.assert_close(got, x[:, 0], rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(("near", "far"), [(15.0, 17.0), (24.0, 26.0), (30.0, 34.0), (38.0, 41.0)])
def test_pairs_on_a_ray_meet_half_way(near, far):
    # along an axis: on other rays two float32 points are not quite on one ray
    u = torch.eye(4, dtype=torch.float32)[:1]
    p = lorentz.expmap0(torch.cat([u * near, u * far]))
    torch.testing.assert_close(radius(lorentz.midpoint(p), 1.0).item(), (near + far) / 2)
    if far < 30:
        x = poincare.expmap0(torch.cat([u * near, u * far]).double() / 2)
        got = poincare.distance_to_origin(poincare.midpoint(x)).item()
        assert got == pytest.approx((near + far) / 2, abs=1e-4)
        ids = torch.zeros(2, dtype=torch.long)
        torch.testing.assert_close(poincare.segment_midpoint(x, ids, 1)[0], poincare.midpoint(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [1e-8, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("far", [0.5, 10.0, 20.0, 30.0])
def test_agrees_with_many_digits(dtype, apart, far):
    u = directions((1, 3)) + apart * directions((6, 3), seed=1)
    u = u / u.norm(dim=1, keepdim=True) * (far - torch.rand(6, 1).double())
    p = lorentz.expmap0(u.to(dtype))
    weight = torch.rand(6, dtype=dtype)
    want = exact_centroid(p[:, 1:], weight, 1.0)
    got = lorentz.midpoint(p.double(), weight.double())[1:]
    near = 1e-11 if far < 15 else 1e-3  # points of float64 are 1e-16 e^R apart
    near = near if dtype == torch.float64 else 1e-9
    torch.testing.assert_close(got, want, rtol=near, atol=near * float(want.norm()))


def test_gradients_match_finite_differences_and_do_not_see_the_axis():
    p = lorentz.expmap0(directions((2, 4, 3))).requires_grad_()
    weight = torch.rand(2, 4).double().requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    inputs = (p, weight, c)
    call = lambda p, w, c: lorentz.midpoint(p, w, curvature=c)  # noqa: E731
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)
    one = lorentz.expmap0(30.0 * directions((1, 3))).requires_grad_()
    (gradient,) = torch.autograd.grad(lorentz.midpoint(one)[1], one)
    torch.testing.assert_close(gradient[0], torch.tensor([0.0, 1, 0, 0]).double())
