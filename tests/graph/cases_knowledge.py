"""Contract cases of attention over triples and of what it propagates."""

import torch

from embedkit.graph import build_adjacency
from embedkit.graph.knowledge.attentive import (
    AttentivePropagation,
    BiInteractionAggregator,
    GCNAggregator,
    SAGEAggregator,
)
from embedkit.graph.knowledge.collaborative import knowledge_graph
from embedkit.graph.knowledge.relational_attention import RelationalAttention


def two(b):
    return torch.randn(b, 4), torch.randn(b, 4)


def ring(b):
    ids = torch.arange(b)
    edges = torch.stack([ids, (ids + 1) % max(b, 1)])
    return torch.randn(b, 4), build_adjacency(edges, num_nodes=b, norm="row")


def triples(b):
    ids = torch.arange(b)
    listed = torch.stack([ids, ids % 2, (ids + 1) % max(b, 1)], dim=1)
    graph = knowledge_graph(listed, b, 3)
    return torch.randn(b, 4), torch.randn(6, 5), torch.randn(6, 5, 4), graph


CASES = {
    AttentivePropagation: (lambda: AttentivePropagation((4, 3, 2), dropout=0.0), ring),
    BiInteractionAggregator: (lambda: BiInteractionAggregator(4, 3), two),
    GCNAggregator: (lambda: GCNAggregator(4, 3), two),
    RelationalAttention: (lambda: RelationalAttention(differentiable=True), triples),
    SAGEAggregator: (lambda: SAGEAggregator(4, 3), two),
}
