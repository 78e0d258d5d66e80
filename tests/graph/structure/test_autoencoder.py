"""SDNE: rows of a graph, both ways to encode them, and that it learns a graph."""

import pytest
import torch
from graph.cases_sdne import CASES

from embedkit.graph import build_adjacency
from embedkit.graph.structure.autoencoder import SDNE, neighbor_rows
from embedkit.losses.sdne import sdne_loss
from embedkit.testing import check_module

RING = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])


def ring():
    return build_adjacency(torch.cat([RING, RING.flip(0)], 1), num_nodes=7, norm="none")


def test_rows_are_those_of_the_dense_matrix():
    edges = torch.tensor([[0, 1, 4, 2], [3, 0, 0, 2]])
    graph = build_adjacency(edges, torch.tensor([1.0, 2, 3, 4]), num_nodes=5, norm="none")
    dense = torch.zeros(5, 5).index_put((edges[1], edges[0]), torch.tensor([1.0, 2, 3, 4]))
    nodes = torch.tensor([3, 0, 0, 1, 2])
    torch.testing.assert_close(neighbor_rows(graph, nodes), dense[nodes])
    assert neighbor_rows(graph, nodes[:0]).shape == (0, 5)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_sparse_and_dense_rows_have_one_code(activation):
    torch.manual_seed(0)
    model, graph = SDNE(7, hidden=(5, 4), dim=3, activation=activation), ring()
    rows = neighbor_rows(graph, torch.arange(7))
    torch.testing.assert_close(model.encode(graph), model.encode(rows))
    rebuilt, code = model(rows)
    torch.testing.assert_close(rebuilt, model.decode(code))
    assert (rebuilt.amin() > 0) == (activation == "sigmoid")


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_scores_are_those_of_the_symmetrised_reconstruction(activation, hidden):
    torch.manual_seed(0)
    model = SDNE(7, hidden=hidden, dim=3, activation=activation)
    code = model.encode(ring())
    rebuilt = model.decode(code)
    nodes = torch.tensor([2, 6, 2])
    torch.testing.assert_close(model.scorer(code)(nodes), ((rebuilt + rebuilt.T) / 2)[nodes])
    assert model.scorer(code)(nodes[:0]).shape == (0, 7)


def test_it_learns_to_rebuild_a_ring():
    torch.manual_seed(0)
    model, graph = SDNE(7, hidden=(16,), dim=6, activation="relu"), ring()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rows = neighbor_rows(graph, torch.arange(7))
    for _ in range(300):
        rebuilt, code = model(rows)
        optimizer.zero_grad()
        sdne_loss(rebuilt, rows, code, alpha=1e-3).backward()
        optimizer.step()
    assert rebuilt[rows > 0].min() > 0.8
    assert rebuilt[rows == 0].abs().mean() < 0.2


@pytest.mark.compile
@pytest.mark.parametrize("case", CASES.values())
def test_contract(case):
    check_module(*case)


@pytest.mark.wording
def test_bad_arguments_are_explained():
    with pytest.raises(TypeError, match=r"SDNE: hidden must list widths, got 8\. One hidden layer"):
        SDNE(4, hidden=8)
    with pytest.raises(ValueError, match="activation must be one of sigmoid, relu, got 'tanh'"):
        SDNE(4, activation="tanh")
    with pytest.raises(ValueError, match="each width of hidden must be >= 1, got 0"):
        SDNE(4, hidden=(0,))
    with pytest.raises(ValueError, match=r"rows: expected last axis of size 4.*one column per"):
        SDNE(4)(torch.rand(2, 5))
    with pytest.raises(ValueError, match=r"code: expected 4 rows.*a code for every node"):
        SDNE(4, dim=3).scorer(torch.rand(2, 3))
    with pytest.raises(TypeError, match=r"neighbor_rows: expected an Adjacency, got Tensor\. Bui"):
        neighbor_rows(RING, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"nodes must lie in \[0, 6\] for num_nodes=7, got val"):
        neighbor_rows(ring(), torch.tensor([7]))
