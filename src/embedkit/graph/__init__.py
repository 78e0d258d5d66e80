"""Graphs: edges -> operators, nodes and edges -> nodes."""

from embedkit.graph.adjacency import (
    Adjacency,
    Transpose,
    add_identity,
    adjacency_from_entries,
    propagate,
    reweight,
)
from embedkit.graph.build import bipartite_adjacency, build_adjacency
from embedkit.graph.convert import (
    adjacency_from_sparse,
    to_edge_index,
    to_scipy,
    to_torch_sparse,
)

__all__ = [
    "Adjacency",
    "Transpose",
    "add_identity",
    "adjacency_from_entries",
    "adjacency_from_sparse",
    "bipartite_adjacency",
    "build_adjacency",
    "propagate",
    "reweight",
    "to_edge_index",
    "to_scipy",
    "to_torch_sparse",
]
