"""One type of edges of a heterogeneous graph, as the matrix that a meta-path is made of."""

from collections.abc import Sequence
from typing import Any

import torch

from embedkit.graph._edges import check_edges, check_ids
from embedkit.graph.adjacency import Adjacency, adjacency_from_entries


def relation_from_hetero(data: Any, edge_type: Sequence[str]) -> Adjacency:
    """The edges of one type, source above target, as a matrix with one row per source, values 1.

    The matrix of an edge type paper -> author has a row per paper and a column per author: it leads
    on from papers, as :func:`metapath_counts` wants it.

    Args:
        data: PyG's ``HeteroData``; both types need features or ``num_nodes``.
        edge_type: (source, target) where one type of edges joins them, or PyG's (source, relation,
            target).

    Returns:
        A matrix in torch's default dtype; an edge that is listed twice counts 2.

    Raises:
        ValueError: if there is no such edge type or there are several, a number of nodes is not
            known, or an id is out of range.
        TypeError: if ``data`` is no ``HeteroData``, or ids are not integers.

    Source: Sun et al. 2011, PathSim: Meta Path-Based Top-K Similarity Search in Heterogeneous
    Information Networks, definition 1 (a network with several types).

    >>> from torch_geometric.data import HeteroData
    >>> data = HeteroData()
    >>> data["paper"].num_nodes, data["author"].num_nodes = 3, 2
    >>> data["paper", "author"].edge_index = torch.tensor([[0, 0, 2], [0, 1, 1]])
    >>> relation_from_hetero(data, ("paper", "author")).crow
    tensor([0, 2, 2, 3])
    """
    owner = "relation_from_hetero"
    if not hasattr(data, "edge_types"):  # without an import of all of PyG
        raise TypeError(f"{owner}: data must be PyG's HeteroData, got {type(data).__name__}")
    wanted, known = tuple(edge_type), data.edge_types  # before it is asked for, which makes one
    found = [kind for kind in known if wanted in (kind, (kind[0], kind[-1]))]
    if len(found) != 1:
        raise ValueError(
            f"{owner}: edge_type must name one of the graph's types of edges, got {wanted}. "
            f"It has {', '.join(map(str, known)) or 'none'}."
        )
    edges = data[found[0]].get("edge_index")
    if edges is None:
        raise ValueError(f"{owner}: {found[0]} has no edge_index")
    check_edges(owner, edges)
    sizes = []
    for name, ids in zip((found[0][0], found[0][-1]), edges, strict=True):
        size = data[name].num_nodes if name in data.node_types else None
        if size is None:
            raise ValueError(
                f"{owner}: the number of {name!r} nodes is not known: they have no features and no "
                f'number. Set data["{name}"].num_nodes.'
            )
        check_ids(owner, f"{name!r} in {found[0]}", ids, size, f'data["{name}"].num_nodes')
        sizes.append(size)
    row, col = edges
    return adjacency_from_entries(row, col, torch.ones(len(row), device=row.device), *sizes)
