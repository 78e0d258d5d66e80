"""Orbit adjacencies put together: the graph checked, blocks of rows counted, the size watched."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from embedkit.graph._edges import check_edges, check_ids
from embedkit.graph.adjacency import Adjacency, transpose_of
from embedkit.graph.structure._orbit_counts import Key, Rows
from embedkit.graph.structure._wiring import Entries, Wiring, split

Progress = Callable[[Sequence[Tensor]], Iterable[Tensor]]

# graphlet -> its keys (hop, o1, o2) with o1 <= o2
GRAPHLETS: tuple[tuple[Key, ...], ...] = (
    ((1, 0, 0),),
    ((1, 1, 2), (2, 1, 1)),
    ((1, 3, 3),),
    ((1, 4, 5), (1, 5, 5), (2, 4, 5), (3, 4, 4)),
    ((1, 6, 7), (2, 6, 6)),
    ((1, 8, 8), (2, 8, 8)),
    ((1, 9, 11), (1, 10, 10), (1, 10, 11), (2, 9, 10)),
    ((1, 12, 13), (1, 13, 13), (2, 12, 12)),
    ((1, 14, 14),),
)
STORED = tuple(sorted(key for keys in GRAPHLETS for key in keys))
ORBIT_KEYS = tuple(sorted({pair for h, a, b in STORED for pair in ((h, a, b), (h, b, a))}))
_BLOCK = 1 << 21  # entries of a block of rows: a bound of the memory besides result and triangles
_CORNERS = 200_000_000  # of triangles, where no number of entries was given
_NO_LIST = {(1, 0, 0), (1, 1, 2), (2, 1, 1), (1, 3, 3)}  # these need triangles as counts only
_SAMPLE = 256  # rows from which the size of the result is estimated


def turned(key: Key) -> Key:
    return key[0], key[2], key[1]


def wiring(owner: str, edge_index: Tensor, num_nodes: int | None, coerce: bool) -> Wiring:
    """The graph, sorted; raise unless it is undirected and simple, or ``coerce`` makes it so."""
    check_edges(owner, edge_index)
    if num_nodes is None:
        num_nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
    check_ids(owner, "edge_index", edge_index, num_nodes, "num_nodes")
    one, other = edge_index.long()
    loops = one == other
    if coerce:
        one, other = one[~loops], other[~loops]
        one, other = torch.cat([one, other]), torch.cat([other, one])
    place = torch.unique(one * num_nodes + other)
    alone = ~torch.isin(one * num_nodes + other, other * num_nodes + one)
    wrong = int(loops.sum()), len(one) - len(place), int(alone.sum())
    if not coerce and any(wrong):
        raise ValueError(
            f"{owner}: expected an undirected graph without loops and duplicates, each edge listed "
            f"in both directions; got {wrong[0]} self loops, {wrong[1]} duplicates and {wrong[2]} "
            "edges without their reverse. coerce=True drops the first two and adds the third."
        )
    return Wiring(place, num_nodes)


def build_matrices(
    owner: str,
    graph: Wiring,
    wanted: Sequence[Key],
    max_entries: int | None,
    progress: Progress | None,
) -> dict[Key, Adjacency]:
    """The matrices with o1 <= o2 that are needed for those that are wanted."""
    times = {key: (key in wanted) + (key[1] != key[2] and turned(key) in wanted) for key in STORED}
    keys = [key for key in STORED if times[key]]
    cost = graph.walks(3 if (3, 4, 4) in keys else 2).clamp_(max=graph.size)
    if not _NO_LIST.issuperset(keys):
        _check_triangles(owner, graph, _CORNERS if max_entries is None else max_entries)
        cost += graph.around / 2  # the edges between its neighbours, which are expanded

    def check(entries: dict[Key, int], share: float) -> None:
        total = sum(times[key] * entries[key] for key in keys) / share
        if max_entries is not None and total > max_entries:
            most = max(keys, key=lambda key: entries[key])
            raise MemoryError(
                f"{owner}: about {total:,.0f} entries, {entries[most] / share:,.0f} of them in "
                f"{most}, are more than max_entries={max_entries}. An entry takes 16 bytes, "
                "and 32 while the matrix is put together. Ask for other keys, or allow more."
            )

    if max_entries is not None and len(keys) * float(cost.sum()) > max_entries:
        rows = torch.linspace(0, graph.size - 1, min(graph.size, _SAMPLE)).long().to(cost.device)
        sampled = dict.fromkeys(keys, 0)
        for block in split(cost[rows], _BLOCK):
            part = Rows(graph, rows[block])
            for key in keys:
                sampled[key] += len(part.counts(key).place)
        check(sampled, len(rows) / graph.size)
    pieces: dict[Key, list[Entries]] = {key: [] for key in keys}
    found = dict.fromkeys(keys, 0)
    blocks = list(split(cost, _BLOCK))
    for rows in blocks if progress is None else progress(blocks):
        part = Rows(graph, rows)
        for key in keys:
            place, value = part.counts(key)
            pieces[key].append(Entries(place + rows[0] * graph.size, value))
            found[key] += len(value)
        check(found, 1.0)
    return {key: _joined(graph, key, pieces.pop(key)) for key in keys}


def _check_triangles(owner: str, graph: Wiring, most: int) -> None:
    """Raise before the triangles of a dense graph are listed."""
    if graph.corners > most:
        raise MemoryError(
            f"{owner}: {graph.corners // 3:,} triangles, 3 entries each in a list of them, are "
            f"more than {most:,} entries. An entry takes 32 bytes, and up to 90 while the list is "
            "made. Keys of graphlets with 2 or 3 nodes need no list; take those, a sample of the "
            "graph, or, where there is one, a larger max_entries."
        )


def _joined(graph: Wiring, key: Key, pieces: list[Entries]) -> Adjacency:
    """One matrix from the entries of consecutive blocks."""
    place = torch.cat([graph.place[:0], *(piece.place for piece in pieces)])
    value = torch.cat([graph.degree[:0], *(piece.value for piece in pieces)])
    pieces.clear()
    ends = torch.arange(graph.size + 1, device=place.device) * graph.size
    crow = torch.searchsorted(place, ends)
    if key[1] == key[2]:
        return Adjacency(crow, place.remainder_(max(graph.size, 1)), value)
    row, col = place // graph.size, place.remainder_(max(graph.size, 1))
    return Adjacency(crow, col, value, transpose_of(row, col, graph.size))
