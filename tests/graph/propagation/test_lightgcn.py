"""LightGCN's layer, beside PyG's."""

import warnings

import pytest
import torch
from graph.cases_propagation import CASES
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import bipartite_adjacency, build_adjacency
from embedkit.graph.propagation.combination import LayerCombination
from embedkit.graph.propagation.lightgcn import LightGCNConv
from embedkit.testing import check_module

USER, ITEM = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
TABLE = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0.5, -1], [-1, 0.5]], dtype=torch.float64)
GRAPH = bipartite_adjacency(USER, ITEM, 2, 3, dtype=torch.float64)


def pyg():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_geometric.nn
    return torch_geometric.nn


def random_graph(seed, nodes=7, edges=16):
    draw = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(nodes, (2, edges), generator=draw)
    return edge_index, torch.rand(edges, generator=draw, dtype=torch.float64)


def test_hand_numbers():
    conv = LightGCNConv()
    once = conv(TABLE, GRAPH)
    want = [[0.957107, 0.207107], [-0.457107, -0.146447], [0.707107, 0], [0.5, 0.5], [0, 0.707107]]
    torch.testing.assert_close(once, torch.tensor(want).double(), atol=1e-6, rtol=0)
    vectors = LayerCombination()([TABLE, once, conv(once, GRAPH)])
    want = [
        [0.902369, 0.152369],
        [-0.069036, 0.534518],
        [0.794628, 0.382149],
        [0.416667, -0.156557],
        [-0.441074, 0.367851],
    ]
    torch.testing.assert_close(vectors, torch.tensor(want).double(), atol=1e-6, rtol=0)
    scores = [[0.775275, 0.352133, -0.341963], [0.149408, -0.112447, 0.227073]]
    torch.testing.assert_close(
        vectors[:2] @ vectors[2:].T, torch.tensor(scores).double(), atol=1e-6, rtol=0
    )


@given(seed=st.integers(0, 2**31), weighted=st.booleans())
def test_agrees_with_pyg(seed, weighted):
    edge_index, weight = random_graph(seed)
    weight = weight if weighted else None
    nodes, theirs = torch.randn(7, 3).double(), pyg().LGConv()
    ones = torch.ones(16, dtype=torch.float64)
    want = theirs(nodes, edge_index, ones if weight is None else weight)
    ours = LightGCNConv()(nodes, edge_index, weight)
    torch.testing.assert_close(ours, want, atol=1e-6, rtol=0)
    built = build_adjacency(edge_index, weight, 7, dtype=torch.float64)
    torch.testing.assert_close(LightGCNConv()(nodes, built), want, atol=1e-6, rtol=0)


def test_stands_in_a_sequence_of_pyg():
    nodes = torch.randn(5, 4)
    steps = [(LightGCNConv(), "x, edges -> x"), torch.nn.Linear(4, 2)]
    out = pyg().Sequential("x, edges", steps)(nodes, GRAPH)
    torch.testing.assert_close(out, steps[1](LightGCNConv()(nodes, GRAPH)))


def test_many_layers_stay_bounded_and_keep_the_roots_of_degrees():
    degree = torch.tensor([2, 2, 1, 2, 1]).double()
    x = TABLE
    for _ in range(200):
        x = LightGCNConv()(x, GRAPH)
    assert x.norm() <= TABLE.norm()
    root = degree.sqrt()[:, None]
    torch.testing.assert_close(LightGCNConv()(root, GRAPH), root)


def test_scores_ignore_a_rotation_of_the_table():
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]]).double()
    out, turned = (LightGCNConv()(x, GRAPH) for x in (TABLE, TABLE @ turn))
    torch.testing.assert_close(turned @ turned.T, out @ out.T)


def test_contract():
    check_module(*CASES[LightGCNConv], exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[LightGCNConv], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    edge_index = torch.tensor([[0, 5], [1, 0]])
    with pytest.raises(ValueError, match=r"LightGCNConv: edge_index must lie in \[0, 4\] for num"):
        LightGCNConv()(TABLE, edge_index)
    with pytest.raises(ValueError, match=r"must have shape \(2, e\).* got \(4, 2\).* transposed"):
        LightGCNConv()(TABLE, torch.zeros(4, 2).long())
    with pytest.raises(ValueError, match="edge_weight: expected 2 rows"):
        LightGCNConv()(TABLE, edge_index - edge_index, torch.ones(3))
