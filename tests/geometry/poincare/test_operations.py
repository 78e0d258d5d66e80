"""Operations on the ball: the spec's numbers, geoopt's, identities, the edge, compile."""

import importlib

import pytest
import torch
from geometry.spaces import EVERY, ball, directions, tangents
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.geometry import poincare as P
from embedkit.geometry._curvature import edge_margin

X, Y = torch.tensor([0.3, 0.1]).double(), torch.tensor([-0.2, 0.4]).double()
V = torch.tensor([0.1, -0.2]).double()
MATRIX, DIAGONAL = torch.tensor([[1.0, 2], [0, 1]]).double(), torch.tensor([0.5, 0.25]).double()
EXAMPLE = [  # the worked example: operation, c = 1, c = 0.5
    (lambda c: P.mobius_add(X, Y, curvature=c), (0.171429, 0.485714), (0.136041, 0.495431)),
    (lambda c: P.mobius_add(Y, X, curvature=c), (0.028571, 0.514286), (0.064975, 0.509645)),
    (lambda c: P.distance(X, Y, curvature=c), 1.284272, 1.222762),
    (lambda c: P.distance_to_origin(X, curvature=c), 0.654900, 0.643324),
    (lambda c: P.expmap0(X, curvature=c), (0.290384, 0.096795), (0.295098, 0.098366)),
    (lambda c: P.logmap0(X, curvature=c), (0.310646, 0.103549), (0.305156, 0.101719)),
    (
        lambda c: P.mobius_scalar_mul(2.0, X, curvature=c),
        (0.545455, 0.181818),
        (0.571429, 0.190476),
    ),
    (lambda c: P.mobius_add(X, X, curvature=c), (0.545455, 0.181818), (0.571429, 0.190476)),
    (lambda c: P.expmap(X, V, curvature=c), (0.410923, -0.085510), (0.405593, -0.093311)),
    (lambda c: P.logmap(X, Y, curvature=c), (-0.531393, 0.227190), (-0.517511, 0.263675)),
    (lambda c: P.mobius_matvec(MATRIX, X, curvature=c), (0.474453, 0.094891), (0.486953, 0.097391)),
    (
        lambda c: P.mobius_pointwise_mul(DIAGONAL, X, curvature=c),
        (0.154052, 0.025675),
        (0.151972, 0.025329),
    ),
    (lambda c: P.poincare_to_klein(X, curvature=c), (0.545455, 0.181818), (0.571429, 0.190476)),
    (
        lambda c: P.poincare_to_lorentz(X, curvature=c),
        (1.222222, 0.666667, 0.222222),
        (1.563078, 0.631579, 0.210526),
    ),
    (
        lambda c: P.midpoint(torch.stack([X, Y]), torch.tensor([1.0, 3]).double(), curvature=c),
        (-0.080306, 0.310517),
        (-0.077458, 0.317577),
    ),
    (
        lambda c: P.midpoint(torch.stack([X, Y]), curvature=c),
        (0.032369, 0.237374),
        (0.041426, 0.243378),
    ),
    (lambda c: P.geodesic(0.5, X, Y, curvature=c), (0.032369, 0.237374), (0.041426, 0.243378)),
    (  # theorem 5 at the hyperplane of the spec's regression example: logit / (2 |z|)
        lambda c: P.distance_to_hyperplane(
            X,
            P.expmap0(0.1 * Z / Z.norm(), curvature=c),
            Z,
            curvature=c,
        ),
        0.257929,
        0.252335,
    ),
]
Z = torch.tensor([1.0, 2.0]).double()


@pytest.mark.parametrize("row", EXAMPLE)
def test_the_worked_example(row):
    call, *wants = row
    for c, want in zip((1.0, 0.5), wants, strict=True):
        torch.testing.assert_close(call(c), torch.tensor(want).double(), atol=6e-7, rtol=0)


seeds = given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3), reach=st.floats(0.01, 0.99))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 700), reach=st.floats(0.01, 0.99))
def test_agrees_with_geoopt(seed, c, reach):  # whose c is infinite from 710 on
    theirs = importlib.import_module("geoopt").PoincareBall(torch.tensor(c, dtype=torch.float64))
    x, y, z = (ball(4, 3, c, reach, seed + i) for i in range(3))
    v = torch.randn(4, 3).double() / c**0.5 / 4
    near = {"rtol": 1e-9, "atol": 1e-9 / c**0.5}
    for ours, want in [
        (P.mobius_add(x, y, curvature=c), theirs.mobius_add(x, y)),
        (
            P.mobius_scalar_mul(1.5, x, curvature=c),
            theirs.mobius_scalar_mul(torch.tensor(1.5, dtype=torch.float64), x),
        ),
        (P.mobius_matvec(v[:3], x, curvature=c), theirs.mobius_matvec(v[:3], x)),
        (P.mobius_pointwise_mul(v, x, curvature=c), theirs.mobius_pointwise_mul(v, x)),
        (P.gyration(x, y, v, curvature=c), theirs.gyration(x, y, v)),
        (P.expmap0(v, curvature=c), theirs.expmap0(v)),
        (P.logmap0(x, curvature=c), theirs.logmap0(x)),
        (P.expmap(x, v / 10, curvature=c), theirs.expmap(x, v / 10)),
        (P.logmap(x, y, curvature=c), theirs.logmap(x, y)),
        (
            P.geodesic(0.3, x, y, curvature=c),
            theirs.geodesic(torch.tensor(0.3, dtype=torch.float64), x, y),
        ),
        (P.parallel_transport(x, y, v, curvature=c), theirs.transp(x, y, v)),
        (P.conformal_factor(x, curvature=c), theirs.lambda_x(x)),
        (P.distance(x, y, curvature=c), theirs.dist(x, y)),
        (P.distance_to_origin(x, curvature=c), theirs.dist0(x)),
        (
            P.distance_to_hyperplane(x, y, z, curvature=c),
            theirs.dist2plane(x, y, z, signed=True),
        ),
        (
            P.midpoint(x, v[:, 0].abs(), curvature=c),
            theirs.weighted_midpoint(x, v[:, 0].abs(), reducedim=[0]),
        ),
    ]:
        torch.testing.assert_close(ours, want, **near)


@settings(max_examples=20)
@seeds
def test_identities(seed, c, reach):
    x, y, a = (ball(4, 3, c, reach, seed + i) for i in range(3))
    v = torch.randn(4, 3).double() / c**0.5 * (1 - reach)
    near = {"rtol": 1e-9, "atol": 1e-11 / c**0.5 / (1 - reach) ** 2}

    def same(got, want):
        torch.testing.assert_close(got, want, **near)

    def add(p, q):
        return P.mobius_add(p, q, curvature=c)

    same(add(-x, add(x, y)), y)
    same(add(x, torch.zeros_like(x)), x)
    same(P.expmap(x, P.logmap(x, y, curvature=c), curvature=c), y)
    same(P.logmap0(P.expmap0(v, curvature=c), curvature=c), v)
    same(P.distance(add(a, x), add(a, y), curvature=c), P.distance(x, y, curvature=c))
    same(add(add(x, y), P.gyration(x, y, a, curvature=c)), add(x, add(y, a)))
    same(
        P.logmap0(P.mobius_matvec(v[:3], x, curvature=c), curvature=c),
        P.logmap0(x, curvature=c) @ v[:3].mT,
    )
    same(
        P.distance_to_origin(P.mobius_scalar_mul(0.3, x, curvature=c), curvature=c),
        0.3 * P.distance_to_origin(x, curvature=c),
    )
    moved = P.parallel_transport(x, y, v, curvature=c)
    same(
        P.conformal_factor(y, curvature=c) * moved.norm(dim=1),
        P.conformal_factor(x, curvature=c) * v.norm(dim=1),
    )
    same(P.parallel_transport(y, x, moved, curvature=c), v)
    same(
        P.conformal_factor(x, curvature=c) * P.logmap(x, y, curvature=c).norm(dim=1),
        P.distance(x, y, curvature=c),
    )
    for model in ("lorentz", "klein"):
        there, back = getattr(P, f"poincare_to_{model}"), getattr(P, f"{model}_to_poincare")
        same(back(there(x, curvature=c), curvature=c), x)


@pytest.mark.parametrize("t", [2.0, 4.0])
def test_scaling_law(t):
    x, y = ball(5, 3), ball(5, 3, seed=5)
    for call in (P.mobius_add, P.logmap, P.expmap):
        got = call(x / t, y / t, curvature=t * t)
        torch.testing.assert_close(got, call(x, y) / t, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(P.distance(x / t, y / t, curvature=t * t), P.distance(x, y) / t)


def test_small_curvature_is_flat():
    x, y, c = ball(5, 3), ball(5, 3, seed=5), 1e-12
    for got, want in [
        (P.mobius_add(x, y, curvature=c), x + y),
        (P.distance(x, y, curvature=c), 2 * (x - y).norm(dim=1)),
        (P.logmap(x, y, curvature=c), y - x),
        (P.expmap(x, y, curvature=c), x + y),
        (P.gyration(x, y, x, curvature=c), x),
        (P.midpoint(x, curvature=c), x.mean(0)),
    ]:
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


def _operations(x, y, v, c):
    """(name, result, is a point of the ball) of everything, differentiable."""
    size, d = x.shape
    matrix = torch.eye(d, dtype=x.dtype).flip(0) * 1.5
    half = torch.arange(size) % 2
    return [
        ("mobius_add", P.mobius_add(x, y, curvature=c), True),
        ("mobius_scalar_mul", P.mobius_scalar_mul(1.5, x, curvature=c), True),
        ("mobius_matvec", P.mobius_matvec(matrix, x, curvature=c), True),
        ("mobius_pointwise_mul", P.mobius_pointwise_mul(matrix[0], x, curvature=c), True),
        ("expmap0", P.expmap0(v, curvature=c), True),
        ("expmap", P.expmap(x, v, curvature=c), True),
        ("geodesic", P.geodesic(0.5, x, y, curvature=c), True),
        ("project", P.project(v, curvature=c), True),
        ("poincare_to_klein", P.poincare_to_klein(x, curvature=c), True),
        ("klein_to_poincare", P.klein_to_poincare(x, curvature=c), True),
        ("midpoint", P.midpoint(x, curvature=c), True),
        ("segment_midpoint", P.segment_midpoint(x, half, 3, curvature=c), True),
        (
            "masked segments",
            P.segment_midpoint(x, half, 3, mask=torch.arange(size) % 3 > 0, curvature=c),
            True,
        ),
        ("frechet_mean", P.frechet_mean(x, curvature=c), True),
        ("gyration", P.gyration(x, y, v, curvature=c), False),
        ("logmap0", P.logmap0(x, curvature=c), False),
        ("logmap", P.logmap(x, y, curvature=c), False),
        ("conformal_factor", P.conformal_factor(x, curvature=c), False),
        ("distance", P.distance(x, y, curvature=c), False),
        ("distance_to_origin", P.distance_to_origin(x, curvature=c), False),
        ("hyperplane", P.distance_to_hyperplane(x, y, v, curvature=c), False),
        ("pairwise_distance", P.pairwise_distance(x, y, curvature=c), False),
        ("tangent_distance", P.tangent_distance(v, y, curvature=c), False),
        (
            "lorentz",
            P.lorentz_to_poincare(P.poincare_to_lorentz(x, curvature=c), curvature=c),
            True,
        ),
    ]


@pytest.mark.parametrize(("dtype", "c"), EVERY)
@pytest.mark.parametrize("pair", ["same", "opposite", "other", "outside"])
def test_never_outside_never_nan_at_any_radius(dtype, c, pair):
    v = tangents(c, dtype)
    with torch.no_grad():
        x = P.expmap0(v, curvature=c)
        y = P.expmap0(tangents(c, dtype, seed=3), curvature=c).roll(1, 0)
        y = {"same": x, "opposite": -x, "other": y, "outside": 1.5 * x}[pair].clone()
    v, x, y = (t.requires_grad_() for t in (v, x, y))
    curvature = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    for name, result, point in _operations(x, y, v, curvature):
        assert result.dtype == dtype, name
        assert result.isfinite().all(), name
        if point:
            P.check_inside(result, curvature=c)
        gradients = torch.autograd.grad(
            result.sum(), (x, y, v, curvature), allow_unused=True, retain_graph=True
        )
        for gradient in gradients:
            assert gradient is None or gradient.isfinite().all(), name


@pytest.mark.parametrize(("dtype", "c"), EVERY)
@pytest.mark.parametrize("times", [1.05, 3.0, 1e3])
def test_points_outside_count_as_project_leaves_them(dtype, c, times):
    v = tangents(c, dtype, radii=[0.1, 1.0, 3.0])
    x = (directions((6, 4), seed=1) * times / c**0.5).to(dtype)
    x[1] = P.expmap0(v, curvature=c)[1]
    y = P.expmap0(v, curvature=c)
    # project, but without rounding to the dtype
    kept = P.project(x.double(), curvature=c, margin=edge_margin(dtype))
    # 1e-13 from the edge float64 itself has three digits of 1 - c |x|^2
    near = {torch.float64: 3e-3, torch.float32: 1e-5}.get(dtype, 4 * torch.finfo(dtype).eps)
    for given_, want_ in (((x, y), (kept, y.double())), ((y, x), (y.double(), kept))):
        results = zip(_operations(*given_, v, c), _operations(*want_, v.double(), c), strict=True)
        for (name, got, point), (_, want, _) in results:
            if name in ("project", "tangent_distance"):
                continue  # they take other vectors
            if point:  # results end where their dtype does
                want = P.project(want.to(dtype), curvature=c)
            size = c**-0.5 if point else float(want.abs().max())
            torch.testing.assert_close(
                got.double(),
                want.double(),
                rtol=near,
                atol=near * size,
                msg=lambda m, n=name: n + m,
            )


def test_gradients_match_finite_differences():
    x, y, v = ball(3, 3), ball(3, 3, seed=5), ball(3, 3, seed=7)
    names = [name for name, _, _ in _operations(x, y, v, 1.0)]
    for i, name in enumerate(names):
        if name == "project":
            continue
        inputs = [t.clone().requires_grad_() for t in (x, y, v, torch.tensor(0.7).double())]
        used = torch.autograd.grad(_operations(*inputs)[i][1].sum(), inputs, allow_unused=True)
        assert torch.autograd.gradcheck(
            lambda *t, i=i: _operations(*t)[i][1], inputs, fast_mode=True
        ), name
        assert any(g is not None for g in used)


def test_smooth_at_the_origin_and_at_coincident_points():
    zero = torch.zeros(2, 3).double().requires_grad_()
    eye = torch.eye(3).double()
    for call in (P.expmap0, P.logmap0):
        jacobian = torch.autograd.functional.jacobian(lambda v, call=call: call(v)[0], zero)[:, 0]
        torch.testing.assert_close(jacobian, eye)
    x = ball(2, 3).requires_grad_()
    for result in (P.distance(x, x.detach()), P.distance_to_origin(zero)):
        result.sum().backward()
        assert result.tolist() == [0, 0]
    assert not x.grad.any()
    assert not zero.grad.any()
    assert not P.logmap(x, x).any()


@pytest.mark.compile
def test_one_graph():
    x, y, v = (ball(4, 3, seed=i, dtype=torch.float32).requires_grad_() for i in range(3))
    curvature = torch.tensor(0.7, requires_grad=True)

    def every(x, y, v, c):
        return [result for _, result, _ in _operations(x, y, v, c)]

    compiled = torch.compile(every, fullgraph=True, backend="aot_eager")
    for c in (curvature, 0.7):
        torch.testing.assert_close(compiled(x, y, v, c), every(x, y, v, c))
    a = torch.autograd.grad(sum(t.sum() for t in compiled(x, y, v, curvature)), (x, v, curvature))
    b = torch.autograd.grad(sum(t.sum() for t in every(x, y, v, curvature)), (x, v, curvature))
    torch.testing.assert_close(a, b)


@pytest.mark.compile
def test_one_kernel():
    x, y = (ball(4, 3, seed=i, dtype=torch.float32).requires_grad_() for i in range(2))
    curvature = torch.tensor(0.7, requires_grad=True)

    def some(x, y, c):
        return P.distance(P.mobius_add(P.expmap0(x, curvature=c), y, curvature=c), y, curvature=c)

    got = torch.compile(some, fullgraph=True)(x, y, curvature)
    torch.testing.assert_close(got, some(x, y, curvature))
    a = torch.autograd.grad(got.sum(), (x, y, curvature))
    torch.testing.assert_close(
        a, torch.autograd.grad(some(x, y, curvature).sum(), (x, y, curvature))
    )


@pytest.mark.compile
def test_a_number_that_changes_makes_no_graph_for_each_value():
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(P.distance, fullgraph=True, backend=count)
    x, y = ball(4, 3, seed=1), ball(4, 3, seed=2)
    for i in range(12):
        c = 0.5 + i / 40
        torch.testing.assert_close(compiled(x, y, curvature=c), P.distance(x, y, curvature=c))
    assert count.frame_count <= 2


def test_transforms_of_torch_func():
    x, y, v = (ball(4, 3, seed=i).requires_grad_() for i in range(3))
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for i, (name, result, _) in enumerate(_operations(x, y, v, c)):

        def call(*inputs, i=i):
            return _operations(*inputs)[i][1].sum()

        want = torch.autograd.grad(result.sum(), (x, y, v, c), materialize_grads=True)
        inputs = [t.detach() for t in (x, y, v, c)]
        got = torch.func.grad(call, argnums=(0, 1, 2, 3))(*inputs)
        torch.testing.assert_close(got, want, msg=lambda m, n=name: f"{n}: {m}")
        stacked = [torch.stack([t, t / 2]) for t in inputs]
        both = torch.func.vmap(call)(*stacked)
        one = [call(*(t[j] for t in stacked)) for j in range(2)]
        torch.testing.assert_close(both, torch.stack(one), msg=lambda m, n=name: f"{n}: {m}")
    points, weight = x.detach().expand(2, 4, 3), torch.rand(2, 4).double()
    got = torch.func.vmap(P.midpoint)(points, weight)
    torch.testing.assert_close(got, P.midpoint(points, weight))


@pytest.mark.parametrize("size", [1e100, 1e160, 1e200, 1e300])
def test_huge_vectors_go_to_the_edge(size):
    v = torch.tensor([[3.0, -4.0], [1e-3, 0.0]]).double() * size
    at_edge = P.project(v / size * 1e9)
    start = ball(2, 2)
    for got in (P.expmap0(v), P.project(v), P.mobius_scalar_mul(size, at_edge)):
        torch.testing.assert_close(got, at_edge)
    P.check_inside(P.expmap(start, v))
    assert P.distance_to_origin(P.expmap(start, v)).min() > 25
    want = P.distance(at_edge, start)
    torch.testing.assert_close(P.distance(v, start), want, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        P.distance_to_hyperplane(start, start.flip(0), v),
        P.distance_to_hyperplane(start, start.flip(0), v / size),
    )
    v.requires_grad_()
    (gradient,) = torch.autograd.grad(P.expmap0(v)[0, 0], v)
    assert gradient[0].abs().min() > 0
    torch.testing.assert_close(gradient[0, 0] * 3 - gradient[0, 1] * 4, torch.tensor(0.0).double())


def test_empty_and_one_dimensional():
    empty = torch.zeros(0, 3)
    for name, result, _ in _operations(empty, empty, empty, 1.0):
        assert result.isfinite().all(), name
    one = torch.tensor([[0.5]])
    torch.testing.assert_close(P.distance(one, -one), 2 * P.distance_to_origin(one))


def test_half_precision_under_autocast():
    x = ball(4, 3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        low = P.mobius_matvec(torch.eye(3) * 2, x)
    torch.testing.assert_close(low, P.mobius_scalar_mul(2.0, x))


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(2, 3) / 4
    with pytest.raises(ValueError, match=r"poincare.mobius_add: curvature must be > 0, got -1. It"):
        P.mobius_add(x, x, curvature=-1)
    with pytest.raises(ValueError, match=r"poincare.distance: curvature must be > 0, got 0"):
        P.distance(x, x, curvature=torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"one number or a 0-d tensor, got shape \(2,\). Points"):
        P.expmap0(x, curvature=torch.ones(2))
    with pytest.raises(TypeError, match=r"y: expected the dtype of x, torch.float32, got torch.fl"):
        P.logmap(x, x.double())
    with pytest.raises(ValueError, match=r"y: expected last axis of size 3, got shape \(2, 2\)"):
        P.distance(x, x[:, :2])
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch.int64"):
        P.project(x.long())
    with pytest.raises(ValueError, match=r"project: margin must be < 1, got 1"):
        P.project(x, margin=1.0)
    with pytest.raises(
        ValueError, match=r"matrix: expected 2 axes \(e, d\) or more, got shape \(3"
    ):
        P.mobius_matvec(x[0], x)
    with pytest.raises(ValueError, match=r"x: expected 2 axes \(n, d\), got shape \(1, 2, 3\)"):
        P.pairwise_distance(x[None], x)
    with pytest.raises(ValueError, match=r"poincare.midpoint: weights must be >= 0, got -1"):
        P.midpoint(x, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"weight: expected shape \(2,\), one number >= 0 per poi"):
        P.midpoint(x, torch.ones(3))


def test_points_outside_are_named():
    x = torch.tensor([[0.1, 0.0], [3.0, 4.0], [0.0, float("nan")]])
    with pytest.raises(
        ValueError, match=r"got 2 of 3 outside, the farthest at inf with c = 1. Use project"
    ):
        P.check_inside(x)
    with pytest.raises(ValueError, match=r"1 of 1 outside, the farthest at 1.5 with c = 9"):
        P.check_inside(torch.tensor([0.5]), curvature=9.0)
    P.check_inside(P.project(x[:2], curvature=9.0), curvature=9.0)
