"""The gradients of the sparse product."""

import pytest
import torch

from embedkit.graph import Adjacency, Transpose, _product, build_adjacency, propagate, reweight

EDGES = torch.tensor([[0, 1, 1, 2, 2, 0, 3, 1], [1, 0, 2, 1, 0, 2, 3, 2]])
DOUBLE = {"dtype": torch.float64}


def test_values_of_a_symmetric_matrix_learn_to_differ():
    both = torch.cat([EDGES, EDGES.flip(0)], dim=1)
    adjacency = build_adjacency(both, None, 4, **DOUBLE)
    assert adjacency.transpose is None
    nodes = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    value = torch.rand_like(adjacency.value).requires_grad_()

    def run(nodes, value):
        return propagate(nodes, adjacency._replace(value=value))

    assert torch.autograd.gradcheck(run, (nodes, value))
    assert torch.autograd.gradgradcheck(run, (nodes, value))


def test_a_matrix_of_short_integers_made_by_hand():
    adjacency = build_adjacency(EDGES, None, 4, norm="row", **DOUBLE)
    short = Transpose(*(t.int() for t in adjacency.transpose))
    short = Adjacency(adjacency.crow.int(), adjacency.col.int(), adjacency.value, short)
    nodes = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(x, short), (nodes,))
    assert torch.autograd.gradgradcheck(lambda x: propagate(x, short), (nodes,))


def test_the_way_back_is_made_for_second_gradients_alone(monkeypatch):
    made = []
    monkeypatch.setattr(_product, "inverse_order", lambda order: made.append(order) or order)
    nodes = torch.randn(4, 2, requires_grad=True)
    loss = propagate(nodes, build_adjacency(EDGES)).square().sum()
    loss.backward(retain_graph=True)
    assert not made
    torch.autograd.grad(loss, nodes, create_graph=True)
    assert len(made) == 1


@pytest.mark.compile
def test_values_that_learn_compile():
    adjacency = build_adjacency(torch.cat([EDGES, EDGES.flip(0)], dim=1))
    nodes = torch.randn(4, 3, requires_grad=True)
    value = torch.rand_like(adjacency.value).requires_grad_()

    def run(nodes, value):
        return propagate(nodes, adjacency._replace(value=value)).sin()

    want = propagate(nodes, reweight(adjacency, value)).sin()
    want = torch.autograd.grad(want.sum(), (nodes, value))
    compiled = torch.compile(run, fullgraph=True)
    got = torch.autograd.grad(compiled(nodes, value).sum(), (nodes, value))
    torch.testing.assert_close(got, want)
