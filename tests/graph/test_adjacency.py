import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn import LGConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops, remove_self_loops

from embedkit.graph import (
    Adjacency,
    add_identity,
    adjacency_from_entries,
    bipartite_adjacency,
    build_adjacency,
    propagate,
    reweight,
    to_scipy,
)
from embedkit.graph._edges import check_edges

EDGES = torch.tensor([[0, 1, 1, 2, 2, 0, 3, 1], [1, 0, 2, 1, 0, 2, 3, 2]])
DOUBLE = {"dtype": torch.float64}


def dense(adjacency):
    return torch.as_tensor(to_scipy(adjacency).todense())


def random_edges(seed, size=12, count=40):
    torch.manual_seed(seed)
    return torch.randint(0, size, (2, count)), torch.rand(count, dtype=torch.float64) + 0.1


# --- what an operator is


@given(seed=st.integers(0, 2**31))
def test_the_product_is_that_of_the_dense_matrix(seed):
    edges, weight = random_edges(seed)
    matrix = torch.zeros(12, 12, dtype=torch.float64)
    matrix.index_put_((edges[1], edges[0]), weight, accumulate=True)
    adjacency = build_adjacency(edges, weight, 12, norm="none")
    nodes = torch.randn(12, 3, dtype=torch.float64)
    torch.testing.assert_close(dense(adjacency), matrix)
    torch.testing.assert_close(propagate(nodes, adjacency), matrix @ nodes)


@given(seed=st.integers(0, 2**31))
def test_relabelled_nodes_give_relabelled_rows(seed):
    edges, weight = random_edges(seed)
    order = torch.randperm(12)
    nodes = torch.randn(12, 3, dtype=torch.float64)
    relabelled = torch.empty_like(nodes)
    relabelled[order] = nodes
    there = propagate(relabelled, build_adjacency(order[edges], weight, 12))
    here = propagate(nodes, build_adjacency(edges, weight, 12))
    torch.testing.assert_close(there[order], here)


@pytest.mark.parametrize("weighted", [False, True])
def test_sym_is_lightgcn_of_pyg(weighted):
    edges, weight = random_edges(1)
    weight = weight if weighted else None
    nodes = torch.randn(12, 5, dtype=torch.float64)
    adjacency = build_adjacency(edges, weight, 12, **DOUBLE)
    torch.testing.assert_close(propagate(nodes, adjacency), LGConv()(nodes, edges, weight))


def test_gcn_is_that_of_pyg_with_loops_that_are_there_already():
    edges, weight = random_edges(2)
    edges = edges[:, edges[0] != edges[1]]
    edges = torch.cat([edges, torch.tensor([[3, 5], [3, 5]])], dim=1)
    weight = weight[: edges.shape[1]]
    index, value = gcn_norm(edges, weight, 12)
    nodes = torch.randn(12, 5, dtype=torch.float64)
    want = torch.zeros_like(nodes).index_add(0, index[1], value[:, None] * nodes[index[0]])
    got = propagate(nodes, build_adjacency(edges, weight, 12, norm="gcn"))
    torch.testing.assert_close(got, want)
    loops = build_adjacency(edges, weight, 12, norm="sym", self_loops=True)
    torch.testing.assert_close(propagate(nodes, loops), want)


def test_row_is_the_mean_over_neighbours():
    adjacency = build_adjacency(EDGES[:, :6], None, 5, norm="row", **DOUBLE)
    torch.testing.assert_close(dense(adjacency).sum(1), torch.tensor([1.0, 1, 1, 0, 0]).double())


def test_loops_listed_twice_count_with_their_mean():
    edges = torch.tensor([[0, 0, 1], [0, 0, 0]])
    weight = torch.tensor([2.0, 4.0, 1.0])
    adjacency = build_adjacency(edges, weight, 2, norm="none", self_loops=True)
    assert dense(adjacency).tolist() == [[3.0, 1.0], [0.0, 1.0]]


def test_loops_that_are_listed_stay_and_those_of_pyg_are_taken_out_before():
    weight = torch.rand(EDGES.shape[1], dtype=torch.float64)
    kept = dense(build_adjacency(EDGES, weight, 4, norm="none"))
    assert kept[3, 3] == weight[6]
    without = dense(build_adjacency(*remove_self_loops(EDGES, weight), 4, norm="none"))
    torch.testing.assert_close(without, kept - kept.diagonal().diag())
    added = add_remaining_self_loops(EDGES, weight, num_nodes=4)
    torch.testing.assert_close(
        dense(build_adjacency(EDGES, weight, 4, self_loops=True)),
        dense(build_adjacency(*added, 4)),
    )


def test_an_undirected_graph_is_its_own_transpose():
    both = torch.cat([EDGES, EDGES.flip(0)], dim=1)
    assert build_adjacency(both).transpose is None
    assert build_adjacency(EDGES).transpose is not None
    assert build_adjacency(both, norm="row").transpose is not None


@pytest.mark.parametrize("norm", ["sym", "gcn", "none"])
@given(seed=st.integers(0, 2**31))
def test_so_is_one_with_weights(norm, seed):
    edges, weight = random_edges(seed)
    edges = edges[:, edges[0] < edges[1]].unique(dim=1)
    weight = weight[: edges.shape[1]]
    both, twice = torch.cat([edges, edges.flip(0)], dim=1), torch.cat([weight, weight])
    assert build_adjacency(both, twice, 12, norm=norm).transpose is None


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 6), cols=st.integers(1, 6))
def test_the_transpose_is_that_of_scipy(seed, rows, cols):
    torch.manual_seed(seed)
    row, col = torch.randint(0, rows, (9,)), torch.randint(0, cols, (9,))
    value = torch.rand(9, dtype=torch.float64)
    adjacency = adjacency_from_entries(row, col, value, rows, cols)
    want = scipy.sparse.coo_array((value, (row, col)), shape=(rows, cols)).todense()
    np.testing.assert_allclose(dense(adjacency), want)
    other = adjacency.transpose
    if other is not None:
        parts = (adjacency.value[other.order], other.col, other.crow)
        turned = scipy.sparse.csr_array(parts, shape=(cols, rows))
        np.testing.assert_allclose(turned.toarray(), want.T)


def test_bipartite_pairs_count_once_and_both_ways():
    user, item = torch.tensor([0, 0, 1, 1, 0]), torch.tensor([0, 1, 1, 2, 0])
    matrix = dense(bipartite_adjacency(user, item, 2, 3, norm="none"))
    clicks = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
    assert torch.equal(matrix[:2, 2:], clicks)
    assert torch.equal(matrix, matrix.T)
    nodes = torch.tensor([[1, 0], [0, 1], [1, 1], [0.5, -1], [-1, 0.5]], dtype=torch.float64)
    got = propagate(nodes, bipartite_adjacency(user, item, 2, 3, **DOUBLE))
    want = [[0.957107, 0.207107], [-0.457107, -0.146447], [0.707107, 0], [0.5, 0.5], [0, 0.707107]]
    torch.testing.assert_close(got, torch.tensor(want).double(), atol=1e-6, rtol=0)


def test_the_spectral_radius_is_one_with_the_roots_of_degrees():
    edges, _ = random_edges(3)
    both = torch.cat([edges, edges.flip(0)], dim=1)
    degree = torch.bincount(both[1], minlength=12).double()
    adjacency = build_adjacency(both, None, 12, **DOUBLE)
    torch.testing.assert_close(
        propagate(degree.sqrt()[:, None], adjacency)[:, 0], degree.sqrt(), rtol=1e-9, atol=0
    )
    assert np.abs(np.linalg.eigvalsh(dense(adjacency))).max() < 1 + 1e-9


def test_the_identity_is_added_after_normalising():
    adjacency = add_identity(build_adjacency(EDGES, None, 4, norm="row", **DOUBLE))
    want = dense(build_adjacency(EDGES, None, 4, norm="row", **DOUBLE)) + torch.eye(4)
    torch.testing.assert_close(dense(adjacency), want)


# --- gradients, dtypes, degenerate graphs


def test_gradients_of_nodes_and_values_to_second_order():
    edges, weight = random_edges(4)
    nodes = torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    value = build_adjacency(edges, weight, 12).value.clone().requires_grad_()
    frame = reweight(build_adjacency(edges, weight, 12), value.detach())

    def run(nodes, value):
        return propagate(nodes, reweight(frame, value))

    assert torch.autograd.gradcheck(run, (nodes, value))
    assert torch.autograd.gradgradcheck(run, (nodes, value))


def test_a_weight_that_learns_keeps_the_transpose_and_gets_its_gradient():
    both = torch.cat([EDGES, EDGES.flip(0)], dim=1)
    weight = torch.ones(both.shape[1], dtype=torch.float64, requires_grad=True)
    nodes = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)

    def run(nodes, weight):
        return propagate(nodes, build_adjacency(both, weight, 4, norm="sym"))

    assert torch.autograd.gradcheck(run, (nodes, weight))


def test_a_rectangle_goes_both_ways():
    value = torch.rand(4, dtype=torch.float64)
    row, col = torch.tensor([0, 1, 1, 0]), torch.tensor([4, 2, 0, 1])
    nodes = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    adjacency = adjacency_from_entries(row, col, value, 2, 5)
    assert (adjacency.num_rows, adjacency.num_cols) == (2, 5)
    assert torch.autograd.gradcheck(lambda x: propagate(x, adjacency), (nodes,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_added_up_in_float32(dtype):
    star = torch.stack([torch.arange(1, 5001), torch.zeros(5000, dtype=torch.long)])
    nodes = torch.ones(5001, 2, dtype=dtype)
    mean = propagate(nodes, build_adjacency(star, None, 5001, norm="row"))
    assert mean.dtype == dtype
    torch.testing.assert_close(mean[0].float(), torch.ones(2), atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equal_edges_are_added_up_before_they_are_rounded(dtype):
    edges = torch.tensor([[0], [1]]).repeat(1, 3072)
    ones = torch.ones(3072, dtype=dtype)
    assert build_adjacency(edges, None, 2, norm="none", dtype=dtype).value.item() == 3072
    assert build_adjacency(edges, ones, 2, norm="none").value.item() == 3072
    assert build_adjacency(edges, ones, 2, norm="row").value.item() == 1
    assert adjacency_from_entries(edges[1], edges[0], ones, 2, 2).value.item() == 3072


@pytest.mark.parametrize("norm", ["sym", "row", "gcn", "none"])
@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_graph_without_edges(norm, size):
    adjacency = build_adjacency(torch.zeros(2, 0, dtype=torch.long), None, size, norm=norm)
    nodes = torch.randn(size, 2, requires_grad=True)
    out = propagate(nodes, adjacency)
    out.sum().backward()
    assert torch.equal(out, nodes if norm == "gcn" else torch.zeros(size, 2))
    assert torch.isfinite(nodes.grad).all()


def test_it_pickles_moves_and_repeats_itself():
    edges, weight = random_edges(5)
    adjacency = build_adjacency(edges, weight, 12)
    again = pickle.loads(pickle.dumps(adjacency))
    nodes = torch.randn(12, 3)
    assert torch.equal(propagate(nodes, again), propagate(nodes, adjacency))
    assert adjacency.to(dtype=torch.float32).value.dtype == torch.float32
    assert adjacency.to("meta").transpose.order.device.type == "meta"
    assert propagate(nodes.to("meta"), adjacency.to("meta")).shape == (12, 3)


@pytest.mark.compile
def test_it_compiles_into_one_graph():
    both = torch.cat([EDGES, EDGES.flip(0)], dim=1)
    for adjacency in (build_adjacency(EDGES), build_adjacency(both)):
        nodes = torch.randn(4, 3, requires_grad=True)
        compiled = torch.compile(lambda x, a: propagate(x, a).sin(), fullgraph=True)
        (want,) = torch.autograd.grad(propagate(nodes, adjacency).sin().sum(), nodes)
        (got,) = torch.autograd.grad(compiled(nodes, adjacency).sum(), nodes)
        torch.testing.assert_close(got, want)


# --- errors


@pytest.mark.wording
def test_a_float_edge_index():
    with pytest.raises(TypeError, match=r"edge_index: expected .*integers.*edge_index.long\(\)"):
        build_adjacency(EDGES.float())


@pytest.mark.wording
def test_a_transposed_edge_index():
    with pytest.raises(ValueError, match=r"shape \(2, e\).*got \(8, 2\).*edge_index.t\(\)"):
        build_adjacency(EDGES.t())


@pytest.mark.wording
def test_a_sparse_matrix_in_place_of_edges():
    for matrix in (torch.eye(4).to_sparse(), scipy.sparse.eye_array(4)):
        with pytest.raises(TypeError, match=r"it: edge_index must .*adjacency_from_sparse\(matrix"):
            check_edges("it", matrix)


def test_ids_below_0_or_of_no_nodes():
    with pytest.raises(
        ValueError, match=r"edge_index must be >= 0, got values in \[-5, -4\]\. Num"
    ):
        build_adjacency(torch.tensor([[-5], [-4]]))
    with pytest.raises(ValueError, match=r"edge_index must be empty for num_nodes=0, got values"):
        build_adjacency(EDGES, None, 0)
    with pytest.raises(ValueError, match=r"num_nodes must be >= 0, got -1"):
        build_adjacency(EDGES, None, -1)


@pytest.mark.wording
def test_a_number_of_nodes_that_is_none():
    pair = torch.tensor([0]), torch.tensor([0])
    with pytest.raises(
        TypeError, match=r"num_items must be an integer, got None\. PyG's num_nodes"
    ):
        bipartite_adjacency(*pair, 1, None)
    with pytest.raises(
        TypeError, match=r"build_adjacency: num_nodes must be an integer, got 4\.0\."
    ):
        build_adjacency(EDGES, None, 4.0)


@pytest.mark.parametrize(("bad", "low", "high"), [(4, 0, 4), (-1, -1, 3)])
def test_a_node_that_is_not_there(bad, low, high):
    edges = EDGES.clone()
    edges[0, 2] = bad
    text = rf"edge_index must lie in \[0, 3\] for num_nodes=4, got values in \[{low}, {high}\]"
    with pytest.raises(ValueError, match=text):
        build_adjacency(edges, None, 4)


def test_items_numbered_after_the_users():
    text = r"item must lie in \[0, 2\] for num_items=3, got values in \[2, 4\]. Items are numbered"
    with pytest.raises(ValueError, match=text):
        bipartite_adjacency(torch.tensor([0, 1]), torch.tensor([2, 4]), 2, 3)


def test_a_negative_degree():
    weight = -torch.ones(EDGES.shape[1])
    with pytest.raises(ValueError, match=r"add up to less than 0; edge_weight goes down to -1"):
        build_adjacency(EDGES, weight)
    assert build_adjacency(EDGES, weight, norm="none").value.max() == -1


@pytest.mark.wording
def test_one_weight_per_edge():
    with pytest.raises(ValueError, match=r"edge_weight: expected 8 rows, got shape \(3,\)"):
        build_adjacency(EDGES, torch.ones(3))
    with pytest.raises(ValueError, match=r"value: expected 7 rows, got shape \(3,\)"):
        reweight(build_adjacency(EDGES), torch.ones(3))


def test_as_many_nodes_as_columns():
    with pytest.raises(ValueError, match=r"nodes: expected 4 rows, got shape \(5, 2\)"):
        propagate(torch.randn(5, 2), build_adjacency(EDGES))


@pytest.mark.wording
def test_an_edge_list_in_place_of_an_operator():
    with pytest.raises(TypeError, match=r"expected an Adjacency, got Tensor\. Build it once"):
        propagate(torch.randn(4, 2), EDGES)


def test_a_matrix_made_by_hand_that_points_outside():
    crow, col = torch.tensor([0, 1, 2]), torch.tensor([1, 7])
    with pytest.raises(IndexError, match=r"must be 0 to 1, one per row of nodes, got 1 to 7"):
        propagate(torch.randn(2, 3), Adjacency(crow, col, torch.ones(2)))


def test_the_identity_of_a_rectangle():
    wide = adjacency_from_entries(torch.tensor([0]), torch.tensor([1]), torch.ones(1), 1, 2)
    with pytest.raises(ValueError, match="expected a square matrix, got 1 x 2"):
        add_identity(wide)
