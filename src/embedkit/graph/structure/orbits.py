"""Which role two nodes play together: the 28 orbit adjacencies of graphlets with up to 4 nodes."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from embedkit.graph.adjacency import Adjacency, adjacency_from_entries
from embedkit.graph.structure._orbit_counts import Key
from embedkit.graph.structure._orbit_matrices import (
    GRAPHLETS,
    ORBIT_KEYS,
    STORED,
    Progress,
    build_matrices,
    turned,
    wiring,
)
from embedkit.graph.structure.factorize import transposed


def orbit_adjacencies(
    edge_index: Int[Tensor, "2 e"],
    num_nodes: int | None = None,
    keys: Iterable[Key] | None = None,
    *,
    coerce: bool = False,
    max_entries: int = 200_000_000,
    progress: Progress | None = None,
) -> dict[Key, Adjacency]:
    """How often two nodes stand on given places of one small subgraph, for every pair of nodes.

    A(hop, o1, o2)[u, v] is the number of graphlets (connected induced subgraphs of 2 to 4 nodes) in
    which u is on orbit o1, v on orbit o2, and both are ``hop`` steps apart inside the graphlet:

    ========  ===================  ============================================
    graphlet  shape                orbits (number of neighbours inside)
    ========  ===================  ============================================
    G0        edge                 0
    G1        path of 3            1 end, 2 middle
    G2        triangle             3
    G3        path of 4            4 end, 5 middle
    G4        star                 6 leaf, 7 centre
    G5        cycle of 4           8
    G6        triangle with tail   9 tail (1), 10 (2), 11 where both meet (3)
    G7        two triangles        12 (2), 13 on the common edge (3)
    G8        clique of 4          14
    ========  ===================  ============================================

    Hop 1 is between adjacent nodes, hops 2 and 3 between others. All are counted exactly, by sparse
    products over blocks of rows; time is O(sum of d^2) and the edges inside common neighbourhoods,
    for (3, 4, 4) also the walks of three steps. Besides the result memory is that of one block,
    about 2 million entries and 500 MB, and of a list of the triangles, which keys of graphlets with
    4 nodes need: up to 270 bytes for each, little in a sparse graph and most in a dense one. Result
    and triangles are counted before they are stored.

    Args:
        edge_index: of an undirected simple graph, both directions listed, as PyG does.
        num_nodes: None: the largest id plus one.
        keys: (hop, o1, o2), some of :data:`ORBIT_KEYS`; None: all 28. (3, 4, 4), the ends of a
            path of 4, is by far the largest: in a small world it fills a share of n x n.
        coerce: drop self loops and duplicates and add reverse edges, instead of an error.
        max_entries: most entries of the result, all keys together. Each takes 16 bytes (32 where
            o1 differs from o2), and as much again while its matrix is put together. Where
            triangles are listed, three times their number must not exceed it either.
        progress: wraps the list of row blocks, e.g. ``tqdm.tqdm``.

    Returns:
        key -> :class:`embedkit.graph.Adjacency` of whole numbers in float64, without zeros. Keys
        with o1 and o2 exchanged are transposes and share their index tensors.

    Raises:
        ValueError: if the graph is not undirected and simple, an id is out of range or a key does
            not exist.
        TypeError: if ``edge_index`` does not hold integers.
        MemoryError: before more than ``max_entries`` are stored; large results are estimated from
            256 rows first, triangles are counted.

    Source: Windels et al. 2024, Graphlets correct for the topological information missed by random
    walks. Przulj 2007, Biological network comparison using graphlet degree distribution (orbits).
    Differs: formulas of our own, in sparse products instead of an enumeration of graphlets.

    >>> triangle_with_tail = torch.tensor([[0, 1, 1, 2, 2, 0, 2, 3], [1, 0, 2, 1, 0, 2, 3, 2]])
    >>> tail = orbit_adjacencies(triangle_with_tail)[1, 9, 11]
    >>> tail.row, tail.col, tail.value
    (tensor([3]), tensor([2]), tensor([1.], dtype=torch.float64))
    """
    owner = "orbit_adjacencies"
    wanted = ORBIT_KEYS if keys is None else tuple(keys)
    for key in wanted:
        _check_key(owner, key)
    graph = wiring(owner, edge_index, num_nodes, coerce)
    found = build_matrices(owner, graph, wanted, max_entries, progress)
    return {key: found[key] if key in found else transposed(found[turned(key)]) for key in wanted}


def orbit_adjacency(
    edge_index: Int[Tensor, "2 e"],
    num_nodes: int | None,
    hop: int,
    o1: int,
    o2: int,
    *,
    coerce: bool = False,
    max_entries: int = 200_000_000,
    progress: Progress | None = None,
) -> Adjacency:
    """One of :func:`orbit_adjacencies`: triangles are counted, then only what it depends on.

    Embed it with :func:`embedkit.graph.ppmi_factorize`, or propagate with it after damping the
    counts, which reach thousands at hubs: ``reweight(a, a.value.log1p())``.

    Source: Windels et al. 2024, Graphlets correct for the topological information missed by random
    walks.

    >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> orbit_adjacency(path, 3, hop=2, o1=1, o2=1).col
    tensor([2, 0])
    """
    key = (hop, o1, o2)
    found = orbit_adjacencies(
        edge_index, num_nodes, [key], coerce=coerce, max_entries=max_entries, progress=progress
    )
    return found[key]


def graphlet_adjacency(
    edge_index: Int[Tensor, "2 e"],
    num_nodes: int | None,
    graphlet: int,
    *,
    coerce: bool = False,
    max_entries: int = 200_000_000,
    progress: Progress | None = None,
) -> Adjacency:
    """In how many graphlets of one shape two nodes stand together: the sum over its orbits.

    Args:
        edge_index: see :func:`orbit_adjacencies`, also for the options.
        num_nodes: None: the largest id plus one.
        graphlet: 0 to 8, for G0 to G8.
        coerce: make the graph undirected and simple.
        max_entries: before adding up; G3 and large graphs need as much as (3, 4, 4).
        progress: wraps the list of row blocks.

    Returns:
        A symmetric matrix of whole numbers in float64.

    Raises:
        ValueError: if there is no such graphlet; else as :func:`orbit_adjacencies`.

    Source: Windels et al. 2019, Graphlet Laplacians for topology-function and topology-disease
    relationships, the graphlet adjacency.

    >>> square = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
    >>> graphlet_adjacency(square, 4, graphlet=5).value.sum()
    tensor(12., dtype=torch.float64)
    """
    if graphlet not in range(len(GRAPHLETS)):
        raise ValueError(
            f"graphlet_adjacency: graphlet must be 0 to {len(GRAPHLETS) - 1}, for G0 to G8, "
            f"got {graphlet}"
        )
    keys = [key for key in ORBIT_KEYS if {key, turned(key)} & set(GRAPHLETS[graphlet])]
    parts = orbit_adjacencies(
        edge_index, num_nodes, keys, coerce=coerce, max_entries=max_entries, progress=progress
    )
    size = parts[keys[0]].num_rows
    row, col, value = (
        torch.cat([getattr(part, name) for part in parts.values()])
        for name in ("row", "col", "value")
    )
    return adjacency_from_entries(row, col, value, size, size)


def _check_key(owner: str, key: Any) -> None:
    """Raise unless it is one of the 28."""
    if key not in ORBIT_KEYS:
        raise ValueError(
            f"{owner}: no graphlet of up to 4 nodes has {key!r}. Keys are (hop, o1, o2): "
            + ", ".join(map(str, STORED))
            + ", and those with o1 and o2 exchanged."
        )
