import sys

import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_undirected

from embedkit.graph import (
    adjacency_from_sparse,
    build_adjacency,
    propagate,
    to_edge_index,
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


def test_three_axes():
    with pytest.raises(ValueError, match=r"expected two axes, got shape \(2, 2, 2\)"):
        adjacency_from_sparse(torch.ones(2, 2, 2).to_sparse())


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match="to_scipy needs SciPy: pip install scipy"):
        to_scipy(build_adjacency(torch.tensor([[0], [1]])))
