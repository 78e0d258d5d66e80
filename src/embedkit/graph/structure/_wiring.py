"""A simple undirected graph as orbit counting needs it: sorted entries, triangles, blocks."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from embedkit.graph.adjacency import transpose_of

_WEDGES = 1 << 22  # wedges looked at together while triangles are listed


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
        upper = (self.row < self.col).nonzero()[:, 0]
        lower = transpose_of(self.row, self.col, num_nodes).order[upper]
        node, edge = self._triangles(upper)
        self.triangles = torch.zeros_like(place, dtype=torch.float64)
        count = torch.bincount(edge, minlength=upper.shape[0]).double()
        self.triangles[upper], self.triangles[lower] = count, count
        none = torch.zeros_like(self.degree)
        self.around = none.index_add(0, self.row, self.triangles)
        self.onward = none.index_add(0, self.row, self.degree[self.col] - 1 - self.triangles)
        self.a = self._matrix(self.row, self.col, torch.ones_like(self.triangles), num_nodes)
        self.t = self._matrix(self.row, self.col, self.triangles, num_nodes)
        self.e = self._matrix(
            edge, node, torch.ones_like(edge, dtype=torch.float64), upper.shape[0]
        )
        order = torch.argsort(node, stable=True)
        self.opposite = edge[order]
        self.opposite_crow = torch.searchsorted(node[order], ends)

    def _matrix(self, row: Tensor, col: Tensor, value: Tensor, rows: int) -> Tensor:
        places = torch.stack([row, col])
        shape = (rows, self.size)
        return torch.sparse_coo_tensor(
            places, value, shape, is_coalesced=True, check_invariants=False
        )

    def _triangles(self, upper: Tensor) -> tuple[Tensor, Tensor]:
        """(node, edge) for every edge, in order, and every node adjacent to both its ends."""
        few, many = self.row[upper], self.col[upper]
        swap = self.degree[few] > self.degree[many]
        few, many = torch.where(swap, many, few), torch.where(swap, few, many)
        nodes, edges = [upper[:0]], [upper[:0]]
        for block in split(self.degree[few], _WEDGES):
            owner, position = expand(self.crow, few[block])
            node = self.col[position]
            wanted = many[block][owner] * self.size + node
            there = Entries(self.place, self.place).find(wanted)[1]
            nodes.append(node[there])
            edges.append(block[owner[there]])
        return torch.cat(nodes), torch.cat(edges)

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
