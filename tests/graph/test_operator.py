import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric import EdgeIndex

from embedkit.graph import (
    DAGNN,
    GCNEncoder,
    LightGCNConv,
    NGCFConv,
    build_adjacency,
    propagate,
)
from embedkit.graph._operator import as_operator

EDGES = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 0]])


@given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from(["sym", "row", "gcn", "none"]),
    self_loops=st.booleans(),
    weighted=st.booleans(),
)
def test_edges_agree_with_the_operator_built_of_them(seed, norm, self_loops, weighted):
    torch.manual_seed(seed)
    edges = torch.randint(0, 9, (2, 30))
    weight = torch.rand(30) + 0.1 if weighted else None
    nodes = torch.randn(9, 4)
    given_edges = as_operator("it", nodes, edges, weight, norm=norm, self_loops=self_loops)
    built = build_adjacency(edges, weight, 9, norm=norm, self_loops=self_loops)
    torch.testing.assert_close(
        propagate(nodes, given_edges), propagate(nodes, built), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["sym", "row", "gcn"])
def test_degrees_of_a_hub_are_not_added_up_in_half_precision(dtype, norm):
    leaf = torch.arange(1, 1001)
    star = torch.stack([leaf, torch.zeros_like(leaf)])
    both = torch.cat([star, star.flip(0)], dim=1)
    nodes = torch.ones(1001, 2)
    weight = torch.ones(2000, dtype=dtype)
    got = propagate(nodes, as_operator("it", nodes, both, weight, norm=norm))
    want = propagate(nodes, as_operator("it", nodes, both, weight.float(), norm=norm))
    torch.testing.assert_close(got, want, atol=0, rtol=1e-6)


def test_edges_agree_with_the_operator_at_a_hub():
    torch.manual_seed(0)
    leaf = torch.arange(1, 200_001)
    star, weight = torch.stack([leaf, torch.zeros_like(leaf)]), torch.rand(200_000)
    nodes = torch.randn(200_001, 1) + 1
    given_edges = as_operator("it", nodes, star, weight, norm="row")
    built = build_adjacency(star, weight, 200_001, norm="row")
    torch.testing.assert_close(
        propagate(nodes, given_edges), propagate(nodes, built), atol=0, rtol=1e-6
    )


def test_gradients_reach_nodes_and_edge_weights():
    weight = torch.rand(6, dtype=torch.float64, requires_grad=True)
    nodes = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def run(nodes, weight):
        return propagate(nodes, as_operator("it", nodes, EDGES, weight))

    assert torch.autograd.gradcheck(run, (nodes, weight))


def test_the_edge_index_of_pyg_and_short_integers():
    nodes = torch.randn(3, 2)
    want = propagate(nodes, as_operator("it", nodes, EDGES))
    typed = EdgeIndex(EDGES, sparse_size=(3, 3))
    assert torch.equal(propagate(nodes, as_operator("it", nodes, typed)), want)
    assert torch.equal(propagate(nodes, as_operator("it", nodes, EDGES.int())), want)


@pytest.mark.compile
def test_edges_compile_into_one_graph():
    nodes = torch.randn(3, 2)

    def run(nodes, edges):
        return propagate(nodes, as_operator("it", nodes, edges))

    torch.testing.assert_close(torch.compile(run, fullgraph=True)(nodes, EDGES), run(nodes, EDGES))


@pytest.mark.parametrize("norm", ["sym", "gcn"])
def test_a_negative_degree(norm):
    nodes, weight = torch.randn(3, 2), torch.full((6,), -2.0)
    text = (
        rf'it: norm="{norm}" takes the root .* add up to less than 0; edge_weight goes down to -2'
    )
    with pytest.raises(ValueError, match=text):
        as_operator("it", nodes, EDGES, weight, norm=norm)
    assert as_operator("it", nodes, EDGES, weight, norm="row").value.min() > 0
    weight[0] = float("nan")  # whoever brings it gets it back
    assert as_operator("it", nodes, EDGES, weight, norm=norm).value.isnan().any()


@pytest.mark.wording
def test_a_pair_in_place_of_nodes():
    pair = torch.randn(3, 2), torch.randn(3, 2)
    for layer in (LightGCNConv(), NGCFConv(2, 2), DAGNN(2, 2, 2), GCNEncoder([2, 2])):
        with pytest.raises(
            TypeError, match=r"nodes must be one tensor \(n, d\) .* got a tuple\. P"
        ):
            layer(pair, EDGES)


def test_weights_beside_an_operator():
    nodes = torch.randn(3, 2)
    with pytest.raises(ValueError, match=r"it: an Adjacency holds its weights already"):
        as_operator("it", nodes, build_adjacency(EDGES), torch.ones(6))


def test_edges_of_another_graph():
    with pytest.raises(ValueError, match=r"it: edge_index must lie in \[0, 1\] for num_nodes=2"):
        as_operator("it", torch.randn(2, 2), EDGES)
    with pytest.raises(ValueError, match=r"nodes: expected 3 rows, got shape \(2, 2\). it: one"):
        as_operator("it", torch.randn(2, 2), build_adjacency(EDGES))
