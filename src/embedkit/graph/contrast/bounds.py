"""Bounds through graph convolutions whose adjacency is only known to lie in a box.

Which edges an augmentation will drop is unknown, but how many it may drop of a node bounds every
entry of the normalised adjacency, and so every activation. All bounds are sound for real numbers;
computed in float32 they hold up to its rounding. For a certificate everything is to be float64: the
box, ``edge_drop_bounds(..., dtype=torch.float64)``, features and weights.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import check_floating, check_same_shape
from embedkit.graph._edges import check_edges, check_ids
from embedkit.graph._square import check_adjacency
from embedkit.graph.adjacency import Adjacency, adjacency_from_entries, propagate, reweight
from embedkit.graph.propagation.encoder import check_slope, linear_nodes

_ROUNDING = 1e-5  # relative; entries that leave the box by less were rounded, not augmented


class AdjacencyBounds(NamedTuple):
    """A box of adjacencies: every entry of ``lower`` <= that of A <= that of ``upper``.

    Attributes:
        lower: entries >= 0; what it does not store is 0.
        upper: stores every place of ``lower``, as :func:`adjacency_from_entries` orders them; what
            it does not store is 0 in the whole box.
    """

    lower: Adjacency
    upper: Adjacency


class Interval(NamedTuple):
    """Every entry lies in [lower, upper]."""

    lower: Float[Tensor, "n d"]
    upper: Float[Tensor, "n d"]


class Relaxation(NamedTuple):
    """Two parallel lines around a leaky ReLU:  slope t <= s(t) <= slope (t + offset)."""

    slope: Float[Tensor, "n d"]
    offset: Float[Tensor, "n d"]


def edge_drop_bounds(
    edge_index: Int[Tensor, "2 e"],
    num_nodes: int,
    p: float,
    *,
    dtype: torch.dtype | None = None,
) -> AdjacencyBounds:
    """What the "gcn" adjacency can become when each node loses a share p of its edges.

    With degree d_i, D_i = d_i + 1, and  k_i = min(max(D_i - 2, 0), round(p d_i))  deletions, which
    leave at least one neighbour: the upper bound is  1 / sqrt((D_i - k_i)(D_j - k_j))  at every
    edge and on the diagonal, the lower bound  1 / D_i  on the diagonal and 0 elsewhere. Built once
    per graph and rate, O(e).

    An augmentation that draws each edge by itself can drop more than k_i of them; such nodes leave
    the box and nothing is proven for them: :func:`clip_to_range` finds them.

    Args:
        edge_index: PyG's, each edge once; an undirected graph lists both directions. Self loops
            don't matter, every node has one in the "gcn" adjacency.
        num_nodes: how many nodes there are, with those without an edge.
        p: the rate at which edges are dropped, in [0, 1].
        dtype: of the values; None: torch's default. float64 for a certificate.

    Raises:
        ValueError: if shapes do not fit, an id is out of range, ``p`` is outside [0, 1], or an edge
            is listed twice.
        TypeError: if ``edge_index`` does not hold integers.

    Source: Yu et al. 2023, Provable Training for Graph Contrastive Learning, sec. 4.1; the numbers
    of deletions and the lower bound follow the released code.

    >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> edge_drop_bounds(path, 3, 0.5).lower.value
    tensor([0.5000, 0.3333, 0.5000])
    """
    check_edges("edge_drop_bounds", edge_index)
    check_ids("edge_drop_bounds", "edge_index", edge_index, num_nodes, "num_nodes")
    if not 0 <= p <= 1:
        raise ValueError(
            f"edge_drop_bounds: p must be in [0, 1], got {p:g}. It is the share of edges dropped."
        )
    col, row = edge_index.long()
    row, col = row[row != col], col[row != col]
    twice = row.shape[0] - torch.unique(row * num_nodes + col).shape[0]
    if twice:
        raise ValueError(
            f"edge_drop_bounds: every edge must be listed once, got {twice} repeated. "
            "torch_geometric.utils.coalesce merges them; it has to come before the augmentation."
        )
    nodes = torch.arange(num_nodes, device=row.device)
    degree = torch.bincount(row, minlength=num_nodes).to(torch.float64)
    dropped = torch.minimum((degree - 1).clamp(min=0), (p * degree).round())
    root = (degree + 1 - dropped).rsqrt()
    # The order of these products is that of build_adjacency: equal degrees, equal roundings.
    dtype = dtype or torch.get_default_dtype()
    row, col = torch.cat([row, nodes]), torch.cat([col, nodes])
    highest = (root[row] * root[col]).to(dtype)
    lowest = (degree + 1).rsqrt().square().to(dtype)
    return AdjacencyBounds(
        adjacency_from_entries(nodes, nodes, lowest, num_nodes, num_nodes),
        adjacency_from_entries(row, col, highest, num_nodes, num_nodes),
    )


def _at_places(places: Adjacency, other: Adjacency) -> tuple[Tensor, Tensor]:
    """Values of ``other`` at the entries of ``places``, and which of its entries are not there."""
    width = places.num_cols
    have, want = places.row * width + places.col, other.row * width + other.col
    found = torch.searchsorted(have, want).clamp(max=max(len(have) - 1, 0))
    missing = have[found] != want if len(have) else torch.ones_like(want, dtype=torch.bool)
    value = other.value.masked_fill(missing, 0.0)
    if not len(have):
        return value.new_zeros(0), missing
    return value.new_zeros(len(have)).index_add(0, found, value), missing


def clip_to_range(
    adjacency: Adjacency, bounds: AdjacencyBounds
) -> tuple[Adjacency, Bool[Tensor, " n"]]:
    """The nearest adjacency inside the box, and which rows (nodes that receive) were outside.

    ``outside.float().mean()`` is the share of nodes that a bound says nothing about unless the
    clipped adjacency is the one that the encoder sees, too.

    Args:
        adjacency: of an augmented view, built with ``norm="gcn"``.
        bounds: of the whole graph, :func:`edge_drop_bounds`.

    Returns:
        An adjacency with the places of the upper bound, and a bool per row: True where an entry
        was out of range by more than rounding (a relative 1e-5).

    Raises:
        ValueError: if graph and bounds have different numbers of nodes.
        TypeError: if ``adjacency`` is no :class:`Adjacency`.

    Source: Yu et al. 2023, Provable Training for Graph Contrastive Learning, sec. 4.1 (the range of
    augmentations).
    Differs: what becomes of a draw outside the range is ours.

    >>> path, none = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), torch.zeros(2, 0, dtype=int)
    >>> from embedkit.graph import build_adjacency
    >>> view = build_adjacency(none, num_nodes=3, norm="gcn")
    >>> clip_to_range(view, edge_drop_bounds(path, 3, 0.5))[1]
    tensor([True, True, True])
    """
    check_adjacency("clip_to_range", adjacency)
    check_bounds("clip_to_range", adjacency, bounds)
    lower, upper = bounds
    value, missing = _at_places(upper, adjacency)
    low, _ = _at_places(upper, lower)
    high = upper.value
    far = (value > high * (1 + _ROUNDING)) | (value < low * (1 - _ROUNDING))
    count = value.new_zeros(adjacency.num_rows)
    count = count.index_add(0, upper.row, far.to(value.dtype))
    alien = (missing & (adjacency.value != 0)).to(value.dtype)
    count = count.index_add(0, adjacency.row, alien)
    clipped = torch.minimum(torch.maximum(value, low.to(value.dtype)), high.to(value.dtype))
    return reweight(upper, clipped), count > 0


def check_bounds(owner: str, adjacency: Adjacency, bounds: AdjacencyBounds) -> None:
    """Raise unless the three matrices have one shape."""
    shapes = [(matrix.num_rows, matrix.num_cols) for matrix in (adjacency, *bounds)]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"{owner}: adjacency, lower and upper bound must have one shape, got "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}. Bounds belong to one graph: build them "
            "again for another."
        )


def interval_product(nodes: Interval, bounds: AdjacencyBounds) -> Interval:
    """Bounds of A q over all A in the box and all q in the interval."""
    (low, high), (lower, upper) = nodes, bounds
    return Interval(
        propagate(low.clamp(min=0), lower) - propagate((-low).clamp(min=0), upper),
        propagate(high.clamp(min=0), upper) - propagate((-high).clamp(min=0), lower),
    )


def interval_gcn(
    nodes: Float[Tensor, "n i"] | Adjacency | Interval,
    bounds: AdjacencyBounds,
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None = None,
) -> Interval:
    """Bounds of  A x W^T + b  over all adjacencies in the box and all features in the interval.

    With [l, u] the bounds of q = x W^T:  lower = L l^+ - U l^- + b,  upper = U u^+ - L u^- + b.
    For features that are known exactly every bound is reached by some adjacency of the box; for an
    interval it need not be.

    Args:
        nodes: features, exact (dense, or sparse as an (n, i) adjacency), or an interval.
        bounds: of :func:`edge_drop_bounds`, or any box with entries >= 0.
        weight: (out, in), as in ``torch.nn.Linear``.
        bias: (out,).

    Raises:
        ValueError: if widths or numbers of nodes do not fit.
        TypeError: if features are not floating.

    Source: Yu et al. 2023, Provable Training for Graph Contrastive Learning, sec. 4.2 (bounds of
    the first layer); Gowal et al. 2018, On the Effectiveness of Interval Bound Propagation.
    Differs: the released code bounds the second layer from exact features of one view. An interval
    makes it sound.

    >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> interval_gcn(torch.ones(3, 1), edge_drop_bounds(path, 3, 0.5), torch.ones(1, 1)).upper
    tensor([[1.0000],
            [1.5000],
            [1.0000]])
    """
    if isinstance(nodes, Interval):
        check_same_shape("An interval has two ends.", lower=nodes.lower, upper=nodes.upper)
        middle = linear_nodes((nodes.upper + nodes.lower) / 2, weight)
        radius = F.linear((nodes.upper - nodes.lower) / 2, weight.abs())
        projected = Interval(middle - radius, middle + radius)
    else:
        exact = linear_nodes(nodes, weight)
        projected = Interval(exact, exact)
    low, high = interval_product(projected, bounds)
    return Interval(low, high) if bias is None else Interval(low + bias, high + bias)


def relu_relaxation(
    lower: Float[Tensor, "n d"],
    upper: Float[Tensor, "n d"],
    negative_slope: float | Tensor = 0.0,
) -> Relaxation:
    """Lines that enclose a leaky ReLU on [l, u]:  m t <= s(t) <= m (t + b).

    m = 1 where l >= 0;  a where u <= 0;  else  (u - a l) / (u - l);  b = (a - 1) u l / (u - a l)
    where l < 0 < u, else 0.  The lower line touches at 0, the upper one at l and u.

    Args:
        lower: l of every unit.
        upper: u of every unit, >= l.
        negative_slope: a in [0, 1); a 0-d tensor is not looked at.

    Raises:
        ValueError: if shapes differ or the slope is outside [0, 1).
        TypeError: if bounds are not floating.

    Source: Zhang et al. 2018, Efficient Neural Network Robustness Certification with General
    Activation Functions (CROWN), with parallel lines; as Yu et al. 2023 use it.

    >>> relu_relaxation(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), 0.25)
    Relaxation(slope=tensor([[0.7500]]), offset=tensor([[0.6667]]))
    """
    check_floating("lower", lower)
    check_floating("upper", upper)
    check_same_shape("Two ends of each unit's interval.", lower=lower, upper=upper)
    check_slope("relu_relaxation", negative_slope)
    # Written so that NaN counts as crossing and stays NaN.
    crossing = ~(lower >= 0) & ~(upper <= 0)
    low, high = torch.where(crossing, lower, -1.0), torch.where(crossing, upper, 1.0)
    rise = high - negative_slope * low
    slope = torch.where(lower >= 0, 1.0, negative_slope * torch.ones_like(lower))
    offset = (1 - negative_slope) * -low * (high / rise)  # high / rise <= 1: no overflow
    return Relaxation(
        torch.where(crossing, rise / (high - low), slope),
        torch.where(crossing, offset, 0.0),
    )
