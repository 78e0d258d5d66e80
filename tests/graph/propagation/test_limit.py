"""What infinitely many hops come to."""

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import build_adjacency, propagate
from embedkit.graph.propagation.limit import propagation_limit

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


def both(index):
    return torch.cat([index, index.flip(0)], dim=1)


def matrix(limit):
    return limit.propagate(torch.eye(len(limit.left), dtype=torch.float64))


def test_hand_numbers():
    limit = propagation_limit(PATH)
    phi = [[0.285714, 0.349927, 0.285714], [0.349927, 0.428571, 0.349927]]
    want = torch.tensor([*phi, phi[0]]).double()
    torch.testing.assert_close(matrix(limit), want, atol=1e-6, rtol=0)
    pi = [0.285714, 0.428571, 0.285714]
    got = matrix(propagation_limit(PATH, kind="rw"))
    torch.testing.assert_close(got, torch.tensor([pi] * 3).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["sym", "rw"])
@pytest.mark.parametrize("weighted", [False, True])
@given(seed=st.integers(0, 2**31))
def test_it_is_what_many_hops_come_to(kind, weighted, seed):
    torch.manual_seed(seed)
    index = torch.randint(8, (2, 7))
    weight = torch.rand(7).double() + 0.5 if weighted else None
    index, weight = both(index), None if weight is None else weight.repeat(2)
    norm = {"sym": "gcn", "rw": "row"}[kind]
    dense = torch.eye(9, dtype=torch.float64)
    adjacency = build_adjacency(index, weight, 9, norm=norm, self_loops=True, dtype=torch.float64)
    power = propagate(dense, adjacency)
    for _ in range(12):  # 4096 hops
        power = power @ power
    limit = propagation_limit(index, weight, 9, kind=kind)
    if weight is None:
        limit = type(limit)(limit.left.double(), limit.right.double(), limit.component)
    torch.testing.assert_close(limit.propagate(dense), power, atol=1e-6, rtol=1e-5)


@given(seed=st.integers(0, 2**31), edges=st.integers(0, 60), n=st.integers(1, 40))
def test_components_are_those_of_networkx(seed, edges, n):
    torch.manual_seed(seed)
    index = torch.randint(n, (2, edges))
    found = nx.Graph()
    found.add_nodes_from(range(n))
    found.add_edges_from(index.T.tolist())
    component = propagation_limit(both(index), num_nodes=n).component
    groups = {frozenset((component == c).nonzero()[:, 0].tolist()) for c in component.unique()}
    assert groups == {frozenset(nodes) for nodes in nx.connected_components(found)}
    assert component.unique().tolist() == list(range(len(groups)))


@pytest.mark.parametrize("order", ["up", "down", "mixed", "star"])
def test_long_paths_and_stars_are_one_component(order):
    nodes = {"up": torch.arange(3000), "down": torch.arange(3000).flip(0)}
    nodes = nodes.get(order, torch.randperm(3000))
    ends = nodes[:1].expand(2999) if order == "star" else nodes[:-1]
    limit = propagation_limit(both(torch.stack([ends, nodes[1:]])))
    assert not limit.component.any()


def test_an_isolated_node_keeps_its_vector_and_an_empty_graph_is_empty():
    limit = propagation_limit(PATH, num_nodes=4)
    nodes = torch.randn(4, 2)
    torch.testing.assert_close(limit.propagate(nodes)[3], nodes[3])
    assert limit.component.tolist() == [0, 0, 0, 1]
    nothing = propagation_limit(torch.empty(2, 0, dtype=torch.long), num_nodes=0)
    assert nothing.propagate(torch.randn(0, 2)).shape == (0, 2)


def test_dtypes_and_gradients():
    weight = torch.ones(4, dtype=torch.float64)
    assert propagation_limit(PATH, weight).left.dtype == torch.float64
    limit = propagation_limit(PATH)
    half = torch.randn(3, 2, dtype=torch.bfloat16)
    assert limit.propagate(half).dtype == torch.bfloat16
    nodes = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(limit.propagate, (nodes,))


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match="the graph must be undirected, with both directions"):
        propagation_limit(PATH[:, :1])
    with pytest.raises(ValueError, match="the graph must be undirected"):
        propagation_limit(PATH, torch.tensor([1.0, 2.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match=r"edge_weight must be > 0, got -1. Leave edges without"):
        propagation_limit(PATH, torch.tensor([1.0, 1.0, -1.0, -1.0]))
    with pytest.raises(ValueError, match="kind must be one of sym, rw, got 'row'"):
        propagation_limit(PATH, kind="row")
    with pytest.raises(ValueError, match=r"edge_index must lie in \[0, 1\] for num_nodes=2"):
        propagation_limit(PATH, num_nodes=2)
    with pytest.raises(TypeError, match="edge_index: expected integers"):
        propagation_limit(PATH.float())
    with pytest.raises(ValueError, match="nodes: expected 3 rows"):
        propagation_limit(PATH).propagate(torch.randn(2, 2))
