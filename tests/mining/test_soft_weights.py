"""Learned weights of negatives against their formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.mining import SoftNegativeWeight


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 4), keys=st.integers(1, 5))
def test_equals_the_network_on_every_pair(seed, rows, keys):
    torch.manual_seed(seed)
    module = SoftNegativeWeight(3, hidden=4, normalize=False).double()
    query, key = torch.randn(rows, 3).double(), torch.randn(keys, 3).double()
    network = torch.nn.Sequential(module.inner, torch.nn.Tanh(), module.outer, torch.nn.Sigmoid())
    want = network(query[:, None] + key)[..., 0]
    torch.testing.assert_close(module(query, key), want)
    module.normalize = True
    torch.testing.assert_close(module(query, key), want / want.mean(dim=1, keepdim=True))


def test_every_parameter_learns_only_how_keys_compare():
    torch.manual_seed(0)
    module = SoftNegativeWeight(3).double()
    query, key = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    module(query, key).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())
    module.zero_grad()
    module(query, key).sum().backward()  # the sum of a row is the number of keys, whatever it is
    assert all(p.grad.abs().sum() < 1e-12 for p in module.parameters())


@pytest.mark.parametrize("bias", [-110.0, -500.0, 110.0])
def test_saturated_rows_still_compare_their_keys(bias):
    torch.manual_seed(0)
    module = SoftNegativeWeight(3)
    torch.nn.init.constant_(module.outer.bias, bias)
    query, key = torch.randn(4, 3), torch.randn(5, 3)
    weight = module(query, key)
    if bias < 0:  # a sigmoid far below 0 is an exponential, in which the bias cancels
        units = torch.tanh(module.inner(query[:, None] + key))
        want = 5 * (units @ module.outer.weight[0]).softmax(dim=1)
        torch.testing.assert_close(weight, want, rtol=1e-3, atol=0)
    torch.testing.assert_close(weight.mean(dim=1), torch.ones(4), rtol=1e-3, atol=0)
    weight.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    assert module(query, key[:0]).shape == (4, 0)


@pytest.mark.wording
def test_wrong_width_says_both_sizes():
    with pytest.raises(ValueError, match=r"key: expected last axis of size 3, got shape \(2, 4\)"):
        SoftNegativeWeight(3)(torch.randn(2, 3), torch.randn(2, 4))
    with pytest.raises(ValueError, match="SoftNegativeWeight: hidden must be >= 1, got 0"):
        SoftNegativeWeight(3, 0)
