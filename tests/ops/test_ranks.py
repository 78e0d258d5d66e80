"""Ranks with ties averaged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from embedkit.ops.ranks import average_ranks

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]


@given(x=hnp.arrays(np.int64, hnp.array_shapes(max_dims=3, max_side=9), elements=st.integers(0, 5)))
def test_agrees_with_scipy(x):
    want = torch.tensor(stats.rankdata(x, method="average", axis=-1))
    for dtype in DTYPES:
        torch.testing.assert_close(average_ranks(torch.tensor(x).to(dtype)).double(), want)
    want = torch.tensor(stats.rankdata(x > 2, method="average", axis=-1))
    torch.testing.assert_close(average_ranks(torch.tensor(x > 2)).double(), want)


@given(seed=st.integers(0, 2**31))
def test_an_increasing_map_and_the_order_change_nothing(seed):
    torch.manual_seed(seed)
    x, order = torch.randn(7, dtype=torch.float64), torch.randperm(7)
    assert average_ranks(x.exp()).equal(average_ranks(x))
    assert average_ranks(x[order]).equal(average_ranks(x)[order])
    torch.testing.assert_close(average_ranks(-x), 8 - average_ranks(x))


def test_infinity_has_a_rank_and_nan_spoils_its_row_only():
    x = torch.tensor([[1.0, torch.inf, -torch.inf], [1.0, torch.nan, 2.0], [0.0, -0.0, 1.0]])
    want = torch.tensor([[2, 3, 1], [torch.nan] * 3, [1.5, 1.5, 3.0]])
    torch.testing.assert_close(average_ranks(x), want, equal_nan=True)


def test_shapes_dtypes_and_gradients():
    assert average_ranks(torch.empty(2, 0)).shape == (2, 0)
    assert average_ranks(torch.rand(3, dtype=torch.float64)).dtype == torch.float64
    assert average_ranks(torch.rand(3, dtype=torch.bfloat16)).dtype == torch.float32
    assert average_ranks(torch.rand(3, device="meta")).device.type == "meta"
    assert not average_ranks(torch.rand(3, requires_grad=True)).requires_grad
    columns = torch.rand(4, 3).T
    assert average_ranks(columns).equal(average_ranks(columns.contiguous()))


@pytest.mark.wording
def test_a_single_number_has_no_rank():
    with pytest.raises(ValueError, match="expected entries on the last axis, got a single number"):
        average_ranks(torch.tensor(1.0))
