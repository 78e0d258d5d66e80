"""Katz and HOPE: the spec's path, the series, networkx, and the best approximation of low rank."""

import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.graph import build_adjacency
from embedkit.graph.structure.proximity import hope_embedding, katz_proximity, spectral_radius

PATH = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


def undirected(edges, size=None):
    both = torch.cat([edges, edges.flip(0)], dim=1)
    return build_adjacency(both, num_nodes=size, norm="none", dtype=torch.float64)


def path():
    return build_adjacency(PATH, norm="none", dtype=torch.float64)


def karate():
    return undirected(torch.tensor(list(nx.karate_club_graph().edges)).T)


def random_graph(seed, size=12):
    generator = torch.Generator().manual_seed(seed)
    edges = (torch.rand(size, size, generator=generator) < 0.2).nonzero().T
    weight = torch.rand(edges.shape[1], generator=generator, dtype=torch.float64)
    dense = torch.zeros(size, size, dtype=torch.float64).index_put(tuple(edges), weight)
    return build_adjacency(edges, weight, num_nodes=size, norm="none"), dense


def test_the_path_of_the_spec():
    katz = katz_proximity(path(), 0.1)
    want = torch.tensor([0.010205, 0.102051, 0.010308, 0.001031]).double()
    torch.testing.assert_close(katz[0], want, atol=1e-6, rtol=0)
    source, target = hope_embedding(path(), 4, 0.1)
    low = source @ target.T
    want = torch.tensor([[0.007431, 0.074306, 0.012023, 0.045924]]).double()
    torch.testing.assert_close(low[:1], want, atol=1e-6, rtol=0)
    assert float((katz - low).norm()) == pytest.approx(0.087906, abs=1e-6)
    assert spectral_radius(path()) == pytest.approx(1.618034, abs=1e-6)


@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), part=st.floats(0.05, 0.9))
def test_directed_katz_is_its_series_and_full_rank_hope_is_katz(seed, part):
    graph, dense = random_graph(seed)
    radius = float(torch.linalg.eigvals(dense).abs().max())
    beta = part / radius if radius > 1e-6 else 0.5
    want, term = torch.zeros_like(dense), torch.eye(len(dense)).double()
    for _ in range(300):
        term = beta * term @ dense
        want += term
    katz = katz_proximity(graph, beta)
    torch.testing.assert_close(katz, want, atol=1e-8, rtol=1e-6)
    source, target = hope_embedding(graph, 24, beta)
    scale = float(want.abs().max()) + 1e-12
    torch.testing.assert_close(source @ target.T / scale, want / scale, atol=1e-8, rtol=0)


def test_row_sums_are_networkx_centrality():
    graph = nx.karate_club_graph()
    want = nx.katz_centrality_numpy(graph, alpha=0.05, beta=1.0, weight=None, normalized=False)
    got = katz_proximity(karate(), 0.05).sum(dim=0) + 1
    torch.testing.assert_close(got, torch.tensor([want[i] for i in graph]).double())


@pytest.mark.parametrize("dim", [4, 16])
def test_the_error_is_that_of_the_best_approximation(dim):
    katz = katz_proximity(karate())
    source, target = hope_embedding(karate(), dim)
    best = torch.linalg.svdvals(katz)[dim // 2 :].square().sum().sqrt()
    assert float((katz - source @ target.T).norm()) == pytest.approx(float(best), rel=1e-3)
    norms = source.norm(dim=0), target.norm(dim=0)
    torch.testing.assert_close(*norms)


def test_renumbering_nodes_changes_nothing():
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    other = build_adjacency(order[PATH], norm="none", dtype=torch.float64)
    katz, moved = katz_proximity(path()), katz_proximity(other)
    torch.testing.assert_close(moved[order][:, order], katz)


def test_radius_of_bipartite_directed_and_empty_graphs():
    star = undirected(torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]]))
    assert spectral_radius(star) == pytest.approx(2.0, abs=1e-9)
    cycle = build_adjacency(torch.tensor([[0, 1, 2], [1, 2, 0]]), norm="none")
    assert spectral_radius(cycle) == pytest.approx(1.0)
    chain = build_adjacency(torch.tensor([[0, 1, 0], [1, 2, 2]]), norm="none")
    assert spectral_radius(chain) == 0.0
    nothing = build_adjacency(torch.empty(2, 0, dtype=torch.long), num_nodes=3, norm="none")
    assert spectral_radius(nothing) == 0.0
    assert not katz_proximity(nothing).any()
    source, target = hope_embedding(nothing, 2)
    assert not (source @ target.T).any()
    assert hope_embedding(chain, 6, beta=2.0)[0].dtype == torch.float32


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 40), power=st.floats(0, 6))
def test_the_radius_is_never_below_the_largest_eigenvalue(seed, size, power):
    generator = torch.Generator().manual_seed(seed)
    edges = (torch.rand(size, size, generator=generator) < 1.5 / size).nonzero().T
    weight = torch.rand(edges.shape[1], generator=generator, dtype=torch.float64) ** power
    dense = torch.zeros(size, size).double().index_put(tuple(edges.flip(0)), weight)
    graph = build_adjacency(edges, weight, num_nodes=size, norm="none")
    want = float(torch.linalg.eigvals(dense).abs().max())
    got = spectral_radius(graph)
    assert got >= want * (1 - 1e-9)
    if want > 1e-3:  # else rounding of the eigenvalues of a graph without a cycle
        assert got == pytest.approx(want, rel=1e-2)
    components = nx.strongly_connected_components(nx.DiGraph(edges.T.tolist()))
    assert (got > 0) == (any(len(c) > 1 for c in components) or bool((edges[0] == edges[1]).any()))


def layers(depth):
    """Layers of 3, each joined to all of the next, and a cycle of 2 beside them."""
    node = torch.arange(3)
    step = torch.cartesian_prod(node, node + 3).T
    edges = torch.cat([step + 3 * i for i in range(depth - 1)], dim=1)
    pair = torch.tensor([[0, 1], [1, 0]]) + 3 * depth
    return build_adjacency(torch.cat([edges, pair], dim=1), norm="none", dtype=torch.float64)


@pytest.mark.parametrize("depth", [2, 50, 400])
def test_many_walks_off_the_cycles_do_not_hide_them(depth):
    graph = layers(depth)
    assert spectral_radius(graph) == pytest.approx(1.0, abs=1e-12)
    assert float(katz_proximity(graph).min()) >= 0
    for embed in (katz_proximity, lambda g, beta: hope_embedding(g, 4, beta)):
        with pytest.raises(ValueError, match=r"beta must be below .* = 1, got 2"):
            embed(graph, 2.0)


def test_beta_just_above_the_bound_of_a_long_path_is_refused():
    steps = torch.arange(199)
    graph = undirected(torch.stack([steps, steps + 1]))
    radius = 2 * math.cos(math.pi / 201)
    assert spectral_radius(graph) >= radius
    assert float(katz_proximity(graph, 0.999 / radius).min()) > 0
    with pytest.raises(ValueError, match="beta must be below"):
        katz_proximity(graph, (1 + 1e-9) / radius)


def test_weights_of_many_sizes_have_one_radius():
    pair = build_adjacency(
        torch.tensor([[0, 1], [1, 0]]), torch.tensor([1e10, 1e-10]).double(), norm="none"
    )
    assert spectral_radius(pair) == pytest.approx(1.0)


def test_one_seed_one_embedding():
    a, b = (
        hope_embedding(karate(), 8, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(a[0], b[0])


@pytest.mark.wording
def test_edges_and_empty_graphs_are_explained():
    for call in (spectral_radius, katz_proximity, lambda edges: hope_embedding(edges, 2)):
        with pytest.raises(TypeError, match=r"expected an Adjacency, got Tensor\. Build it once"):
            call(PATH)
    with pytest.raises(ValueError, match="hope_embedding: the graph has no node"):
        hope_embedding(build_adjacency(PATH[:, :0], num_nodes=0, norm="none"), 2)


def test_beta_and_sizes_out_of_range_are_explained():
    with pytest.raises(ValueError, match=r"beta must be below 1 / .* = 0\.618034, got 0\.7"):
        katz_proximity(path(), 0.7)
    with pytest.raises(ValueError, match="hope_embedding: beta must be below"):
        hope_embedding(path(), 2, 0.62)
    with pytest.raises(ValueError, match="hope_embedding: beta must be > 0, got 0"):
        hope_embedding(path(), 2, 0.0)
    with pytest.raises(ValueError, match=r"dim must be even.*lie in \[2, 8\] for 4 nodes, got 3"):
        hope_embedding(path(), 3)
    with pytest.raises(ValueError, match="weights must be >= 0, got -1"):
        katz_proximity(build_adjacency(PATH, -torch.ones(6), norm="none"))
    with pytest.raises(ValueError, match="no cycle, so every beta converges and none is usual"):
        katz_proximity(build_adjacency(PATH[:, :1], norm="none"))
    with pytest.raises(ValueError, match=r"10001 nodes would need a dense 10001 x 10001 matrix"):
        katz_proximity(build_adjacency(PATH, num_nodes=10001, norm="none"))
