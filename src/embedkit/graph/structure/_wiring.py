"""A simple undirected graph as orbit counting needs it: sorted entries, triangles, blocks."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from embedkit.graph.adjacency import transpose_of

_WEDGES = 1 << 21  # wedges looked at together


class Entries(NamedTuple):
    """Entries of a block of rows: place = row in the block * number of nodes + column, sorted."""

    place: Tensor
    value: Tensor

    def at(self, place: Tensor) -> Tensor:
        """Values at these places, 0 where nothing is stored."""
        index, there = self.find(place)
        found = self.value.new_zeros(place.shape)
        found[there] = self.value[index]
        return found

    def find(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the entries at those of these places that are stored, and which are."""
        if not self.place.numel():
            return place[:0], torch.zeros_like(place, dtype=torch.bool)
        index = torch.searchsorted(self.place, place).clamp_(max=self.place.shape[0] - 1)
        there = self.place[index] == place
        return index[there], there


def expand(crow: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(which of ``rows``, position) of every entry in these rows of a matrix, in order."""
    start = crow[rows]
    count = crow[rows + 1] - start
    owner = torch.arange(len(rows), device=rows.device).repeat_interleave(count)
    first = count.cumsum(0) - count
    position = torch.arange(owner.shape[0], device=rows.device)
    return owner, position + (start - first)[owner]


class Wiring:
    """A simple undirected graph, its triangles, and what every block of rows needs of it."""

    def __init__(self, place: Tensor, num_nodes: int) -> None:
        self.size, self.place = num_nodes, place
        self.row, self.col = place // max(num_nodes, 1), place % max(num_nodes, 1)
        ends = torch.arange(num_nodes + 1, device=place.device)
        self.crow = torch.searchsorted(self.row, ends)
        self.degree = self.crow.diff().double()
        self.upper = (self.row < self.col).nonzero()[:, 0]
        lower = transpose_of(self.row, self.col, num_nodes).order[self.upper]
        self.common = torch.zeros_like(self.upper)  # nodes adjacent to both ends of each edge
        for _, edge in self._triangles():
            self.common += torch.bincount(edge, minlength=len(self.upper))
        self.triangles = torch.zeros_like(place, dtype=torch.float64)
        self.triangles[self.upper] = self.triangles[lower] = self.common.double()
        none = torch.zeros_like(self.degree)
        self.around = none.index_add(0, self.row, self.triangles)
        self.onward = none.index_add(0, self.row, self.degree[self.col] - 1 - self.triangles)
        self.a = self._matrix(self.row, self.col, torch.ones_like(self.triangles), num_nodes)
        self.t = self._matrix(self.row, self.col, self.triangles, num_nodes)

    @property
    def corners(self) -> int:
        """How many pairs of an edge and a node that make a triangle: three of each."""
        return int(self.common.sum())

    @cached_property
    def listed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Edges x nodes, 1 where they make a triangle; and by nodes: where each starts, the edges.

        Alone in that it may be larger than the edges: 32 bytes per corner, up to 90 while made.
        """
        node = torch.empty(self.corners, dtype=torch.long, device=self.place.device)
        filled = 0
        for found, _ in self._triangles():
            node[filled : filled + len(found)] = found
            filled += len(found)
        edge = torch.arange(len(self.upper), device=node.device).repeat_interleave(self.common)
        ends = torch.arange(self.size + 1, device=node.device)
        order = torch.argsort(node, stable=True)
        opposite, start = edge[order], torch.searchsorted(node[order], ends)
        del order
        ones = torch.ones_like(node, dtype=torch.float64)
        return self._matrix(edge, node, ones, len(self.upper)), start, opposite

    def _matrix(self, row: Tensor, col: Tensor, value: Tensor, rows: int) -> Tensor:
        places = torch.stack([row, col])
        shape = (rows, self.size)
        return torch.sparse_coo_tensor(
            places, value, shape, is_coalesced=True, check_invariants=False
        )

    def _triangles(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(node, edge) for every edge, in order, and every node adjacent to both its ends."""
        few, many = self.row[self.upper], self.col[self.upper]
        swap = self.degree[few] > self.degree[many]
        few, many = torch.where(swap, many, few), torch.where(swap, few, many)
        for block in split(self.degree[few], _WEDGES):
            owner, position = expand(self.crow, few[block])
            node = self.col[position]
            wanted = many[block][owner] * self.size + node
            there = Entries(self.place, self.place).find(wanted)[1]
            yield node[there], block[owner[there]]

    def walks(self, steps: int) -> Tensor:
        """How many walks of so many steps start at each node."""
        count = torch.ones_like(self.degree)
        for _ in range(steps):
            count = torch.zeros_like(count).index_add_(0, self.row, count[self.col])
        return count


def split(cost: Tensor, most: int) -> Iterator[Tensor]:
    """Consecutive numbers 0 to n - 1 in blocks that cost about ``most`` each."""
    if cost.numel():
        block = ((cost.cumsum(0) - cost) / most).long()
        sizes: list[int] = torch.unique_consecutive(block, return_counts=True)[1].tolist()
        numbers = torch.arange(len(cost), device=cost.device)
        yield from torch.split(numbers, sizes)
