"""GRACE's loss is SupCon of two stacked views with the nodes' numbers as labels."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses.pairs.test_contrastive import close, randn

from embedkit.losses import SupConLoss
from embedkit.ops.gram import _problem

LEFT = torch.tensor([[1, 0], [0, 1]], dtype=torch.float64)
RIGHT = torch.tensor([[1, 1], [0, 1]], dtype=torch.float64)


def grace(left, right, temperature, reduction="mean"):
    """As in the recipe."""
    ids = torch.arange(len(left)).repeat(2)
    return SupConLoss(temperature, reduction=reduction)(torch.cat([left, right]), ids)


def test_hand_numbers():
    rows = grace(LEFT, RIGHT, 0.5, "none")
    close(rows, [0.396245, 0.525913, 1.098612, 0.525913])
    close(grace(LEFT, RIGHT, 0.5), 0.636671)


@given(seed=st.integers(0, 2**31), temperature=st.sampled_from([0.2, 0.5, 0.9]))
def test_agrees_with_its_definition_and_with_pytorch_metric_learning(seed, temperature):
    left, right = (randn(5, 3, seed=seed + i).requires_grad_() for i in range(2))
    u, v = (torch.nn.functional.normalize(z) for z in (left, right))

    def one_way(u, v):
        between, within = (u @ v.T / temperature).exp(), (u @ u.T / temperature).exp()
        return -(between.diag() / (between.sum(1) + within.sum(1) - within.diag())).log()

    want = ((one_way(u, v) + one_way(v, u)) / 2).mean()
    ids = torch.arange(5).repeat(2)
    rival = importlib.import_module("pytorch_metric_learning.losses").NTXentLoss(temperature)
    found = [
        torch.autograd.grad(loss, (left, right))
        for loss in (grace(left, right, temperature), want, rival(torch.cat([left, right]), ids))
    ]
    torch.testing.assert_close(grace(left, right, temperature), want)
    for grads in found[1:]:
        torch.testing.assert_close(found[0], grads, rtol=1e-6, atol=1e-9)


def test_memory_is_linear_in_the_nodes(monkeypatch):
    monkeypatch.setitem(_problem.BLOCK_ENTRIES, "cpu", 2**14)
    left, right = torch.randn(2, 400, 8, requires_grad=True).unbind()
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else [out]
            sizes.extend(t.numel() for t in tensors if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        grace(left, right, 0.5).backward()
    assert 0 < max(sizes) <= 2**14 < 400 * 400


def test_one_node_and_none():
    assert grace(LEFT[:1], RIGHT[:1], 0.5).item() == pytest.approx(0.0, abs=1e-9)
    assert grace(LEFT[:0], RIGHT[:0], 0.5).item() == 0
