import sys

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.nn import LGConv
from torch_geometric.utils import to_undirected

from embedkit.graph import (
    adjacency_from_sparse,
    build_adjacency,
    knowledge_graph,
    propagate,
    to_edge_index,
    to_pyg_edge_index,
    to_scipy,
    to_torch_sparse,
)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


@given(seed=st.integers(0, 2**31))
def test_there_and_back(seed):
    torch.manual_seed(seed)
    adjacency = build_adjacency(torch.randint(0, 6, (2, 15)), None, 6)
    assert same(adjacency_from_sparse(to_torch_sparse(adjacency)), adjacency)
    assert same(adjacency_from_sparse(to_torch_sparse(adjacency).to_sparse_coo()), adjacency)
    assert same(adjacency_from_sparse(to_scipy(adjacency)), adjacency)
    index, weight = to_edge_index(adjacency)
    assert same(build_adjacency(index, weight, 6, norm="none"), adjacency)


def test_every_format_of_scipy_and_torch():
    matrix = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]])
    nodes = torch.randn(3, 2)
    forms = [matrix.to_sparse(), matrix.to_sparse_csr(), matrix.to_sparse_csc()]
    forms += [scipy.sparse.coo_array(matrix), scipy.sparse.csc_matrix(matrix.numpy())]
    for form in forms:
        got = propagate(nodes, adjacency_from_sparse(form))
        torch.testing.assert_close(got, matrix @ nodes)


def test_counts_become_floating():
    counts = scipy.sparse.csr_array(torch.tensor([[0, 2], [1, 0]]).numpy())
    assert adjacency_from_sparse(counts).value.tolist() == [2.0, 1.0]
    assert adjacency_from_sparse(counts, dtype=torch.float64).value.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equal_places_are_added_up_before_they_are_rounded(dtype):
    place, ones = torch.tensor([[0], [1]]).repeat(1, 3072), torch.ones(3072, dtype=dtype)
    matrix = torch.sparse_coo_tensor(place, ones, (2, 2), check_invariants=True)
    got = adjacency_from_sparse(matrix).value
    assert (got.item(), got.dtype) == (3072, dtype)


def test_the_edge_index_of_pyg_there_and_back():
    edges = to_undirected(torch.tensor([[0, 1, 2], [1, 2, 4]]), num_nodes=5)
    typed = EdgeIndex(edges, sparse_size=(5, 5), is_undirected=True)
    want = build_adjacency(edges, None, 5, norm="none")
    assert same(adjacency_from_sparse(typed), want)
    assert same(build_adjacency(typed, None, 5, norm="none"), want)
    back = EdgeIndex(to_edge_index(want)[0], sparse_size=(5, 5), sort_order="col").validate()
    nodes = torch.randn(5, 3)
    torch.testing.assert_close(back.matmul(nodes, transpose=True), propagate(nodes, want))


@pytest.mark.parametrize("undirected", [True, False])
def test_an_edge_index_of_pyg_that_knows_its_size_order_and_direction(undirected):
    torch.manual_seed(0)
    edges = torch.randint(0, 6, (2, 15))
    edges = to_undirected(edges, num_nodes=7) if undirected else edges
    adjacency = build_adjacency(edges, None, 7)
    index, weight = to_pyg_edge_index(adjacency)
    index.validate()
    assert isinstance(index, EdgeIndex)
    assert (index.sparse_size(), index.is_sorted_by_col) == ((7, 7), True)
    assert index.is_undirected == undirected
    nodes = torch.randn(7, 3)
    want = propagate(nodes, adjacency)
    torch.testing.assert_close(index.matmul(nodes, weight, transpose=True), want)
    torch.testing.assert_close(LGConv(normalize=False)(nodes, index, weight), want)
    assert same(build_adjacency(index, weight, 7, norm="none"), adjacency)
    ones = adjacency._replace(value=torch.ones_like(weight))
    assert same(adjacency_from_sparse(index), ones)


def test_an_edge_index_of_pyg_between_two_sides():
    wide = adjacency_from_sparse(torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]).to_sparse())
    index, weight = to_pyg_edge_index(wide)
    assert index.validate().sparse_size() == (3, 2)
    nodes = torch.randn(3, 4)
    got = index.matmul(nodes, weight, transpose=True)
    torch.testing.assert_close(got, propagate(nodes, wide))


def test_two_relations_between_one_pair_are_added_up_for_torch():
    graph = knowledge_graph(torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 2]]), 3, 2)
    weight = torch.rand(len(graph.head))
    adjacency = graph.weighted(weight)
    matrix = to_torch_sparse(adjacency).to_dense()
    torch.testing.assert_close(matrix, torch.as_tensor(to_scipy(adjacency).todense()))
    torch.testing.assert_close(matrix @ torch.eye(3), propagate(torch.eye(3), adjacency))


def test_a_rectangular_edge_index_keeps_its_sides():
    typed = EdgeIndex(torch.tensor([[0, 3], [1, 0]]), sparse_size=(4, 2))
    adjacency = adjacency_from_sparse(typed)
    assert (adjacency.num_rows, adjacency.num_cols) == (2, 4)


def test_a_dense_matrix():
    with pytest.raises(TypeError, match=r"got Tensor\. A dense matrix: matrix\.to_sparse\(\)"):
        adjacency_from_sparse(torch.eye(2))


def test_an_edge_index_without_a_size():
    with pytest.raises(ValueError, match=r"must know its size, got \(None, None\)"):
        adjacency_from_sparse(EdgeIndex(torch.tensor([[0], [1]])))


def test_a_read_only_matrix_of_scipy():
    matrix = scipy.sparse.dia_array((np.ones((1, 3)), 0), (3, 3))
    assert adjacency_from_sparse(matrix).col.tolist() == [0, 1, 2]


def test_one_axis():
    with pytest.raises(ValueError, match=r"expected two axes, got shape \(2,\)"):
        adjacency_from_sparse(scipy.sparse.coo_array(np.ones(2)))


def test_three_axes():
    with pytest.raises(ValueError, match=r"expected two axes, got shape \(2, 2, 2\)"):
        adjacency_from_sparse(torch.ones(2, 2, 2).to_sparse())


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match="to_scipy needs SciPy: pip install scipy"):
        to_scipy(build_adjacency(torch.tensor([[0], [1]])))
