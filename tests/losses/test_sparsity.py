import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses.sparsity import flops_regularizer, l1_regularizer

BOTH = pytest.mark.parametrize("loss", [flops_regularizer, l1_regularizer])


def test_flops_agree_with_sentence_transformers():
    losses = importlib.import_module("sentence_transformers.sparse_encoder.losses")
    x = torch.rand(6, 9).double().requires_grad_()  # they take activations >= 0
    want = losses.FlopsLoss(torch.nn.Identity()).compute_loss_from_embeddings(x)
    got = flops_regularizer(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


@given(seed=st.integers(0, 2**31), b=st.integers(1, 5), v=st.integers(1, 5))
def test_by_loops(seed, b, v):
    x = torch.randn(b, v, generator=torch.Generator().manual_seed(seed)).double()
    rows = x.tolist()
    means = [sum(abs(row[j]) for row in rows) / b for j in range(v)]
    assert flops_regularizer(x).item() == pytest.approx(sum(m * m for m in means))
    assert l1_regularizer(x).item() == pytest.approx(sum(means))


def test_uneven_lists_cost_more_than_even_ones():
    even, uneven = torch.eye(4), torch.eye(4)[[0, 0, 0, 0]]
    assert flops_regularizer(even) == 0.25
    assert flops_regularizer(uneven) == 1.0
    assert l1_regularizer(even) == l1_regularizer(uneven) == 1.0


def test_it_makes_rows_sparse():
    x = torch.rand(8, 20)
    for _ in range(300):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(flops_regularizer(x) - 0.2 * x[:, 0].sum() / 8, x)
        x = (x - 0.5 * gradient).detach().relu()
    assert (x[:, 0] > 0).all()
    assert (x[:, 1:] < 0.1).all()


@BOTH
def test_rows_may_change_their_order(loss):
    x = torch.randn(7, 3)
    torch.testing.assert_close(loss(x[torch.randperm(7)]), loss(x))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1), (4, 5)])
def test_any_shape_and_dtype_is_finite(loss, dtype, shape):
    x = (100 * torch.randn(shape)).to(dtype)
    x[:1] = 0
    x.requires_grad_()
    value = loss(x)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert value.isfinite()
    assert torch.autograd.grad(value, x)[0].isfinite().all()


@BOTH
def test_gradients_match_finite_differences(loss):
    assert torch.autograd.gradcheck(loss, torch.randn(3, 4).double().requires_grad_())


@BOTH
def test_non_finite_input_gives_a_non_finite_loss(loss):
    x = torch.randn(3, 4)
    x[1, 2] = torch.nan
    assert loss(x).isnan()


@BOTH
@pytest.mark.compile
def test_compiles_to_one_graph(loss):
    torch.compiler.reset()
    x = torch.randn(3, 4)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), loss(x))


@BOTH
@pytest.mark.wording
def test_errors_teach(loss):
    with pytest.raises(TypeError, match="activations: expected a floating-point tensor"):
        loss(torch.ones(2, 3).long())
    with pytest.raises(
        ValueError, match=r"activations: expected 2 axes \(b, v\), got shape \(3,\)"
    ):
        loss(torch.ones(3))
