"""Relations out of PyG's heterogeneous graphs, and what is said where one is not there."""

import pytest
import torch
from torch_geometric.data import HeteroData

from embedkit.graph.contrast.hetero import relation_from_hetero

PAIRS = torch.tensor([[0, 2, 2], [1, 0, 1]])


def graph():
    data = HeteroData()
    data["paper"].x = torch.randn(3, 2)
    data["author"].num_nodes = 2
    data["paper", "written_by", "author"].edge_index = PAIRS
    return data


def test_rows_are_sources_and_columns_targets():
    whole = relation_from_hetero(graph(), ("paper", "written_by", "author"))
    dense = torch.zeros(3, 2).index_put((whole.row, whole.col), whole.value)
    assert dense.tolist() == [[0, 1], [0, 0], [1, 1]]
    for one, other in zip(whole, relation_from_hetero(graph(), ["paper", "author"]), strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other)


def test_what_is_missing_is_named_and_not_made():
    data = graph()
    with pytest.raises(
        ValueError,
        match=r"got \('paper', 'venue'\)\. It has \('paper', 'written_by', 'author'\)\.",
    ):
        relation_from_hetero(data, ("paper", "venue"))
    assert len(data.edge_types) == 1
    with pytest.raises(ValueError, match=r"It has none\."):
        relation_from_hetero(HeteroData(), ("paper", "author"))
    data["paper", "edits", "author"].weight = torch.ones(2)
    with pytest.raises(ValueError, match="must name one of the graph's types of edges"):
        relation_from_hetero(data, ("paper", "author"))
    with pytest.raises(ValueError, match=r"'edits', 'author'\) has no edge_index"):
        relation_from_hetero(data, ("paper", "edits", "author"))
    data["author", "cites", "author"].edge_index = PAIRS
    with pytest.raises(
        ValueError,
        match=r"'author' in \('author', 'cites', 'author'\) must lie in \[0, 1\] for "
        r'data\["author"\]\.num_nodes=2, got values in \[0, 2\]',
    ):
        relation_from_hetero(data, ("author", "author"))
    data["paper", "venue"].edge_index = PAIRS
    with pytest.raises(ValueError, match=r"the number of 'venue' nodes is not known"):
        relation_from_hetero(data, ("paper", "venue"))
    data["paper", "venue"].edge_index = PAIRS.float()
    data["venue"].num_nodes = 2
    with pytest.raises(TypeError, match=r"edge_index: expected integers, got torch\.float32"):
        relation_from_hetero(data, ("paper", "venue"))


def test_other_data_is_refused():
    with pytest.raises(TypeError, match="data must be PyG's HeteroData, got dict"):
        relation_from_hetero({}, ("paper", "author"))
