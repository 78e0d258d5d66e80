import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim, export

from embedkit.heads import MatryoshkaHead, truncate_embedding

SEEDS = st.integers(0, 2**31)
VECTOR = torch.tensor([3.0, 4.0, 12.0]).double()


def close(got, want):
    torch.testing.assert_close(got, torch.tensor(want).double(), rtol=0, atol=1e-6)


def test_slices_then_normalises_by_hand():
    close(truncate_embedding(VECTOR, 3), [0.230769, 0.307692, 0.923077])
    close(truncate_embedding(VECTOR, 2), [0.6, 0.8])
    close(truncate_embedding(VECTOR, 2, normalize=False), [3.0, 4.0])
    wrong_order = truncate_embedding(truncate_embedding(VECTOR, 3), 2, normalize=False)
    close(wrong_order.norm(), 0.384615)


@given(seed=SEEDS, dim=st.integers(1, 6))
def test_agrees_with_torch_normalize_of_the_slice(seed, dim):
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 6).double()
    torch.testing.assert_close(truncate_embedding(x, dim), F.normalize(x[..., :dim], dim=-1))


@given(seed=SEEDS, dim=st.integers(1, 6))
def test_what_is_cut_off_never_matters(seed, dim):
    torch.manual_seed(seed)
    x = torch.randn(3, 6).requires_grad_()
    other = torch.cat([x[:, :dim], torch.full((3, 6 - dim), torch.nan)], dim=1)
    out = truncate_embedding(other, dim)
    assert torch.equal(out, truncate_embedding(x, dim))
    (gradient,) = torch.autograd.grad(out.sum(), other)
    assert (gradient[:, dim:] == 0).all()


@given(seed=SEEDS, wide=st.integers(2, 6))
def test_truncating_twice_is_truncating_once(seed, wide):
    torch.manual_seed(seed)
    x = torch.randn(3, 6).double()
    torch.testing.assert_close(
        truncate_embedding(truncate_embedding(x, wide), 2), truncate_embedding(x, 2)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_slice_of_zeros_stays_zero_and_has_no_gradient(dtype):
    x = torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0]], dtype=dtype, requires_grad=True)
    out = truncate_embedding(x, 2)
    out.sum().backward()
    assert out.dtype == dtype
    assert out.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert x.grad.tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_lengths_that_half_precision_cannot_square_are_exact():
    x = torch.tensor([[3e4, 4e4], [3e-5, 4e-5]], dtype=torch.float16)
    want = torch.tensor([[0.6, 0.8], [0.6, 0.8]], dtype=torch.float16)
    torch.testing.assert_close(truncate_embedding(x, 2), want, rtol=0, atol=2e-3)


def test_an_empty_batch():
    assert truncate_embedding(torch.randn(0, 6), 4).shape == (0, 4)


@given(seed=SEEDS, bias=st.booleans())
def test_head_agrees_with_a_linear_layer_of_the_widest_width(seed, bias):
    torch.manual_seed(seed)
    head, oracle = MatryoshkaHead(6, [2, 4, 8], bias), nn.Linear(6, 8, bias)
    oracle.load_state_dict(head.linear.state_dict())
    x = torch.randn(2, 3, 6)
    assert torch.equal(head(x), oracle(x))
    assert head.dims == (2, 4, 8)
    assert (head.linear.bias is not None) == bias


@given(seed=SEEDS)
def test_a_prefix_is_what_a_narrower_head_gives(seed):
    torch.manual_seed(seed)
    wide, narrow = MatryoshkaHead(6, [2, 4, 8]), MatryoshkaHead(6, [2, 4])
    with torch.no_grad():
        narrow.linear.weight.copy_(wide.linear.weight[:4])
        narrow.linear.bias.copy_(wide.linear.bias[:4])
    x = torch.randn(3, 6)
    torch.testing.assert_close(truncate_embedding(wide(x), 4), truncate_embedding(narrow(x), 4))


def test_head_is_not_normalised_and_gives_back_the_dtype():
    head = MatryoshkaHead(6, [2, 4])
    x = torch.randn(3, 6)
    torch.testing.assert_close(head(x * 10) - head.linear.bias, (head(x) - head.linear.bias) * 10)
    assert head(x.bfloat16()).dtype == torch.bfloat16


def test_head_starts_as_a_linear_layer_and_resets():
    torch.manual_seed(3)
    head = MatryoshkaHead(6, [2, 4])
    torch.manual_seed(3)
    oracle = nn.Linear(6, 4)
    assert torch.equal(head.linear.weight, oracle.weight)
    with torch.no_grad():
        head.linear.weight.fill_(7.0)
    head.reset_parameters()
    assert not (head.linear.weight == 7.0).any()
    assert "dims=(2, 4)" in repr(head)


@pytest.mark.compile
def test_head_and_truncation_export_with_a_dynamic_batch():
    class Served(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = MatryoshkaHead(6, [2, 4])

        def forward(self, x):
            return truncate_embedding(self.head(x), 2)

    module = Served()
    program = export(module, (torch.randn(3, 6),), dynamic_shapes=({0: Dim("b", min=0)},)).module()
    for b in (3, 7, 1, 0):
        x = torch.randn(b, 6)
        torch.testing.assert_close(program(x), module(x))


@pytest.mark.wording
def test_truncation_errors_teach():
    x = torch.randn(2, 6)
    with pytest.raises(
        ValueError, match=r"dim=8 is wider than x, of shape \(2, 6\). Truncation keep"
    ):
        truncate_embedding(x, 8)
    with pytest.raises(ValueError, match="truncate_embedding: dim must be >= 1, got 0"):
        truncate_embedding(x, 0)
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch\.int64"):
        truncate_embedding(x.long(), 2)


@pytest.mark.parametrize("dims", [[], [0, 2], [4, 2], [2, 2], [-1]])
def test_widths_must_increase(dims):
    with pytest.raises(ValueError, match="MatryoshkaHead: dims must be positive, different and in"):
        MatryoshkaHead(6, dims)


@pytest.mark.wording
def test_head_errors_teach():
    with pytest.raises(ValueError, match="MatryoshkaHead: in_features must be >= 1, got 0"):
        MatryoshkaHead(0, [2])
    with pytest.raises(ValueError, match=r"x: expected last axis of size 6, got shape \(2, 5\)"):
        MatryoshkaHead(6, [2])(torch.randn(2, 5))
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch\.int64"):
        MatryoshkaHead(6, [2])(torch.ones(2, 6, dtype=torch.long))
