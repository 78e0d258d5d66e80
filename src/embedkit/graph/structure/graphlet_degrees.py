"""Graphlet degree vectors: what surrounds a node or an edge, in counts of small subgraphs."""

import torch
from jaxtyping import Int
from torch import Tensor

from embedkit.graph.structure._orbit_matrices import STORED, Progress, build_matrices, wiring
from embedkit.graph.structure._wiring import Entries

_EDGE_KEYS = tuple(key for key in STORED if key[0] == 1 and key != (1, 0, 0))
# orbit -> (key, its row sum over the orbit's count, whether the orbit is the columns')
_DEGREES = (
    ((1, 0, 0), 1, False), ((1, 1, 2), 1, False), ((1, 1, 2), 2, True), ((1, 3, 3), 2, False),
    ((1, 4, 5), 1, False), ((1, 4, 5), 1, True), ((1, 6, 7), 1, False), ((1, 6, 7), 3, True),
    ((1, 8, 8), 2, False), ((1, 9, 11), 1, False), ((1, 10, 10), 1, False),
    ((1, 9, 11), 1, True), ((1, 12, 13), 2, False), ((1, 12, 13), 2, True),
    ((1, 14, 14), 3, False),
)  # fmt: skip


def graphlet_degree_vectors(
    edge_index: Int[Tensor, "2 e"],
    num_nodes: int | None = None,
    *,
    coerce: bool = False,
    progress: Progress | None = None,
) -> Int[Tensor, "n 15"]:
    """How often each node stands on each of the 15 orbits: what its surroundings look like.

    Row sums of the matrices at hop 1, which need O(e) memory, besides one block of about 500 MB and
    up to 270 bytes per triangle, as :func:`orbit_adjacencies` says. As features of nodes take
    ``log1p``: counts grow with the third power of the degree.

    Args:
        edge_index: see :func:`orbit_adjacencies`.
        num_nodes: None: the largest id plus one.
        coerce: make the graph undirected and simple.
        progress: wraps the list of row blocks.

    Raises:
        ValueError: as :func:`orbit_adjacencies`.
        MemoryError: before more than 66 million triangles are listed.

    Source: Przulj 2007, Biological network comparison using graphlet degree distribution.

    >>> graphlet_degree_vectors(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))[:, :3]
    tensor([[1, 1, 0],
            [2, 0, 1],
            [1, 1, 0]])
    """
    graph = wiring("graphlet_degree_vectors", edge_index, num_nodes, coerce)
    keys = ((1, 0, 0), *_EDGE_KEYS)
    found = build_matrices("graphlet_degree_vectors", graph, keys, None, progress)
    out = graph.degree.new_zeros(15, graph.size)
    for orbit, (key, times, turned) in enumerate(_DEGREES):
        ends = found[key].col if turned else found[key].row
        out[orbit].index_add_(0, ends, found[key].value / times)
    return out.T.round().long()


def edge_graphlet_degree_vectors(
    edge_index: Int[Tensor, "2 e"],
    num_nodes: int | None = None,
    *,
    coerce: bool = False,
    progress: Progress | None = None,
) -> Int[Tensor, "e 12"]:
    """How often each edge stands on each of the 12 kinds of edges in graphlets: edge features.

    The kinds are the pairs of orbits at hop 1 besides (0, 0), in the order (1, 2), (3, 3), (4, 5),
    (5, 5), (6, 7), (8, 8), (9, 11), (10, 10), (10, 11), (12, 13), (13, 13), (14, 14).

    Args:
        edge_index: see :func:`orbit_adjacencies`.
        num_nodes: None: the largest id plus one.
        coerce: make the graph undirected and simple.
        progress: wraps the list of row blocks.

    Returns:
        One row for every column of ``edge_index``, the same in both directions; zeros for a loop.

    Raises:
        ValueError: as :func:`orbit_adjacencies`.
        MemoryError: before more than 66 million triangles are listed.

    Source: Solava et al. 2012, Graphlet-based edge clustering reveals pathogen-interacting
    proteins (edge orbits, here of up to 4 nodes).

    >>> triangle = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
    >>> edge_graphlet_degree_vectors(triangle)[:, 1]
    tensor([1, 1, 1, 1, 1, 1])
    """
    graph = wiring("edge_graphlet_degree_vectors", edge_index, num_nodes, coerce)
    found = build_matrices("edge_graphlet_degree_vectors", graph, _EDGE_KEYS, None, progress)
    sources, targets = edge_index.long()
    there, back = sources * graph.size + targets, targets * graph.size + sources
    columns = []
    for key in _EDGE_KEYS:
        entries = Entries(found[key].row * graph.size + found[key].col, found[key].value)
        columns.append(entries.at(there) + (entries.at(back) if key[1] != key[2] else 0))
    return torch.stack(columns, dim=1).long()
