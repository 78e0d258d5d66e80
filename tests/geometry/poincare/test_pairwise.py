"""All pairs: equal to the pairs one by one, exact where the Gram form is not, at any radius."""

import pytest
import torch
from geometry.spaces import DTYPES, ball, directions, exact_distance
from hypothesis import given
from hypothesis import strategies as st

from embedkit.geometry import _pairs
from embedkit.geometry import poincare as P


def gradients(result, *inputs):
    weight = torch.linspace(-1, 1, result.numel()).view_as(result).to(result.dtype)
    return torch.autograd.grad((result * weight).sum(), inputs)


@pytest.mark.parametrize("entries", [1, 7, 2**18])
@given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3), reach=st.floats(0.01, 0.999))
def test_all_pairs_are_the_pairs(entries, seed, c, reach):
    x, y = ball(5, 3, c, reach, seed), ball(4, 3, c, reach, seed + 9)
    y[0] = x[0]
    y[1] = x[1] * (1 + 1e-9)
    curvature = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    x, y = x.requires_grad_(), y.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pairs, "_ENTRIES", entries)
        got = P.pairwise_distance(x, y, curvature=curvature)
        got_gradients = gradients(got, x, y, curvature)
    want = P.distance(x[:, None], y, curvature=curvature)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)
    assert got[0, 0] == 0
    for a, b in zip(got_gradients, gradients(want, x, y, curvature), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))


@given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3), size=st.floats(1e-3, 8))
def test_haversine_is_the_distance_of_the_points(seed, c, size):
    torch.manual_seed(seed)
    u, v = (torch.randn(n, 3).double() * size / c**0.5 / 2 for n in (5, 4))
    v[0] = u[0]
    v[1], u[2] = 0, 0
    curvature = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    u, v = u.clamp(-8 / c**0.5, 8 / c**0.5), v.clamp(-8 / c**0.5, 8 / c**0.5)
    v[0] = u[0]
    u, v = u.requires_grad_(), v.requires_grad_()
    got = P.tangent_distance(u, v, curvature=curvature)
    x, y = P.expmap0(u, curvature=curvature), P.expmap0(v, curvature=curvature)
    want = P.pairwise_distance(x, y, curvature=curvature)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-9)
    assert got[0, 0] == 0
    for a, b in zip(gradients(got, u, v), gradients(want, u, v), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3 * float(b.abs().max()))


def test_gradients_match_finite_differences():
    x, y = ball(4, 3).requires_grad_(), ball(3, 3, seed=5).requires_grad_()
    c = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    for call in (P.pairwise_distance, P.tangent_distance):
        assert torch.autograd.gradcheck(lambda x, y, c, f=call: f(x, y, curvature=c), (x, y, c))


@pytest.mark.parametrize("radius", [0.1, 1.0, 5.0, 8.0, 10.0, 12.0])
@pytest.mark.parametrize("apart", [1e-6, 1e-4, 1e-2, 1.0, 2.0])
def test_float32_is_right_to_five_digits_for_near_and_far_pairs(radius, apart):
    v = directions((20, 32)) * radius / 2
    x = P.expmap0(v.float())
    y = P.project(x.double() + apart * directions((20, 32), 3) * x.double().norm(dim=1)[:, None])
    y = P.project(y.float())
    want = exact_distance(x, y, 1.0)
    for got in (P.pairwise_distance(x, y).diagonal(), P.distance(x, y)):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("c", [1e-3, 1e3])
def test_float64_is_right_where_others_saturate(c):
    x = P.expmap0(directions((10, 5)) * 13.5 / 2 / c**0.5, curvature=c)
    y = P.expmap0(directions((10, 5), 1) * 20 / 2 / c**0.5, curvature=c)
    want = exact_distance(x, y, c)
    assert want.max() * c**0.5 > 16.82
    torch.testing.assert_close(P.distance(x, y, curvature=c), want, rtol=1e-9, atol=0)
    got = P.pairwise_distance(x, y, curvature=c).diagonal()
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)


def test_tangent_distance_has_no_edge():
    one, two = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1.0]])
    one, two = one.double(), two.double()
    for radius in (40.0, 1e4, 1e30, 1e200):
        along = P.tangent_distance(one * radius, one * radius * 1.5)
        torch.testing.assert_close(along, torch.tensor([[radius]], dtype=torch.float64))
        # a right triangle: cosh d = cosh a cosh b
        across = P.tangent_distance(one * radius, two * radius)
        want = torch.tensor([[4 * radius - 0.6931472]], dtype=torch.float64)
        torch.testing.assert_close(across, want)
        assert P.tangent_distance(one * radius, one * radius) == 0
        u = (one * radius).requires_grad_()
        (gradient,) = torch.autograd.grad(P.tangent_distance(u, two * radius).sum(), u)
        assert gradient.isfinite().all()


def test_the_gradient_at_the_origin_is_that_of_a_smooth_function():
    u = torch.zeros(1, 2).double().requires_grad_()
    P.tangent_distance(u, torch.tensor([[3.0, 4.0]]).double()).backward()
    torch.testing.assert_close(u.grad, torch.tensor([[-1.2, -1.6]]).double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_subnormal_differences_have_finite_gradients(dtype):
    size = {torch.float64: 1e-310}.get(dtype, 1e-39)
    x = torch.full((1, 2), size, dtype=dtype, requires_grad=True)
    y = torch.tensor([[0.0, 0.0], [0.3, 0.1]], dtype=dtype)
    for c in (1e-3, 1.0, 1e3):
        distance = P.pairwise_distance(x, P.project(y, curvature=c), curvature=c)
        (gradient,) = torch.autograd.grad(distance.sum(), x)
        assert gradient.isfinite().all()


def test_second_derivatives_are_refused():
    x, y = ball(3, 2).requires_grad_(), ball(4, 2, seed=1)
    for call in (P.pairwise_distance, P.tangent_distance):
        (gradient,) = torch.autograd.grad(call(x, y).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="have one derivative"):
            gradient.sum().backward()


def test_jacobians_and_batches_of_torch_func():
    x, y = ball(6, 2).reshape(2, 3, 2), ball(4, 2, seed=1)
    for call in (P.pairwise_distance, P.tangent_distance):
        got = torch.func.vmap(torch.func.jacrev(call), in_dims=(0, None))(x, y)
        want = [torch.autograd.functional.jacobian(lambda t, f=call: f(t, y), each) for each in x]
        torch.testing.assert_close(got, torch.stack(want))


def test_many_near_duplicates_take_the_other_path():
    x = 0.9 * directions((1, 8)) + 1e-8 * torch.randn(40, 8).double()
    want = P.distance(x[:, None], x)
    torch.testing.assert_close(P.pairwise_distance(x, x), want, rtol=1e-10, atol=0)
    low = x.float()
    torch.testing.assert_close(P.pairwise_distance(low, low), P.distance(low[:, None], low))


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_dtypes_and_nothing(dtype):
    for call in (P.pairwise_distance, P.tangent_distance):
        x = ball(3, 4, dtype=dtype).requires_grad_()
        assert call(x, x[:2]).shape == (3, 2)
        assert call(x, x).dtype == dtype
        for result in (call(x[:0], x), call(x, x[:0])):
            result.sum().backward()
        assert not x.grad.any()


def test_bad_rows_spoil_only_themselves():
    x = torch.rand(3, 2) / 2
    x[1, 0] = float("nan")
    for call in (P.pairwise_distance, P.tangent_distance):
        result = call(x, x)
        assert result[1].isnan().all()
        assert result[::2, ::2].isfinite().all()
