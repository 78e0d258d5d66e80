"""Counts of meta-paths, who is reached on the way, and PathSim."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torch_geometric.data import HeteroData

from embedkit.graph import adjacency_from_entries, build_adjacency, propagate, to_edge_index
from embedkit.graph.contrast import metapath
from embedkit.graph.contrast.hetero import relation_from_hetero
from embedkit.graph.contrast.metapath import (
    metapath_contexts,
    metapath_counts,
    pathsim,
    topk_pathsim,
)

COUNTS = torch.tensor([[2.0, 1, 0], [1, 4, 2], [0, 2, 1]])


def sparse(dense):
    row, col = dense.nonzero(as_tuple=True)
    return adjacency_from_entries(row, col, dense[row, col].double(), *dense.shape)


def dense(adjacency):
    out = torch.zeros(adjacency.num_rows, adjacency.num_cols, dtype=adjacency.value.dtype)
    out[adjacency.row, adjacency.col] = adjacency.value
    return out


def relation(seed, rows, cols):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(rows, cols, generator=generator) < 0.4).double()


sizes = st.tuples(*(st.integers(1, 6),) * 3)


@given(seed=st.integers(0, 2**31), sizes=sizes, block=st.sampled_from([1, 3, 2**22]))
def test_counts_are_enumerated_paths(seed, sizes, block):
    first, second = relation(seed, *sizes[:2]), relation(seed + 1, *sizes[1:])
    before, metapath._PATHS = metapath._PATHS, block
    try:
        short = dense(metapath_counts([sparse(first)]))
        long = dense(metapath_counts([sparse(first), sparse(second)]))
    finally:
        metapath._PATHS = before
    n, m, k = (range(size) for size in sizes)
    for i in n:
        for j in n:
            assert short[i, j] == sum(bool(first[i, a] and first[j, a]) for a in m)
            assert long[i, j] == sum(
                bool(first[i, a] and second[a, c] and second[b, c] and first[j, b])
                for a in m
                for c in k
                for b in m
            )


@given(seed=st.integers(0, 2**31), sizes=sizes)
def test_contexts_average_the_distinct_nodes_at_each_position(seed, sizes):
    first, second = relation(seed, *sizes[:2]), relation(seed + 1, *sizes[1:])
    found = metapath_contexts([sparse(first), sparse(second)], dtype=torch.float64)
    reached = [first > 0, first @ second > 0, first @ second @ second.T > 0]
    assert len(found) == 3
    for got, want in zip(found, reached, strict=True):
        share = want.double() / want.sum(1, keepdim=True).clamp(min=1)
        assert_close(dense(got), share)
        nodes = torch.randn(want.shape[1], 2, dtype=torch.float64)
        assert_close(propagate(nodes, got), share @ nodes)


def test_agrees_with_pyg():
    from torch_geometric.transforms import AddMetaPaths

    torch.manual_seed(0)
    data = HeteroData()
    data["paper"].num_nodes, data["author"].num_nodes = 30, 12
    pair = torch.unique(torch.stack([torch.randint(30, (60,)), torch.randint(12, (60,))]), dim=1)
    pair = pair.contiguous()
    data["paper", "author"].edge_index, data["author", "paper"].edge_index = pair, pair.flip(0)
    path = [("paper", "author"), ("author", "paper")]
    theirs = AddMetaPaths([path], weighted=True)(data)["paper", "metapath_0", "paper"]
    ours = metapath_counts([relation_from_hetero(data, ("paper", "author"))])
    want = torch.zeros(30, 30).index_put(tuple(theirs.edge_index), theirs.edge_weight)
    assert_close(dense(ours), want.double())
    assert ours.transpose is None
    assert ours.value.dtype == torch.float64


def test_pathsim_hand_numbers():
    want = torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0.8], [0, 0.8, 1]], dtype=torch.float64)
    assert_close(dense(pathsim(sparse(COUNTS))), want)


@given(seed=st.integers(0, 2**31), times=st.floats(0.1, 1e6))
def test_pathsim_is_a_similarity_of_any_multiple(seed, times):
    counts = metapath_counts([sparse(relation(seed, 8, 5))])
    s = dense(pathsim(counts))
    assert torch.equal(s, s.T)
    assert s.min() >= 0
    assert s.max() <= 1
    own = s.diagonal()
    assert torch.equal(own, (dense(counts).diagonal() > 0).double())
    assert_close(dense(pathsim(counts._replace(value=counts.value * times))), s)


@given(seed=st.integers(0, 2**31), k=st.integers(1, 9))
def test_topk_keeps_the_most_similar_and_the_smaller_column(seed, k):
    counts = metapath_counts([sparse(relation(seed, 8, 5))])
    m, s = dense(counts), dense(pathsim(counts))
    want = torch.zeros_like(m)
    for i in range(8):
        ranked = sorted((j for j in range(8) if m[i, j]), key=lambda j: (j != i, -s[i, j], j))
        for j in ranked[:k]:
            want[i, j] = m[i, j]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = topk_pathsim(counts, k)
    assert torch.equal(dense(got), want)


def test_pruned_counts_are_normalised_by_their_row_sums():
    pruned = topk_pathsim(sparse(COUNTS), 2)
    assert dense(pruned).tolist() == [[2, 1, 0], [0, 4, 2], [0, 2, 1]]
    root = dense(pruned).sum(1).rsqrt()
    got = build_adjacency(*to_edge_index(pruned), 3, norm="sym")
    assert_close(dense(got), root[:, None] * dense(pruned) * root)


def test_a_path_that_does_not_rank_says_so():
    one_subject_each = (torch.arange(40)[:, None] % 2 == torch.arange(2)).double()
    counts = metapath_counts([sparse(one_subject_each)])
    assert (pathsim(counts).value == 1).all()  # counts of 1, and rightly so
    with pytest.warns(UserWarning, match="160 of the 200 entries kept were chosen by"):
        kept = topk_pathsim(counts, 5)
    assert dense(kept)[39].nonzero()[:, 0].tolist() == [1, 3, 5, 7, 39]
    topk_pathsim(counts, 20)  # nothing is cut: no warning


def test_graphs_without_edges():
    nothing = metapath_counts([sparse(torch.zeros(3, 2))])
    for made in (nothing, pathsim(nothing), topk_pathsim(nothing, 2)):
        assert made.num_rows == made.num_cols == 3
        assert not len(made.col)
    assert not len(metapath_contexts([sparse(torch.zeros(3, 2))])[0].col)
    assert metapath_counts([sparse(torch.zeros(0, 2))]).num_rows == 0
    alone = metapath_counts([sparse(torch.tensor([[1.0], [0.0]]))])  # a node that takes no path
    assert dense(topk_pathsim(alone, 1)).tolist() == [[1, 0], [0, 0]]


def test_errors_teach():
    wide, counts = sparse(torch.ones(2, 3)), sparse(COUNTS)
    with pytest.raises(
        ValueError, match=r"relation 0 ends in 3 nodes and relation 1 begins with 2"
    ):
        metapath_counts([wide, wide])
    with pytest.raises(ValueError, match="metapath_contexts: relations must hold at least one"):
        metapath_contexts([])
    with pytest.raises(ValueError, match=r"the path has 12 instances, more than max_paths=9; one"):
        metapath_counts([wide], max_paths=9)
    with pytest.raises(ValueError, match=r"pathsim: expected a square matrix of counts, got 2 x 3"):
        pathsim(wide)
    with pytest.raises(ValueError, match="topk_pathsim: k must be >= 1, got 0"):
        topk_pathsim(counts, 0)
    with pytest.raises(ValueError, match=r"pathsim: counts must be finite, got NaN or infinity in"):
        pathsim(sparse(COUNTS)._replace(value=torch.full((7,), torch.nan)))
    with pytest.raises(ValueError, match="counts must be symmetric"):
        pathsim(sparse(COUNTS.triu()))
    bare = COUNTS.clone()
    bare[1, 1] = 0
    with pytest.raises(ValueError, match="1 rows have entries and no positive diagonal, first row"):
        topk_pathsim(sparse(bare), 1)
    with pytest.raises(
        ValueError, match="all entries are 1, and no counts of paths look like that"
    ):
        pathsim(sparse((COUNTS > 0).double()))
    with pytest.raises(ValueError, match="above the mean of its two diagonals"):
        pathsim(sparse(COUNTS + 9 * (1 - torch.eye(3))))


def test_a_row_with_many_paths_is_joined_in_parts(monkeypatch):
    sizes, unique = [], torch.unique
    hub = torch.cat([torch.ones(1, 30), torch.zeros(2, 30)]).double()
    hub[2, 4] = 1
    every = relation(0, 30, 7) + 1
    left, right = sparse(hub), sparse(every)

    def recorded(places, **options):
        sizes.append(len(places))
        return unique(places, **options)

    monkeypatch.setattr(metapath, "_PATHS", 20)
    monkeypatch.setattr(torch, "unique", recorded)
    joined = metapath._join("join", left, right, 1000)
    assert torch.equal(dense(joined), hub @ every)
    assert max(sizes) <= 20 + 7  # and what the row has so far


@pytest.mark.wording
def test_wrong_types_are_named():
    with pytest.raises(TypeError, match=r"relations must be a list of Adjacency, got \['Tensor'\]"):
        metapath_counts([torch.ones(2, 3)])
    with pytest.raises(TypeError, match="relations must be a list of Adjacency, got Adj"):
        metapath_counts(sparse(torch.ones(2, 3)))
    with pytest.raises(TypeError, match=r"got HeteroData.*by relation_from_hetero\(data, edge"):
        metapath_counts(HeteroData())
    with pytest.raises(TypeError, match=r"topk_pathsim: k must be an integer, got 1\.5"):
        topk_pathsim(sparse(COUNTS), 1.5)
    with pytest.raises(TypeError, match="pathsim: expected an Adjacency, got Tensor"):
        pathsim(COUNTS)
