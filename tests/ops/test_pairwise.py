import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from embedkit.ops import normalize


@given(seed=st.integers(0, 2**31), exponent=st.integers(-11, 36))
def test_scale_never_matters(seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 7, generator=generator) + 0.1
    torch.testing.assert_close(normalize(x * 10.0**exponent), normalize(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rows_have_length_one_and_keep_their_dtype(dtype):
    x = torch.randn(2, 3, 300).to(dtype) * 200
    out = normalize(x)
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.double().norm(dim=-1), torch.ones(2, 3).double(), rtol=0, atol=torch.finfo(dtype).eps
    )
    torch.testing.assert_close(out.double(), F.normalize(x.double(), dim=-1).to(dtype).double())


def test_agrees_with_torch_values_and_gradients():
    x = torch.randn(5, 6).double().requires_grad_()
    weight = torch.randn(5, 6).double()
    ours, theirs = (
        torch.autograd.grad((f(x) * weight).sum(), x)[0]
        for f in (normalize, lambda x: F.normalize(x, dim=-1))
    )
    torch.testing.assert_close(normalize(x), F.normalize(x, dim=-1))
    torch.testing.assert_close(ours, theirs)


def test_gradients_match_finite_differences_twice():
    x = torch.randn(3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(normalize, x)
    assert torch.autograd.gradgradcheck(normalize, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_zero_and_short_rows_give_zeros_and_a_zero_gradient(dtype):
    x = torch.zeros(3, 4, dtype=dtype)
    x[1] = 4e-13
    x[2] = torch.tensor([3.0, 0.0, 4.0, 0.0])
    x.requires_grad_()
    out = normalize(x)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    want = torch.tensor([[0.0] * 4, [0.0] * 4, [0.6, 0.0, 0.8, 0.0]], dtype=dtype)
    torch.testing.assert_close(out, want)
    assert (grad[:2] == 0).all()
    assert grad[2].isfinite().all()
    (again,) = torch.autograd.grad(grad.square().sum(), x)
    assert again.isfinite().all()


def test_the_length_that_counts_as_zero_is_that_of_the_row():
    x = torch.full((2, 4), 6e-13).double()
    x[1] = 4e-13
    assert normalize(x).norm(dim=-1).tolist() == [pytest.approx(1.0), 0.0]


@pytest.mark.parametrize("big", [1e30, torch.finfo(torch.float32).max])
def test_huge_entries_have_finite_values_and_gradients(big):
    x = torch.tensor([[3.0, -4.0], [1.0, 1e-38]]) / 4 * big
    x.requires_grad_()
    out = normalize(x)
    out.sum().backward()
    torch.testing.assert_close(out, torch.tensor([[0.6, -0.8], [1.0, 1e-38]]))
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_rows_become_nan_and_spoil_no_other(bad):
    x = torch.tensor([[bad, 1.0, 0.0], [0.0, 2.0, 0.0]], requires_grad=True)
    out = normalize(x)
    assert out[0].isnan().all()
    assert out[1].tolist() == [0.0, 1.0, 0.0]
    out[1].sum().backward()
    assert x.grad[1].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (0,), (4,), (2, 0, 3)])
def test_any_shape_is_kept(shape):
    x = torch.ones(shape, requires_grad=True)
    out = normalize(x)
    out.sum().backward()
    assert out.shape == shape
    assert x.grad.shape == shape


@pytest.mark.compile
def test_compiles_to_one_graph():
    x = torch.randn(4, 5)
    x[2] = 0.0
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    outs = [
        f(leaf)
        for f, leaf in zip(
            (normalize, torch.compile(normalize, fullgraph=True, backend="aot_eager")),
            leaves,
            strict=True,
        )
    ]
    for out in outs:
        (out * torch.arange(5.0)).sum().backward()
    torch.testing.assert_close(outs[1], outs[0])
    torch.testing.assert_close(leaves[1].grad, leaves[0].grad)


def test_autocast_changes_nothing():
    x = torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = normalize(x)
    assert torch.equal(out, normalize(x))


@pytest.mark.wording
def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch.int64"):
        normalize(torch.ones(2, 3, dtype=torch.long))


@pytest.mark.wording
def test_a_number_is_refused():
    with pytest.raises(ValueError, match="x: expected rows on the last axis"):
        normalize(torch.tensor(3.0))
