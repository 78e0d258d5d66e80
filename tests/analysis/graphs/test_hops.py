"""Hops against networkx's shortest paths."""

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.graphs.hops import hop_distances
from embedkit.graph import build_adjacency


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), max_hop=st.integers(1, 4), density=st.floats(0.05, 0.3))
def test_hops_are_networkx_shortest_paths(seed, max_hop, density):
    graph = nx.gnp_random_graph(14, density, seed=seed % 2**31, directed=True)
    edges = torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).T
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(edges.shape[1], generator=generator) - 0.5  # its size is no length
    built = build_adjacency(edges, weight, num_nodes=14, norm="none")
    nodes = torch.randperm(14, generator=generator)[:5]
    want = torch.full((5, 14), max_hop + 1, dtype=torch.int8)
    for i, node in enumerate(nodes.tolist()):
        for other, hop in nx.single_source_shortest_path_length(graph, node, max_hop).items():
            want[i, other] = hop
    assert torch.equal(hop_distances(built, nodes, max_hop), want)


def test_no_nodes_and_no_edges():
    nothing = build_adjacency(torch.empty(2, 0, dtype=torch.long), num_nodes=3, norm="none")
    assert hop_distances(nothing, torch.tensor([1]), 2).tolist() == [[3, 0, 3]]
    assert hop_distances(nothing, torch.tensor([], dtype=torch.long), 2).shape == (0, 3)


@pytest.mark.wording
def test_bad_arguments_are_explained():
    graph = build_adjacency(torch.tensor([[0, 1], [1, 2]]), norm="none")
    with pytest.raises(ValueError, match=r"max_hop must be in \[1, 125\], got 0"):
        hop_distances(graph, torch.arange(2), 0)
    with pytest.raises(ValueError, match=r"nodes must lie in \[0, 2\] for num_nodes=3, got val"):
        hop_distances(graph, torch.tensor([1, -1]))
    for nodes in (torch.ones(2), torch.tensor([True, False, True])):
        with pytest.raises(TypeError, match="nodes: expected integers, got torch"):
            hop_distances(graph, nodes)
    with pytest.raises(TypeError, match="hop_distances: expected an Adjacency, got Tensor"):
        hop_distances(torch.tensor([[0, 1], [1, 2]]), torch.arange(2))


@pytest.mark.wording  # the annotation leaves unsigned integers out
def test_small_integers_are_numbers_and_no_mask():
    graph = build_adjacency(torch.tensor([[0, 1], [1, 2]]), norm="none")
    nodes = torch.tensor([1, 0, 1], dtype=torch.uint8)
    assert torch.equal(hop_distances(graph, nodes, 2), hop_distances(graph, nodes.long(), 2))
