"""The Fréchet mean: against brute force, isometries, far out, and its gradients."""

import importlib

import pytest
import torch
from geometry.spaces import EVERY, ball, directions, tangents
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.geometry import poincare as P


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), c=st.floats(1e-2, 1e2), far=st.floats(0.1, 12))
def test_it_is_what_scipy_finds(seed, c, far):
    minimize = importlib.import_module("scipy.optimize").minimize
    size = far * torch.rand(6, 1, generator=torch.Generator().manual_seed(seed)).double()
    x = P.expmap0(directions((6, 2), seed) * size / 2 / c**0.5, curvature=c)
    weight = torch.rand(6, generator=torch.Generator().manual_seed(seed + 1)).double()

    def objective(v):  # in tangent vectors, which have no edge
        m = P.expmap0(torch.tensor(v) / c**0.5, curvature=c)
        return float(c * (weight * P.distance(m, x, curvature=c).square()).sum() / weight.sum())

    got = P.frechet_mean(x, weight, curvature=c)
    start = (P.logmap0(got, curvature=c) * c**0.5).numpy()
    found = minimize(objective, start + 0.1, method="Nelder-Mead", options={"fatol": 1e-12})
    assert objective(start) <= found.fun + 1e-9
    want = P.expmap0(torch.tensor(found.x) / c**0.5, curvature=c)
    assert P.distance(got, want, curvature=c) * c**0.5 < 1e-3


@pytest.mark.parametrize("far", [0.1, 5.0, 12.0, 20.0, 28.0])
@pytest.mark.parametrize("n", [1, 3, 10])
def test_the_way_to_all_points_sums_to_nothing(far, n):
    size = far * torch.rand(20, n, 1).double()
    x = P.expmap0(directions((20, n, 3)) * size / 2)
    mean = P.frechet_mean(x)
    way = P.logmap(mean[:, None], x) * P.conformal_factor(mean)[:, None, None]
    assert way.mean(dim=1).norm(dim=-1).max() < 1e-7
    if n == 1:
        torch.testing.assert_close(mean, x[:, 0])


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3), t=st.floats(0, 1))
def test_two_points_and_isometries(seed, c, t):
    x, a = ball(4, 3, c, seed=seed), ball(1, 3, c, seed=seed + 1)[0]
    weight = torch.tensor([1 - t, t]).double()
    got = P.frechet_mean(x[:2], weight, curvature=c)
    near = {"rtol": 1e-7, "atol": 1e-8 / c**0.5}
    torch.testing.assert_close(got, P.geodesic(t, x[0], x[1], curvature=c), **near)
    moved = P.frechet_mean(P.mobius_add(a, x, curvature=c), curvature=c)
    want = P.mobius_add(a, P.frechet_mean(x, curvature=c), curvature=c)
    torch.testing.assert_close(moved, want, **near)


def test_padding_no_weight_and_bad_rows():
    x = ball(8, 3).reshape(2, 4, 3)
    mask = torch.tensor([[True, True, True, False], [False] * 4])
    bad = x.masked_fill(~mask[..., None], torch.nan)
    got = P.frechet_mean(bad, mask=mask)
    torch.testing.assert_close(got[0], P.frechet_mean(x[0, :3]))
    assert not got[1].any()
    assert not P.frechet_mean(x, torch.zeros(4).double()).any()
    assert not P.frechet_mean(x[:, :0]).any()
    assert P.frechet_mean(x[:0]).shape == (0, 3)
    x[0, 0] = torch.nan
    got = P.frechet_mean(x)
    assert got[0].isnan().all()
    torch.testing.assert_close(got[1], P.frechet_mean(x[1]))


def test_gradients_are_those_of_the_minimum():
    x, weight = ball(8, 3).reshape(2, 4, 3), torch.rand(2, 4).double()
    c = torch.tensor(0.7, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, weight, c)]
    call = lambda x, w, c: P.frechet_mean(x, w, curvature=c)  # noqa: E731
    assert torch.autograd.gradcheck(call, inputs)
    got = torch.func.vmap(torch.func.jacrev(P.frechet_mean))(x.detach())
    one = [torch.autograd.functional.jacobian(P.frechet_mean, each) for each in x.detach()]
    torch.testing.assert_close(got, torch.stack(one))


@pytest.mark.parametrize(("dtype", "c"), EVERY)
def test_never_outside_never_nan_at_any_radius(dtype, c):
    x = P.expmap0(tangents(c, dtype), curvature=c).reshape(3, -1, 4).requires_grad_()
    curvature = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    result = P.frechet_mean(x, curvature=curvature)
    assert result.dtype == dtype
    P.check_inside(result, curvature=c)
    for gradient in torch.autograd.grad(result.sum(), (x, curvature)):
        assert gradient.isfinite().all()


@pytest.mark.compile
def test_one_graph():
    x = ball(8, 3).reshape(2, 4, 3)
    got = torch.compile(P.frechet_mean, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, P.frechet_mean(x))


@pytest.mark.wording
def test_errors_teach():
    x = ball(3, 2)
    with pytest.raises(ValueError, match=r"poincare.frechet_mean: max_iter must be >= 1, got 0"):
        P.frechet_mean(x, max_iter=0)
    with pytest.raises(
        ValueError, match=r"poincare.frechet_mean: tol must be > 0, got 0. Try 1e-9"
    ):
        P.frechet_mean(x, tol=0.0)
    with pytest.raises(ValueError, match=r"poincare.frechet_mean: weights must be >= 0, got -1"):
        P.frechet_mean(x, torch.tensor([1.0, -1.0, 1.0]))
