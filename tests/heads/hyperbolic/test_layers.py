"""Hyperbolic layers: the worked example, compositions of the ball's functions, the edge."""

import importlib

import pytest
import torch
from geometry.spaces import EVERY, ball, directions, tangents
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from embedkit.geometry import Curvature, poincare
from embedkit.heads import (
    BlockDiagonalMobius,
    ExpMap0,
    HyperbolicActivation,
    HyperbolicMLR,
    LogMap0,
    MobiusLinear,
    PoincareLinear,
    block_diagonal_scaling,
    fermi_dirac,
    hyperbolic_logits,
    mobius_linear,
    poincare_linear,
)

X, Y = torch.tensor([0.3, 0.1]).double(), torch.tensor([-0.2, 0.4]).double()
NORMALS, OFFSETS = torch.tensor([[1.0, 2], [0.5, -1]]).double(), torch.tensor([0.1, -0.2]).double()
BLOCKS = torch.tensor([[[0.5]], [[0.25]]]).double()
EXAMPLE = [  # operation, c = 1, c = 0.5
    (
        lambda c: mobius_linear(X, torch.tensor([[1.0, 2], [0, 1]]).double(), curvature=c),
        (0.474453, 0.094891),
        (0.486953, 0.097391),
    ),
    (
        lambda c: block_diagonal_scaling(X, BLOCKS, curvature=c),
        (0.154052, 0.025675),
        (0.151972, 0.025329),
    ),
    (
        lambda c: hyperbolic_logits(X, NORMALS[:1], OFFSETS[:1], curvature=c),
        [1.153491],
        [1.128478],
    ),
    (
        lambda c: poincare_linear(X, NORMALS, OFFSETS, curvature=c),
        (0.417257, 0.490950),
        (0.474810, 0.507660),
    ),
    (lambda c: fermi_dirac(poincare.distance(X, Y, curvature=c)), 0.671666, 0.685085),
]


@pytest.mark.parametrize("row", EXAMPLE)
def test_the_worked_example(row):
    call, *wants = row
    for c, want in zip((1.0, 0.5), wants, strict=True):
        torch.testing.assert_close(call(c), torch.tensor(want).double(), atol=6e-7, rtol=0)


seeds = given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 1e3), reach=st.floats(0.01, 0.99))


@settings(max_examples=20)
@seeds
def test_layers_are_compositions_of_operations(seed, c, reach):
    x = ball(5, 6, c, reach, seed)
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 6, generator=random).double() * 0.4
    bias = torch.randn(4, generator=random).double() * 0.3 / c**0.5
    near = {"rtol": 1e-9, "atol": 1e-9 / c**0.5}

    product = poincare.mobius_matvec(weight, x, curvature=c)
    torch.testing.assert_close(mobius_linear(x, weight, curvature=c), product, **near)
    moved = poincare.mobius_add(product, poincare.expmap0(bias, curvature=c), curvature=c)
    torch.testing.assert_close(mobius_linear(x, weight, bias, curvature=c), moved, **near)

    length = weight.norm(dim=1)
    through = poincare.expmap0(bias[:, None] * weight / length[:, None], curvature=c)
    signed = poincare.distance_to_hyperplane(x[:, None], through, weight, curvature=c)
    logits = hyperbolic_logits(x, weight, bias, curvature=c)
    torch.testing.assert_close(logits, 2 * length * signed, **near)
    torch.testing.assert_close(hyperbolic_logits(x, -weight, -bias, curvature=c), -logits, **near)

    blocks = torch.randn(3, 2, 2, generator=random).double() * 0.4
    whole = poincare.mobius_matvec(torch.block_diag(*blocks), x, curvature=c)
    torch.testing.assert_close(block_diagonal_scaling(x, blocks, curvature=c), whole, **near)
    v = poincare.logmap0(x, curvature=c)
    torch.testing.assert_close(
        block_diagonal_scaling(v, blocks, curvature=None), v @ torch.block_diag(*blocks).mT
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_products_end_at_the_edge_before_the_translation(dtype, c):
    x = ball(4, 3, c, dtype=dtype)
    weight = 1e3 * torch.eye(3, dtype=dtype)
    out = poincare.mobius_matvec(weight, x, curvature=c)
    for size in (1.0, 3.0):
        bias = -size / c**0.5 * x[0] / x[0].norm()
        want = poincare.mobius_add(out, poincare.expmap0(bias, curvature=c), curvature=c)
        got = mobius_linear(x, weight, bias, curvature=c)
        torch.testing.assert_close(got, want, rtol=0, atol=2e-4 / c**0.5)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), c=st.floats(1e-3, 700), reach=st.floats(0.01, 0.99))
def test_agrees_with_geoopt(seed, c, reach):  # whose c is infinite from 710 on
    theirs = importlib.import_module("geoopt").PoincareBall(torch.tensor(c, dtype=torch.float64))
    x = ball(5, 3, c, reach, seed)
    weight = ball(4, 3, 1.0, 0.9, seed + 1)
    bias = torch.linspace(-1, 1, 4, dtype=torch.float64) / c**0.5 / 4
    want = theirs.mobius_add(theirs.mobius_matvec(weight, x), theirs.expmap0(bias))
    got = mobius_linear(x, weight, bias, curvature=c)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9 / c**0.5)
    at = theirs.expmap0(0.2 / c**0.5 * weight / weight.norm(dim=1, keepdim=True))
    want = theirs.dist2plane(x[:, None], at, weight, signed=True) * 2 * weight.norm(dim=1)
    offset = torch.full((4,), 0.2 / c**0.5, dtype=torch.float64)
    got = hyperbolic_logits(x, weight, offset, curvature=c)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9 / c**0.5)


@settings(max_examples=20)
@seeds
def test_radius_follows_the_singular_values(seed, c, reach):
    x = ball(6, 4, c, reach * 0.9, seed)
    blocks = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(seed)).double() * 0.5
    before = poincare.distance_to_origin(x, curvature=c)
    after = poincare.distance_to_origin(block_diagonal_scaling(x, blocks, curvature=c), curvature=c)
    sizes = torch.linalg.svdvals(blocks)
    assert (after <= sizes.max() * before * (1 + 1e-9) + 1e-12).all()
    assert (after >= sizes.min() * before * (1 - 1e-9) - 1e-12).all()
    half = torch.eye(2).double().expand(2, 2, 2) / 2
    shrunk = block_diagonal_scaling(x, half, curvature=c)
    torch.testing.assert_close(poincare.distance_to_origin(shrunk, curvature=c), before / 2)


def test_max_gain_bounds_every_block():
    layer = BlockDiagonalMobius(6, 3, max_gain=0.7)
    nn.init.normal_(layer.blocks)
    assert (torch.linalg.svdvals(layer.bounded()) <= 0.7 + 1e-6).all()
    small = BlockDiagonalMobius(6, 3, max_gain=2.0)
    torch.testing.assert_close(small.bounded(), small.blocks)
    assert small.blocks.numel() == 6 * 3


def test_identities_at_the_start():
    x = ball(5, 4, dtype=torch.float32)
    for layer in (
        BlockDiagonalMobius(4, 2),
        PoincareLinear(4, 4, init="identity"),
        nn.Sequential(LogMap0(), ExpMap0()),
        HyperbolicActivation(nn.Identity()),
    ):
        torch.testing.assert_close(layer(x), x, atol=1e-6, rtol=1e-5)
    assert BlockDiagonalMobius(4, 2, space="tangent")(20 * x).equal(20 * x)
    padded = PoincareLinear(4, 6, init="identity")(x)
    torch.testing.assert_close(padded, torch.cat([x, torch.zeros(5, 2)], 1), atol=1e-6, rtol=1e-5)
    variance = PoincareLinear(200, 100).weight.var().item()
    assert variance == pytest.approx(1 / (2 * 200 * 100), rel=0.05)
    for c in (0.01, 1.0, 30.0):
        for layer in (HyperbolicMLR(100, 200, curvature=v) for v in (c, Curvature(c))):
            assert layer.weight.var().item() == pytest.approx(1 / (100 * c), rel=0.05)


def test_activation_moves_between_curvatures():
    x = ball(5, 4, 0.5)
    got = HyperbolicActivation(torch.tanh, 0.5, curvature_out=2.0)(x)
    want = poincare.expmap0(poincare.logmap0(x, curvature=0.5).tanh(), curvature=2.0)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_activation_may_have_parameters_of_the_dtype(dtype):
    x = ball(5, 4, dtype=dtype)
    layer = HyperbolicActivation(nn.PReLU(init=0.1))
    got = layer.to(dtype)(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), layer.float()(x.float()), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("call", [hyperbolic_logits, poincare_linear, mobius_linear])
@pytest.mark.parametrize("c", [1.0, 37.0, 1e3])
def test_float16_gradients_at_the_edge_end_at_its_largest_number(call, c):
    x = poincare.project(100 * directions((20, 5), dtype=torch.float16), curvature=c)
    x.requires_grad_()
    weight = torch.randn(4, 5).half() * 100
    result = call(x, weight, torch.randn(4).half() * 5, curvature=c)
    (gradient,) = torch.autograd.grad(result.double().sum(), x)
    assert gradient.isfinite().all()
    if call is hyperbolic_logits:
        assert gradient.abs().max() == torch.finfo(torch.float16).max


@pytest.mark.parametrize("times", [1.05, 30.0])
def test_points_outside_count_as_project_leaves_them(times):
    x = times * directions((6, 4))
    kept = poincare.project(x)
    inputs = zip(_layers(x, 1.0), _layers(kept, 1.0), strict=True)
    for (name, got, _, _), (_, want, _, _) in inputs:
        # so near the edge float64 has three digits of 1 - c |x|^2
        torch.testing.assert_close(got, want, rtol=3e-3, atol=3e-3, msg=lambda m, n=name: n + m)


def test_print_shows_a_fixed_curvature():
    for layer in (
        ExpMap0(3.0),
        LogMap0(3.0),
        HyperbolicMLR(4, 2, curvature=3.0),
        BlockDiagonalMobius(4, 2, 3.0),
        MobiusLinear(4, 2, curvature=3.0),
        PoincareLinear(4, 2, curvature=3.0),
        HyperbolicActivation(nn.ReLU(), 3.0, 3.0),
    ):
        assert "curvature=3" in repr(layer)
    assert repr(ExpMap0(Curvature(2.0))).count("curvature=") == 0


def test_small_curvature_is_flat():
    x, weight, c = ball(5, 4), torch.randn(3, 4).double(), 1e-12
    offset = torch.tensor([0.1, 0.0, -0.2]).double()
    flat = x @ weight.mT - offset * weight.norm(dim=1)
    for got, want in [
        (mobius_linear(x, weight, offset, curvature=c), x @ weight.mT + offset),
        (hyperbolic_logits(x, weight, offset, curvature=c), 4 * flat),
        (poincare_linear(x, weight, offset, curvature=c), 2 * flat),
    ]:
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


def _layers(x, c, seed=0):
    """(name, result, parameters, is a point) of all layers."""
    random = torch.Generator().manual_seed(seed)
    d = x.shape[-1]

    def drawn(*shape):
        return torch.randn(*shape, generator=random).to(x.dtype).requires_grad_()

    weight, bias, blocks = drawn(3, d), drawn(3), drawn(d // 2, 2, 2)
    return [
        ("mobius_linear", mobius_linear(x, weight, bias, curvature=c), (weight, bias), True),
        ("without bias", mobius_linear(x, weight, curvature=c), (weight,), True),
        ("poincare_linear", poincare_linear(x, weight, bias, curvature=c), (weight, bias), True),
        ("logits", hyperbolic_logits(x, weight, bias, curvature=c), (weight, bias), False),
        ("blocks", block_diagonal_scaling(x, blocks, curvature=c), (blocks,), True),
        ("activation", HyperbolicActivation(nn.Tanh(), Held(c))(x), (), True),
    ]


class Held(nn.Module):
    """A curvature that is a tensor of the test."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self):
        return self.value


@pytest.mark.parametrize(("dtype", "c"), EVERY)
@pytest.mark.parametrize("outside", [False, True])
def test_never_outside_never_nan_at_any_radius(dtype, c, outside):
    x = poincare.expmap0(tangents(c, dtype), curvature=c) * (1.5 if outside else 1.0)
    x.requires_grad_()
    curvature = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    for name, result, parameters, point in _layers(x, curvature):
        assert result.dtype == dtype, name
        assert result.isfinite().all(), name
        if point:
            poincare.check_inside(result, curvature=c)
        asked = (x, curvature, *parameters)
        for gradient in torch.autograd.grad(result.sum(), asked, retain_graph=True):
            assert gradient.isfinite().all(), name


def test_zero_weights_are_no_trouble():
    x = ball(3, 4).requires_grad_()
    zero = torch.zeros(2, 4).double().requires_grad_()
    for call in (mobius_linear, poincare_linear, hyperbolic_logits):
        result = call(x, zero)
        assert not result.any()
        for gradient in torch.autograd.grad(result.sum(), (x, zero)):
            assert gradient.isfinite().all()


def test_served_by_export():
    x = ball(4, 6, dtype=torch.float32)
    model = nn.Sequential(MobiusLinear(6, 4, curvature=Curvature()), HyperbolicMLR(4, 3)).eval()
    rows = torch.export.Dim("rows", min=2)
    served = torch.export.export(model, (x,), dynamic_shapes=({0: rows},)).module()
    other = ball(7, 6, seed=3, dtype=torch.float32)
    torch.testing.assert_close(served(other), model(other))


def test_one_curvature_is_shared_and_trained():
    curvature = Curvature(0.5)
    model = nn.Sequential(ExpMap0(curvature), HyperbolicMLR(4, 3, curvature=curvature))
    assert sum(p is curvature.log_curvature for p in model.parameters()) == 1
    model(torch.randn(5, 4)).square().sum().backward()
    assert curvature.log_curvature.grad.abs() > 0


def test_fermi_dirac_falls_from_one_to_zero():
    distance = torch.tensor([0.0, 2.0, 1e4])
    torch.testing.assert_close(
        fermi_dirac(distance, radius=2.0, temperature=0.5),
        torch.tensor([torch.tensor(4.0).sigmoid(), 0.5, 0.0]),
    )
    assert fermi_dirac(distance.half()).dtype == torch.float16


def test_parameters_of_another_dtype_are_refused_but_under_autocast():
    x = ball(2, 4, dtype=torch.float32)
    layers = [MobiusLinear(4, 2), PoincareLinear(4, 2), HyperbolicMLR(4, 2)]
    layers.append(BlockDiagonalMobius(4, 2))
    for layer in layers:
        assert layer(x).dtype == x.dtype
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x.bfloat16()).dtype == torch.bfloat16
        with pytest.raises(
            TypeError, match=r"of the dtype of the points, torch.float32, got torch."
        ):
            layer.double()(x)
    with pytest.raises(
        TypeError, match=r"mobius_linear: expected bias of the dtype .* torch.float16"
    ):
        mobius_linear(x, torch.rand(2, 4), torch.rand(2).half())


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(2, 4) / 4
    with pytest.raises(ValueError, match=r"MobiusLinear: curvature must be > 0, got 0. It is c of"):
        MobiusLinear(4, 2, curvature=0)
    with pytest.raises(TypeError, match=r"HyperbolicMLR: curvature must be a number or a Module"):
        HyperbolicMLR(4, 2, curvature=torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"mobius_linear: curvature must be > 0, got -1"):
        mobius_linear(x, torch.rand(2, 4), curvature=torch.tensor(-1.0))
    with pytest.raises(ValueError, match=r"one number or a 0-d tensor, got shape \(2,\)"):
        poincare_linear(x, torch.rand(2, 4), curvature=torch.ones(2))
    with pytest.raises(ValueError, match=r"x: expected last axis of size 5, got shape \(2, 4\)"):
        MobiusLinear(5, 2)(x)
    with pytest.raises(ValueError, match=r"bias: expected last axis of size 2, got shape \(3,\)"):
        mobius_linear(x, torch.rand(2, 4), torch.rand(3))
    with pytest.raises(ValueError, match=r"offset: expected last axis of size 2, got shape \(3,\)"):
        hyperbolic_logits(x, torch.rand(2, 4), torch.rand(3))
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch.int64"):
        hyperbolic_logits(x.long(), torch.rand(2, 4))
    with pytest.raises(ValueError, match=r"block_size=3 must divide dim=4. Every block has"):
        BlockDiagonalMobius(4, 3)
    with pytest.raises(ValueError, match=r"max_gain must be > 0, got -1. 1 lets no radius grow"):
        BlockDiagonalMobius(4, 2, max_gain=-1.0)
    with pytest.raises(ValueError, match=r"blocks: expected square ones \(m, k, k\), got"):
        block_diagonal_scaling(x, torch.rand(2, 2, 3))
    with pytest.raises(ValueError, match=r"x: expected last axis of size 6, .*m blocks of k x k"):
        block_diagonal_scaling(x, torch.rand(3, 2, 2))
    with pytest.raises(
        ValueError, match=r"BlockDiagonalMobius: space must be one of ball, tangent, got"
    ):
        BlockDiagonalMobius(4, 2, space="sphere")
    with pytest.raises(ValueError, match=r"PoincareLinear: init must be one of hnnpp, id"):
        PoincareLinear(4, 2, init="zeros")
    with pytest.raises(ValueError, match=r"fermi_dirac: temperature must be > 0, got 0. 1.0 is"):
        fermi_dirac(torch.ones(2), temperature=0)
