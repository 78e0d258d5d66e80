"""Random walks, all at once: DeepWalk's and node2vec's sentences of nodes."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from embedkit._checks import check_at_least, check_finite, check_ndim, check_positive
from embedkit.graph._edges import check_ids
from embedkit.graph._square import check_square
from embedkit.graph.adjacency import Adjacency

_ROUNDS = 16  # of rejection, before what is left is drawn from all neighbours
_ENTRIES = 1 << 20  # neighbours that are looked at together in that case


class _Steps(NamedTuple):
    """Where a walk may go: node i sends to col[start[i]] ... col[start[i + 1] - 1].

    total: (e + 1,) chances of all entries before, 1 for each node; edges: the pairs (i, j) as
    i * n + j, in order.
    """

    start: Tensor
    col: Tensor
    total: Tensor
    edges: Tensor


def _steps(adjacency: Adjacency, second_order: bool) -> _Steps:
    """Edges by their sender; those of weight 0 are none."""
    value = adjacency.value.detach().double()
    check_finite("random_walks", "the weights of the adjacency", value)
    if value.numel() and float(value.min()) < 0:
        raise ValueError(
            f"random_walks: weights are chances, so they must be >= 0, got {float(value.min()):g}"
        )
    row, col = adjacency.row, adjacency.col  # the receiver, the sender
    keep = value > 0
    row, col, value = row[keep], col[keep], value[keep]
    size = adjacency.num_rows
    # Each sender's own first: in one sum of the whole graph small weights would be lost.
    most = value.new_zeros(size).scatter_reduce(0, col, value, "amax")
    value = value / most[col]
    value = value / value.new_zeros(size).index_add(0, col, value)[col]
    edges, order = (col * size + row).sort()
    ends = torch.arange(size + 1, device=col.device)
    total = torch.cat([value.new_zeros(1), value[order].cumsum(0)])
    start = torch.searchsorted(col[order], ends)
    return _Steps(start, row[order], total, edges if second_order else edges[:0])


def random_walks(
    adjacency: Adjacency,
    start: Int[Tensor, " b"],
    length: int,
    *,
    p: float = 1.0,
    q: float = 1.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b m"]:
    """Walk from every node of ``start`` at once, m = length + 1 nodes each.

    A step from v follows an edge v -> x with a chance in proportion to its weight (DeepWalk). With
    p or q other than 1 (node2vec), where the walk came from t, that weight is multiplied by 1 / p
    for the way back (x = t), by 1 where t -> x is an edge, and by 1 / q elsewhere: q < 1 leads
    away, q > 1 stays around, p > 1 seldom turns back.

    Second-order steps are drawn by rejection, and after 16 rounds from the exact weights of all
    neighbours, so draws are exact for every p and q, and memory is O(e + b length).

    Args:
        adjacency: square, values >= 0, of any norm that leaves the ratios within a node's edges
            as they should be: ``norm="none"``, or "row" of an undirected graph without weights.
            Edges lead from the sender (a column) to the receiver (a row).
        start: the first node of each walk; repeat it for several walks per node.
        length: steps.
        p: > 0, node2vec's return parameter.
        q: > 0, node2vec's in-out parameter.
        generator: of the device of ``start``; None: torch's own.

    Returns:
        Nodes of each walk; -1 after a node that no edge leaves.

    Raises:
        ValueError: if a node is out of range, a weight is negative or not finite, the adjacency
            is not square, ``length`` is negative, or p or q is not above 0.
        TypeError: if ``start`` does not hold integers, or ``adjacency`` is no :class:`Adjacency`.

    Source: Perozzi et al. 2014, DeepWalk: Online Learning of Social Representations, algorithm 1;
    Grover & Leskovec 2016, node2vec: Scalable Feature Learning for Networks, sec. 3.2.
    Differs: no alias tables per edge, which take memory O(sum of squared degrees).

    >>> from embedkit.graph import build_adjacency
    >>> path = build_adjacency(torch.tensor([[0, 1], [1, 2]]), num_nodes=3, norm="none")
    >>> random_walks(path, torch.tensor([0, 1]), 3)
    tensor([[ 0,  1,  2, -1],
            [ 1,  2, -1, -1]])
    """
    check_square("random_walks", adjacency)
    check_positive("random_walks", "p", p)
    check_positive("random_walks", "q", q)
    check_at_least("random_walks", "length", length, 0)
    check_ndim("start", start, "b")
    check_ids("random_walks", "start", start, adjacency.num_rows, "num_nodes")
    steps = _steps(adjacency, second_order=p != 1 or q != 1)
    walks = start.new_full((len(start), length + 1), -1, dtype=torch.long)
    walks[:, 0] = start
    for i in range(length):
        alive = (walks[:, i] >= 0).nonzero()[:, 0]
        if i == 0 or (p == 1 and q == 1):
            nodes = _first_order(steps, walks[alive, i], generator)
        else:
            nodes = _second_order(steps, walks[alive, i - 1], walks[alive, i], p, q, generator)
        walks[alive, i + 1] = nodes
    return walks


def _first_order(steps: _Steps, node: Tensor, generator: torch.Generator | None) -> Tensor:
    """One step from each node by the weights of its edges; -1 where there is none."""
    low, high = steps.start[node], steps.start[node + 1]
    if not steps.col.numel():
        return torch.full_like(node, -1)
    below, above = steps.total[low], steps.total[high]
    draw = torch.rand(node.shape, generator=generator, device=node.device, dtype=torch.float64)
    entry = torch.searchsorted(steps.total, below + draw * (above - below), right=True) - 1
    entry = torch.minimum(torch.maximum(entry, low), high - 1)
    return steps.col[entry.clamp(min=0)].masked_fill(low == high, -1)


def _bias(steps: _Steps, before: Tensor, node: Tensor, p: float, q: float) -> Tensor:
    """What multiplies the weight of a step to ``node`` of a walk that was at ``before``."""
    place = before * (len(steps.start) - 1) + node
    found = torch.searchsorted(steps.edges, place).clamp(max=len(steps.edges) - 1)
    near = steps.edges[found] == place
    bias = torch.where(near, 1.0, 1 / q).double()
    return bias.masked_fill(before == node, 1 / p)


def _second_order(
    steps: _Steps,
    before: Tensor,
    node: Tensor,
    p: float,
    q: float,
    generator: torch.Generator | None,
) -> Tensor:
    """One step of node2vec from each node."""
    out = torch.full_like(node, -1)
    open_ = (steps.start[node + 1] > steps.start[node]).nonzero()[:, 0]
    most = max(1.0, 1 / p, 1 / q)
    for _ in range(_ROUNDS):
        if not len(open_):
            return out
        drawn = _first_order(steps, node[open_], generator)
        limit = _bias(steps, before[open_], drawn, p, q) / most
        luck = torch.rand(limit.shape, generator=generator, device=limit.device, dtype=limit.dtype)
        taken = luck < limit
        out[open_[taken]] = drawn[taken]
        open_ = open_[~taken]
    degree = (steps.start[1:] - steps.start[:-1])[node[open_]]
    block = degree.cumsum(0) // _ENTRIES
    for part in (open_[block == b] for b in torch.unique(block)):
        out[part] = _exact(steps, before[part], node[part], p, q, generator)
    return out


def _exact(
    steps: _Steps,
    before: Tensor,
    node: Tensor,
    p: float,
    q: float,
    generator: torch.Generator | None,
) -> Tensor:
    """The same step from the weights of all neighbours, side by side."""
    low, degree = steps.start[node], steps.start[node + 1] - steps.start[node]
    walk = torch.arange(len(node), device=node.device).repeat_interleave(degree)
    first = degree.cumsum(0) - degree
    entry = torch.arange(len(walk), device=node.device) - first[walk] + low[walk]
    weight = (steps.total[entry + 1] - steps.total[entry]) * _bias(
        steps, before[walk], steps.col[entry], p, q
    )
    total = torch.cat([weight.new_zeros(1), weight.cumsum(0)])
    below, above = total[first], total[first + degree]
    draw = torch.rand(node.shape, generator=generator, device=node.device, dtype=torch.float64)
    place = torch.searchsorted(total, below + draw * (above - below), right=True) - 1
    return steps.col[entry[torch.minimum(torch.maximum(place, first), first + degree - 1)]]


def walk_pairs(
    walks: Int[Tensor, "b m"], window: int
) -> tuple[Int[Tensor, " t"], Int[Tensor, " t"]]:
    """Every node of a walk with the nodes at most ``window`` steps before and after it.

    Each pair comes in both orders; a walk of m nodes gives up to window (2 m - window - 1) of
    them. Shuffle them, and train a table of nodes against a table of contexts by
    :func:`embedkit.losses.info_nce` with ``similarity="dot"``, ``temperature=1`` and the contexts
    of the batch as negatives: a skip-gram.

    Args:
        walks: of :func:`random_walks`; -1 is no node.
        window: steps, at least 1; longer windows than the walk take all of it.

    Returns:
        (center, context), (t,) each.

    Raises:
        ValueError: if ``window`` is below 1.

    Source: Perozzi et al. 2014, DeepWalk: Online Learning of Social Representations, algorithm 2.
    Differs: always the whole window, as in NetMF's closed form, where word2vec draws its size.

    >>> center, context = walk_pairs(torch.tensor([[4, 7, -1]]), window=2)
    >>> center, context
    (tensor([4, 7]), tensor([7, 4]))
    """
    check_ndim("walks", walks, "b m")
    check_at_least("walk_pairs", "window", window, 1)
    left, right = [walks[:, :0].flatten()], [walks[:, :0].flatten()]
    for gap in range(1, min(window, walks.shape[1] - 1) + 1):
        early, late = walks[:, :-gap].flatten(), walks[:, gap:].flatten()
        real = (early >= 0) & (late >= 0)
        left.append(early[real])
        right.append(late[real])
    first, second = torch.cat(left), torch.cat(right)
    return torch.cat([first, second]), torch.cat([second, first])
