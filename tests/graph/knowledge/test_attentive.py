"""Aggregators and the stack of them."""

import pytest
import torch
from graph.cases_knowledge import CASES
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import adjacency_from_entries
from embedkit.graph.knowledge.attentive import (
    AttentivePropagation,
    BiInteractionAggregator,
    GCNAggregator,
    SAGEAggregator,
)
from embedkit.testing import check_module

EVERY = [BiInteractionAggregator, GCNAggregator, SAGEAggregator]
NODE, NEIGHBORS = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.712006, 1.0]])
ONE, TURN = torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])


def filled(make, *weights):
    layer = make(2, 2)
    with torch.no_grad():
        for part, weight in zip(layer.children(), weights, strict=True):
            part.weight.copy_(weight)
    return layer


def near(got, want):
    torch.testing.assert_close(got, torch.tensor([want]), rtol=0, atol=1e-6)


def test_hand_numbers():
    mixed = filled(BiInteractionAggregator, ONE, TURN)(NODE, NEIGHBORS)
    near(mixed, [1.712006, 0.857599])
    near(filled(GCNAggregator, ONE)(NODE, NEIGHBORS), [1.712006, 1.0])
    near(filled(SAGEAggregator, torch.cat([ONE, TURN], 1))(NODE, NEIGHBORS), [2.0, -0.142401])
    stack = AttentivePropagation((2, 2), dropout=0.0)
    stack.layers[0] = filled(BiInteractionAggregator, ONE, TURN)
    nodes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    edges, weight = torch.tensor([[1, 2], [0, 0]]), torch.tensor([0.287994, 0.712006])
    near(stack(nodes, edges, weight)[:1], [1.0, 0.0, 0.894094, 0.447880])


def test_without_the_product_it_is_the_form_of_a_gcn():
    torch.manual_seed(0)
    both, one = BiInteractionAggregator(4, 3), GCNAggregator(4, 3)
    with torch.no_grad():
        both.product.weight.zero_()
        one.total.weight.copy_(both.total.weight)
    nodes, neighbors = torch.randn(2, 5, 4)
    torch.testing.assert_close(both(nodes, neighbors), one(nodes, neighbors))


@pytest.mark.parametrize("aggregator", EVERY)
@given(seed=st.integers(0, 2**31))
def test_the_stack_is_a_loop_over_its_layers(aggregator, seed):
    torch.manual_seed(seed)
    stack = AttentivePropagation((4, 3, 2), aggregator).double().eval()
    dense, nodes = torch.rand(5, 5).double() * (torch.rand(5, 5) < 0.4), torch.randn(5, 4).double()
    row, col = dense.nonzero().T
    adjacency = adjacency_from_entries(row, col, dense[row, col], 5, 5)
    want, x = [nodes], nodes
    for layer in stack.layers:
        x = layer(x, dense @ x)
        want.append(torch.nn.functional.normalize(x, dim=1))
    torch.testing.assert_close(stack(nodes, adjacency), torch.cat(want, 1))


@given(seed=st.integers(0, 2**31))
def test_an_edge_list_gives_the_same(seed):
    torch.manual_seed(seed)
    stack, nodes = AttentivePropagation((4, 3, 2)).double().eval(), torch.randn(6, 4).double()
    edges, weight = torch.randint(0, 6, (2, 14)), torch.rand(14).double() + 0.1
    total = torch.zeros(6).double().index_add(0, edges[1], weight)
    share = weight / total[edges[1]]
    adjacency = adjacency_from_entries(edges[1], edges[0], share, 6, 6)
    torch.testing.assert_close(stack(nodes, edges, weight), stack(nodes, adjacency))
    torch.testing.assert_close(stack(nodes, edges, share), stack(nodes, adjacency))
    torch.testing.assert_close(stack(nodes, edges), stack(nodes, edges, torch.ones(14).double()))


def test_renamed_nodes_give_renamed_results():
    torch.manual_seed(0)
    stack, nodes, edges = (
        AttentivePropagation((4, 3)).eval(),
        torch.randn(6, 4),
        torch.randint(0, 6, (2, 9)),
    )
    new = torch.randperm(6)
    moved = torch.empty_like(nodes)
    moved[new] = nodes
    torch.testing.assert_close(stack(moved, new[edges])[new], stack(nodes, edges))


def test_defaults_and_dropout():
    stack = AttentivePropagation()
    nodes, edges = torch.randn(9, 64), torch.randint(0, 9, (2, 30))
    assert stack(nodes, edges).shape == (9, 176)
    assert [type(layer) for layer in stack.layers] == [BiInteractionAggregator] * 3
    assert (stack(nodes, edges)[:, 64:] == 0).any()
    assert torch.equal(stack.eval()(nodes, edges), stack(nodes, edges))
    assert torch.equal(stack(nodes, edges)[:, :64], nodes)


def test_inside_sequential_of_torch_geometric():
    from torch_geometric.nn import Sequential

    stack = AttentivePropagation((4, 3)).eval()
    model = Sequential("x, edge_index", [(stack, "x, edge_index -> x"), torch.nn.Linear(7, 2)])
    assert model(torch.randn(5, 4), torch.randint(0, 5, (2, 8))).shape == (5, 2)


@pytest.mark.parametrize("module", [AttentivePropagation, *EVERY])
def test_contract(module):
    check_module(*CASES[module], exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("module", [AttentivePropagation, *EVERY])
def test_contract_compiled(module):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[module], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    x, edges = torch.rand(5, 4), torch.tensor([[0, 1], [1, 5]])
    for make in EVERY:
        with pytest.raises(ValueError, match=f"{make.__name__}: in_features must be >= 1, got 0"):
            make(0, 2)
        with pytest.raises(ValueError, match=r"nodes: expected last axis of size 3, got shape \(5"):
            make(3, 2)(x, x)
        with pytest.raises(
            ValueError, match=r"nodes \(5, 4\), neighbors \(4, 4\). One row of each"
        ):
            make(4, 2)(x, x[:4])
    with pytest.raises(ValueError, match=r"at least two, got \[4\]"):
        AttentivePropagation([4])
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1"):
        AttentivePropagation((4, 3), dropout=1.0)
    with pytest.raises(ValueError, match=r"nodes: expected last axis of size 3.*rebuild it"):
        AttentivePropagation((3, 2))(x, edges[:, :1])
    with pytest.raises(
        ValueError, match=r"edge_index must lie in \[0, 4\].*got values in \[0, 5\]"
    ):
        AttentivePropagation((4, 2))(x, edges)
    with pytest.raises(TypeError, match=r"edge_index: expected integers, got torch\.float32"):
        AttentivePropagation((4, 2))(x, edges.float())
