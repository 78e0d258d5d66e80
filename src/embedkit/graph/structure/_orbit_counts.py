"""Counts of graphlets with up to four nodes around pairs of nodes, for a block of rows at a time.

The letters are those of the formulas: A the adjacency, T common neighbours of adjacent nodes, C of
nodes that are not; P_uv = d_v - 1 - T_uv, the ways to go on from an edge; E = B B^T, the edges
inside the common neighbourhood, with B the nodes opposite of every edge; K is E on edges, X off
them. Counting extends a wedge or triangle by one neighbour and subtracts the denser graphlets that
the same extension makes. All numbers are integers in float64, exact below 2^53.
"""

import warnings
from functools import cached_property

import torch
from torch import Tensor

from embedkit.graph.structure._wiring import _WEDGES, Entries, Wiring, expand, split

Key = tuple[int, int, int]


class Rows:
    """All counts of some rows of the graph, each made when it is first asked for."""

    def __init__(self, graph: Wiring, rows: Tensor) -> None:
        self.graph, self.rows = graph, rows
        self.owner, position = expand(graph.crow, rows)
        self.col = graph.col[position]
        self.place = self.owner * graph.size + self.col
        self.t = graph.triangles[position]
        self.p = graph.degree[self.col] - 1 - self.t
        self.back = graph.degree[rows[self.owner]] - 1 - self.t  # P of the edge turned round

    def _product(self, row: Tensor, col: Tensor, value: Tensor, right: Tensor) -> Entries:
        places = torch.stack([row, col])
        shape = (self.rows.shape[0], right.shape[0])
        left = torch.sparse_coo_tensor(
            places, value, shape, is_coalesced=True, check_invariants=False
        )
        with warnings.catch_warnings():  # torch multiplies in compressed rows, "in beta state"
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            found = torch.sparse.mm(left, right).coalesce()
        row, col = found.indices()
        return Entries(row * right.shape[1] + col, found.values())

    def _clear(self, entries: Entries) -> Tensor:
        """Set to 0, in place, what stands on edges and on the diagonal; the values."""
        loops = torch.arange(len(self.rows), device=self.rows.device) * self.graph.size + self.rows
        for place in (self.place, loops):
            entries.value[entries.find(place)[0]] = 0
        return entries.value

    @cached_property
    def wedges(self) -> Entries:
        """A A, with zeros on edges and on the diagonal."""
        found = self._product(self.owner, self.col, torch.ones_like(self.t), self.graph.a)
        return Entries(found.place, self._clear(found))

    @cached_property
    def far(self) -> Tensor:
        """Which of the wedges end at a node that is not adjacent to the first."""
        return self.wedges.value.nonzero()[:, 0]

    @cached_property
    def c(self) -> Entries:
        return Entries(self.wedges.place[self.far], self.wedges.value[self.far])

    @cached_property
    def near(self) -> tuple[Tensor, Tensor]:
        """Index of the wedges that end at a neighbour of the first node, and at which."""
        return self.wedges.find(self.place)

    def _along(self, value: Tensor, right: Tensor) -> Tensor:
        """A product over the same wedges, with other values."""
        found = self._product(self.owner, self.col, value, right)
        same = torch.equal(found.place, self.wedges.place)  # zeros are stored, so they should be
        return found.value if same else found.at(self.wedges.place)

    def _on(self, wedges: Tensor) -> Tensor:
        """What the wedges between the ends of every edge hold."""
        index, there = self.near
        found = torch.zeros_like(self.t)
        found[there] = wedges[index]
        return found

    @cached_property
    def e(self) -> Entries:
        edges, start, opposite = self.graph.listed
        owner, position = expand(start, self.rows)
        edge = opposite[position]
        return self._product(owner, edge, torch.ones_like(edge, dtype=torch.float64), edges)

    @cached_property
    def at(self) -> Tensor:
        """A T."""
        return self._along(torch.ones_like(self.t), self.graph.t)

    @cached_property
    def pa(self) -> Tensor:
        """P A."""
        return self._along(self.p, self.graph.a)

    @cached_property
    def k(self) -> Tensor:
        return self.e.at(self.place)

    @cached_property
    def x(self) -> Tensor:
        return self.e.at(self.c.place)

    @cached_property
    def q(self) -> Tensor:
        """(1, 12, 13)."""
        return self._on(self.at) - self.t - 2 * self.k

    @cached_property
    def r(self) -> Tensor:
        """(2, 9, 10)."""
        return self.at[self.far] - 2 * self.x

    @cached_property
    def tail(self) -> Tensor:
        """(1, 9, 11)."""
        around = self.graph.around[self.col]
        return (around - self.t - self._on(self.at) - self.q) / 2

    @cached_property
    def cycle(self) -> Tensor:
        """(1, 8, 8): over wedges u - v - w, how many other nodes lie between u and w."""
        between = torch.zeros_like(self.t)
        for part in split(self.graph.degree[self.col], _WEDGES):  # more of them than entries
            wedge, position = expand(self.graph.crow, self.col[part])
            place = self.owner[part][wedge] * self.graph.size + self.graph.col[position]
            others = (self.c.at(place) - 1).clamp_(min=0)
            between[part] = between[part].index_add_(0, wedge, others)
        return between - self.q

    @cached_property
    def far_cycle(self) -> Tensor:
        """(2, 8, 8)."""
        return self.c.value * (self.c.value - 1) / 2 - self.x

    def _on_edges(self, o1: int, o2: int) -> Tensor:
        """Counts at hop 1, one for every entry of these rows of A."""
        t, p = self.t, self.p
        match o1, o2:
            case 0, 0:
                return torch.ones_like(t)
            case 1, 2:
                return p
            case 3, 3:
                return t
            case 4, 5:
                degree = self.graph.degree[self.col] - 1
                middle = self._on(self._along(degree, self.graph.a))
                walks = middle - self._on(self.at)  # A P^T = A diag(d - 1) A - A T
                return self.graph.onward[self.col] - self.back - walks - self.cycle
            case 5, 5:
                return p * self.back - self.cycle
            case 6, 7:
                return p * (p - 1) / 2 - self.tail
            case 8, 8:
                return self.cycle
            case 9, 11:
                return self.tail
            case 10, 10:
                return self._on(self.pa) - self.q
            case 10, 11:
                return t * p - self.q
            case 12, 13:
                return self.q
            case 13, 13:
                return t * (t - 1) / 2 - self.k
        return self.k

    def _off_edges(self, o1: int, o2: int) -> Tensor:
        """Counts at hop 2, one for every entry of C."""
        c = self.c
        match o1, o2:
            case 1, 1:
                return c.value
            case 4, 5:
                onward = c.value * (self.graph.degree[c.place % self.graph.size] - 1)
                return onward - self.at[self.far] - 2 * self.far_cycle  # of N ⊙ (A P)
            case 6, 6:
                return self.pa[self.far] - c.value - self.r
            case 8, 8:
                return self.far_cycle
            case 9, 10:
                return self.r
        return self.x

    def counts(self, key: Key) -> Entries:
        """The entries of one of the 20 matrices, in these rows, without zeros."""
        hop, o1, o2 = key
        if hop == 3:
            row, col = self.c.place // self.graph.size, self.c.place % self.graph.size
            found = self._product(row, col, self.c.value, self.graph.a)
            self._clear(found)
            index, there = found.find(self.c.place)
            found.value[index] -= self.r[there]
        elif hop == 2:
            found = Entries(self.c.place, self._off_edges(o1, o2))
        else:
            found = Entries(self.place, self._on_edges(o1, o2))
        some = found.value.nonzero()[:, 0]
        return Entries(found.place[some], found.value[some])
