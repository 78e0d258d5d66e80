"""The hyperboloid: the same space as the ball, geoopt's numbers, no edge."""

import importlib

import pytest
import torch
from geometry.spaces import EVERY, ball, directions, tangents
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.geometry import lorentz as L
from embedkit.geometry import poincare as P

seeds = given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3), reach=st.floats(0.01, 0.99))


def points(seed, c, reach, n=4):
    x = [ball(n, 3, c, reach, seed + i) for i in range(3)]
    return x, [P.poincare_to_lorentz(t, curvature=c) for t in x]


def tangent_at(p, c, seed):
    u = torch.randn(*p.shape, generator=torch.Generator().manual_seed(seed)).double() / c**0.5
    u[:, 0] = (u[:, 1:] * p[:, 1:]).sum(1) / p[:, 0]
    return u / 4


@settings(max_examples=20)
@seeds
def test_is_the_ball(seed, c, reach):
    (x, y, z), (p, q, r) = points(seed, c, reach)
    ids, mask = torch.tensor([0, 2, 0, 2]), torch.tensor([True, True, True, False])
    share = torch.tensor([0.0, 0.5, 1.0, 0.7]).double()
    near = {"rtol": 1e-8, "atol": 1e-10 / c**0.5 / (1 - reach)}
    for got, want in [
        (L.inner(p, p), torch.full((4,), -1 / c, dtype=torch.float64)),
        (L.distance(p, q, curvature=c), P.distance(x, y, curvature=c)),
        (L.pairwise_distance(p, q, curvature=c), P.pairwise_distance(x, y, curvature=c)),
        (L.logmap0(p, curvature=c), 2 * P.logmap0(x, curvature=c)),
        (
            L.midpoint(p, x[:, 0].abs(), curvature=c),
            P.poincare_to_lorentz(P.midpoint(x, x[:, 0].abs(), curvature=c), curvature=c),
        ),
        (L.expmap0(L.logmap0(p, curvature=c), curvature=c), p),
        (L.distance_to_origin(p, curvature=c), P.distance_to_origin(x, curvature=c)),
        (
            L.distance_to_hyperplane(p, q, L.logmap(q, r, curvature=c), curvature=c),
            P.distance_to_hyperplane(x, y, P.logmap(y, z, curvature=c), curvature=c),
        ),
        (
            L.segment_midpoint(p, ids, 3, x[:, 0].abs(), mask, curvature=c),
            P.poincare_to_lorentz(
                P.segment_midpoint(x, ids, 3, x[:, 0].abs(), mask, curvature=c), curvature=c
            ),
        ),
        *[
            (
                L.geodesic(t, p, q, curvature=c),
                P.poincare_to_lorentz(P.geodesic(t, x, y, curvature=c), curvature=c),
            )
            for t in (-0.1, 0.3, share, 1.05)
        ],
        (L.expmap(p, L.logmap(p, q, curvature=c), curvature=c), q),
    ]:
        atol = near["atol"] + 1e-9 * float(want.abs().max()) * float(c * p[:, 0].max() ** 2) / 1e3
        torch.testing.assert_close(got, want, rtol=1e-8, atol=atol)
    assert not L.distance(p, p, curvature=c).any()
    # Klein's Einstein midpoint is the same point
    k = P.poincare_to_klein(x, curvature=c)
    gamma = (1 - c * k.square().sum(1, keepdim=True)).rsqrt()
    einstein = (gamma * k).sum(0) / gamma.sum()
    torch.testing.assert_close(
        P.klein_to_poincare(einstein, curvature=c), P.midpoint(x, curvature=c), rtol=1e-6, atol=1e-9
    )


@settings(max_examples=20)
@seeds
def test_agrees_with_geoopt(seed, c, reach):
    reach = min(max(reach, 0.3), 0.8)  # its arcosh loses points that are nearer
    theirs = importlib.import_module("geoopt").Lorentz(torch.tensor(1 / c, dtype=torch.float64))
    _, (p, q, _) = points(seed, c, reach)
    u = tangent_at(p, c, seed)
    for got, want in [
        (L.distance(p, q, curvature=c), theirs.dist(p, q)),
        (L.expmap(p, u, curvature=c), theirs.expmap(p, u)),
        (L.logmap(p, q, curvature=c), theirs.logmap(p, q)),
        (L.parallel_transport(p, q, u, curvature=c), theirs.transp(p, q, u)),
        (L.project(p, curvature=c), theirs.projx(p)),
    ]:
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 * float(want.abs().max()))


@settings(max_examples=20)
@seeds
def test_transport_keeps_lengths_and_maps_end_at_their_distance(seed, c, reach):
    _, (p, q, _) = points(seed, c, min(reach, 0.95))
    u = tangent_at(p, c, seed)
    moved = L.parallel_transport(p, q, u, curvature=c)
    size = float(q[:, 0].max() * moved.abs().max()) + 1e-12
    torch.testing.assert_close(L.inner(moved, moved), L.inner(u, u), rtol=1e-7, atol=1e-9 * size**2)
    torch.testing.assert_close(L.inner(moved, q), torch.zeros(4).double(), rtol=0, atol=1e-9 * size)
    back = L.parallel_transport(q, p, moved, curvature=c)
    torch.testing.assert_close(back, u, rtol=1e-7, atol=1e-9 * size)
    length = L.inner(u, u).clamp(min=0).sqrt()
    there = L.expmap(p, u, curvature=c)
    torch.testing.assert_close(L.distance(p, there, curvature=c), length, rtol=1e-6, atol=1e-9)


def test_far_points_keep_their_digits():
    u = torch.eye(3)[:1]
    for near, far in ((20.0, 21.0), (30.0, 40.0)):
        p, q = L.expmap0(u * near), L.expmap0(u * far)
        for got in (L.distance(p, q), L.pairwise_distance(p, q)[0]):
            torch.testing.assert_close(got, torch.tensor([far - near]), rtol=1e-6, atol=1e-4)
        got = L.distance(p, L.expmap0(-u * far))
        torch.testing.assert_close(got, torch.tensor([near + far]))


@pytest.mark.parametrize("size", [1e100, 1e200, 1e300])
def test_huge_vectors_end_at_the_reach(size):
    u = torch.tensor([[3.0, -4.0]]).double()
    want = L.project(torch.tensor([[0.0, 0.6e70, -0.8e70]], dtype=torch.float64))
    huge = torch.cat([u[:, :1], u * size], dim=1)
    origin = torch.tensor([[1.0, 0.0, 0.0]]).double()
    for got in (L.expmap0(u * size), L.project(huge), L.expmap(origin, huge)):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("far", [1.0, 20.0, 40.0, 100.0])
def test_a_geodesic_goes_from_end_to_end(far):
    p = L.expmap0(directions((5, 3)) * far)
    for q in (L.expmap0(directions((5, 3), 1) * far), L.expmap0(directions((5, 3)) * far / 2)):
        torch.testing.assert_close(L.geodesic(0.0, p, q), p)
        torch.testing.assert_close(L.geodesic(1.0, p, q), q)
        if far <= 20:  # beyond, points of float64 are too far apart
            half = L.geodesic(0.5, p, q)
            torch.testing.assert_close(L.distance(p, half), L.distance(half, q))
    u = torch.eye(3)[:1]
    got = L.geodesic(0.75, L.expmap0(-u * 20), L.expmap0(u * 30))
    torch.testing.assert_close(L.logmap0(got), u * 17.5)


@pytest.mark.parametrize(("dtype", "c"), EVERY)
@pytest.mark.parametrize("pair", ["same", "opposite", "other"])
def test_never_off_the_hyperboloid_never_nan_at_any_radius(dtype, c, pair):
    u = tangents(c, dtype)
    p = L.expmap0(u, curvature=c)
    q = {"same": u, "opposite": -u, "other": tangents(c, dtype, seed=3).roll(1, 0)}[pair]
    q = L.expmap0(q, curvature=c)
    u, p, q = (t.detach().requires_grad_() for t in (u, p, q))
    curvature = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    for name, result, point in [
        ("expmap0", L.expmap0(u, curvature=curvature), True),
        ("logmap0", L.logmap0(p, curvature=curvature), False),
        ("expmap", L.expmap(p, q, curvature=curvature), True),
        ("logmap", L.logmap(p, q, curvature=curvature), False),
        ("transport", L.parallel_transport(p, q, q, curvature=curvature), False),
        ("distance", L.distance(p, q, curvature=curvature), False),
        ("pairwise", L.pairwise_distance(p, q, curvature=curvature), False),
        ("midpoint", L.midpoint(p, curvature=curvature), True),
        (
            "segments",
            L.segment_midpoint(p, torch.arange(len(p)) % 2, 3, curvature=curvature),
            True,
        ),
        ("geodesic", L.geodesic(0.3, p, q, curvature=curvature), True),
        ("beyond", L.geodesic(1.5, p, q, curvature=curvature), True),
        ("radius", L.distance_to_origin(p, curvature=curvature), False),
        ("hyperplane", L.distance_to_hyperplane(p, q, p, curvature=curvature), False),
        ("project", L.project(p * 2, curvature=curvature), True),
    ]:
        assert result.dtype == dtype, name
        assert result.isfinite().all(), name
        if point:
            space = result.double()[..., 1:]
            time = (1 / c + space.square().sum(-1)).sqrt()
            tolerance = 2 * torch.finfo(dtype).eps
            torch.testing.assert_close(result.double()[..., 0], time, rtol=tolerance, atol=0)
        for gradient in torch.autograd.grad(
            result.sum(), (u, p, q, curvature), allow_unused=True, retain_graph=True
        ):
            assert gradient is None or gradient.isfinite().all(), name


def test_gradients_match_finite_differences():
    _, (p, q, _) = points(1, 0.8, 0.7)
    c = torch.tensor(0.8, dtype=torch.float64)
    calls = [L.distance, L.logmap, L.expmap, L.pairwise_distance]
    calls += [
        lambda p, q, curvature, t=t: L.geodesic(t, p, q, curvature=curvature) for t in (0.3, 2.0)
    ]
    calls += [lambda p, q, curvature: L.distance_to_hyperplane(p, q, p + 0.1, curvature=curvature)]
    for call in calls:
        inputs = [t.clone().requires_grad_() for t in (p, q, c)]
        assert torch.autograd.gradcheck(
            lambda p, q, c, f=call: f(p, q, curvature=c), inputs, fast_mode=True
        )
    for call in (L.expmap0, L.logmap0, L.midpoint, L.distance_to_origin):
        inputs = [t.clone().requires_grad_() for t in (p, c)]
        assert torch.autograd.gradcheck(
            lambda p, c, f=call: f(p, curvature=c), inputs, fast_mode=True
        )


def test_midpoint_of_nothing_is_the_origin_and_padding_does_not_matter():
    p = L.expmap0(torch.randn(2, 3, 4))
    mask = torch.tensor([[True, True, False], [False, False, False]])
    want = L.midpoint(p[:1, :2])
    p[0, 2] = float("nan")
    got = L.midpoint(p, mask=mask)
    torch.testing.assert_close(got[:1], want)
    assert got[1].tolist() == [1, 0, 0, 0, 0]


@pytest.mark.compile
def test_one_graph():
    _, (p, q, _) = points(1, 0.8, 0.7)

    def every(p, q, c):
        return [
            L.distance(p, q, curvature=c),
            L.expmap(p, L.logmap(p, q, curvature=c), curvature=c),
            L.parallel_transport(p, q, p, curvature=c),
            L.expmap0(L.logmap0(p, curvature=c), curvature=c),
            L.midpoint(p, curvature=c),
            L.pairwise_distance(p, q, curvature=c),
            L.geodesic(0.3, p, q, curvature=c),
            L.distance_to_hyperplane(p, q, p, curvature=c),
            L.segment_midpoint(p, torch.tensor([0, 1, 0, 1]), 2, curvature=c),
        ]

    c = torch.tensor(0.8)
    compiled = torch.compile(every, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(p, q, c), every(p, q, c))


def test_errors_teach():
    p = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"lorentz.distance: curvature must be > 0, got -2"):
        L.distance(p, p, curvature=-2.0)
    with pytest.raises(TypeError, match=r"q: expected the dtype of p"):
        L.inner(p, p.half())
