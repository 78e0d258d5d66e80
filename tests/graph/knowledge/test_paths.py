"""Paths by attention, against networkx' enumeration."""

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph.knowledge.collaborative import knowledge_graph
from embedkit.graph.knowledge.paths import attention_paths


@given(seed=st.integers(0, 2**31), length=st.integers(1, 4))
def test_all_simple_paths_are_found(seed, length):
    torch.manual_seed(seed)
    ends, relation = torch.randint(0, 6, (9, 2)), torch.randint(0, 2, (9,))
    graph = knowledge_graph(torch.stack([ends[:, 0], relation, ends[:, 1]], dim=1), 6, 2)
    weight = torch.rand(len(graph.head)).double()
    other = networkx.MultiDiGraph()
    other.add_nodes_from(range(6))
    for place, (h, t) in enumerate(zip(graph.head.tolist(), graph.tail.tolist(), strict=True)):
        other.add_edge(h, t, key=place)
    edges = networkx.all_simple_edge_paths(other, 0, 5, cutoff=length)
    want = sorted([key for _, _, key in path] for path in edges)
    got = attention_paths(graph, weight, 0, 5, k=10**6, length=length)
    listed = [[t for t in row if t >= 0] for row in got.triples.tolist()]
    assert sorted(listed) == want
    products = [weight[row].prod() for row in listed]
    torch.testing.assert_close(got.weight, torch.stack(products) if products else got.weight)
    assert (got.weight.diff() <= 0).all()
    few = attention_paths(graph, weight, 0, 5, k=2, length=length)
    torch.testing.assert_close(few.weight, got.weight[:2])


@pytest.mark.wording
def test_errors_teach():
    graph = knowledge_graph(torch.tensor([[0, 0, 1]]), 3, 1)
    weight = torch.ones(2)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 2\] for num_nodes=3"):
        attention_paths(graph, weight, 0, 3)
    with pytest.raises(ValueError, match="weight: expected 2 rows"):
        attention_paths(graph, weight[:1], 0, 1)
    with pytest.raises(ValueError, match="attention_paths: length must be >= 1, got 0"):
        attention_paths(graph, weight, 0, 1, length=0)
    with pytest.raises(ValueError, match="attention_paths: k must be >= 1, got 0"):
        attention_paths(graph, weight, 0, 1, k=0)
