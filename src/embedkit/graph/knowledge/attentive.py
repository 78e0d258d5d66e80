"""Layers that mix a node with what its neighbours send, and a stack of them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_last_dim, check_same_shape
from embedkit.graph._operator import as_operator
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.propagation.bi_interaction import bi_interaction
from embedkit.ops import normalize


def _start(*layers: nn.Linear) -> None:
    """Xavier's uniform weights and no bias."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def _check(owner: str, nodes: Tensor, neighbors: Tensor, width: int) -> None:
    check_last_dim(f"{owner}: nodes", nodes, width, "A layer fits one width: rebuild it.")
    check_same_shape("One row of each per node.", nodes=nodes, neighbors=neighbors)


class BiInteractionAggregator(nn.Module):
    """What a node and its neighbours add up to, and what they share.

    LeakyReLU(W1 (e + N) + b1) + LeakyReLU(W2 (e * N) + b2),  with the node e, what its neighbours
    send, N, and an elementwise product: see :func:`bi_interaction`.

    Args:
        in_features: width of the nodes.
        out_features: width of the result.
        negative_slope: of the LeakyReLU below 0.

    Raises:
        ValueError: if a width is below 1 or shapes don't fit.

    Source: Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, eq. 8;
    the slope of the released code.
    Differs: biases start at zero.

    >>> BiInteractionAggregator(4, 3)(torch.randn(5, 4), torch.randn(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(self, in_features: int, out_features: int, negative_slope: float = 0.2) -> None:
        super().__init__()
        check_at_least("BiInteractionAggregator", "in_features", in_features, 1)
        check_at_least("BiInteractionAggregator", "out_features", out_features, 1)
        self.total = nn.Linear(in_features, out_features)
        self.product = nn.Linear(in_features, out_features)
        self.negative_slope = negative_slope
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier's uniform weights and no bias."""
        _start(self.total, self.product)

    def forward(self, nodes: Tensor, neighbors: Tensor) -> Tensor:
        """(n, in_features) and (n, in_features) -> (n, out_features)."""
        _check("BiInteractionAggregator", nodes, neighbors, self.total.in_features)
        weights = self.total.weight, self.product.weight, self.total.bias, self.product.bias
        slope = self.negative_slope
        total, product = nodes + neighbors, nodes * neighbors
        return bi_interaction(total, product, *weights, negative_slope=slope)


class GCNAggregator(nn.Module):
    """What a node and its neighbours add up to:  LeakyReLU(W (e + N) + b).

    Args:
        in_features: width of the nodes.
        out_features: width of the result.
        negative_slope: of the LeakyReLU below 0.

    Raises:
        ValueError: if a width is below 1 or shapes don't fit.

    Source: Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, eq. 6.
    Differs: a bias that starts at zero; the released code leaves the node itself to a diagonal of 1
    in the operator.

    >>> GCNAggregator(4, 3)(torch.randn(5, 4), torch.randn(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(self, in_features: int, out_features: int, negative_slope: float = 0.2) -> None:
        super().__init__()
        check_at_least("GCNAggregator", "in_features", in_features, 1)
        check_at_least("GCNAggregator", "out_features", out_features, 1)
        self.total = nn.Linear(in_features, out_features)
        self.negative_slope = negative_slope
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier's uniform weights and no bias."""
        _start(self.total)

    def forward(self, nodes: Tensor, neighbors: Tensor) -> Tensor:
        """(n, in_features) and (n, in_features) -> (n, out_features)."""
        _check("GCNAggregator", nodes, neighbors, self.total.in_features)
        mixed: Tensor = F.leaky_relu(self.total(nodes + neighbors), self.negative_slope)
        return mixed.to(nodes.dtype)


class SAGEAggregator(nn.Module):
    """A node beside its neighbours:  LeakyReLU(W [e; N] + b).

    Args:
        in_features: width of the nodes.
        out_features: width of the result.
        negative_slope: of the LeakyReLU below 0; 0 makes it the ReLU of the released code.

    Raises:
        ValueError: if a width is below 1 or shapes don't fit.

    Source: Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, eq. 7.
    Differs: a bias that starts at zero; the released code hands on the input of the layer, side by
    side, in place of its output.

    >>> SAGEAggregator(4, 3)(torch.randn(5, 4), torch.randn(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(self, in_features: int, out_features: int, negative_slope: float = 0.2) -> None:
        super().__init__()
        check_at_least("SAGEAggregator", "in_features", in_features, 1)
        check_at_least("SAGEAggregator", "out_features", out_features, 1)
        self.both = nn.Linear(2 * in_features, out_features)
        self.negative_slope = negative_slope
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier's uniform weights and no bias."""
        _start(self.both)

    def forward(self, nodes: Tensor, neighbors: Tensor) -> Tensor:
        """(n, in_features) and (n, in_features) -> (n, out_features)."""
        _check("SAGEAggregator", nodes, neighbors, self.both.in_features // 2)
        mixed = self.both(torch.cat([nodes, neighbors], dim=1))
        activated: Tensor = F.leaky_relu(mixed, self.negative_slope)
        return activated.to(nodes.dtype)


class AttentivePropagation(nn.Module):
    """Layers of weighted sums of neighbours, each followed by an aggregator, side by side.

    N^(l) = A e^(l),  e^(l+1) = dropout(aggregator_l(e^(l), N^(l))).  The result is e^(0) as it is,
    beside every later e^(l) scaled to length 1; the next layer sees it unscaled. A is the same in
    every layer: :class:`RelationalAttention` makes it.

    Args:
        dims: widths, of the nodes first, then of each layer's result.
        aggregator: called with (in_features, out_features) for every layer, e.g.
            :class:`BiInteractionAggregator`, :class:`GCNAggregator` or :class:`SAGEAggregator`.
        dropout: of each layer's result.

    Raises:
        ValueError: if there are less than two widths, dropout is not in [0, 1), or shapes don't
            fit.

    Source: Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, section
    3.2-3.3 and eq. 11; dropout and scaling of the released code.

    >>> layers = AttentivePropagation([4, 3, 2])
    >>> layers(torch.randn(5, 4), torch.tensor([[0, 1, 2], [1, 2, 0]])).shape
    torch.Size([5, 9])
    """

    def __init__(
        self,
        dims: Sequence[int] = (64, 64, 32, 16),
        aggregator: Callable[[int, int], nn.Module] = BiInteractionAggregator,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(dims) < 2:
            raise ValueError(
                f"AttentivePropagation: dims must name the width of the nodes and of each layer, "
                f"at least two, got {list(dims)}. (64, 64, 32, 16) is the paper's."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"AttentivePropagation: dropout must be in [0, 1), got {dropout:g}")
        self.dims, self.dropout = tuple(dims), dropout
        self.layers = nn.ModuleList(aggregator(wide, narrow) for wide, narrow in pairwise(dims))

    def reset_parameters(self) -> None:
        """Reset every aggregator."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(
        self, nodes: Tensor, edges: Adjacency | Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """Nodes (n, dims[0]) -> (n, sum of dims).

        Args:
            nodes: one vector per node.
            edges: an :class:`Adjacency`, or PyG's edge_index (2, e), from tail to head, whose
                weights are scaled to add up to 1 for each receiver.
            edge_weight: one per edge of edge_index, e.g. attention; None: 1 each.
        """
        owner = "AttentivePropagation"
        adjacency = as_operator(owner, nodes, edges, edge_weight, norm="row")
        check_last_dim("nodes", nodes, self.dims[0], "A stack fits one width: rebuild it.")
        parts = [nodes]
        for layer in self.layers:
            mixed = layer(nodes, propagate(nodes, adjacency))
            nodes = F.dropout(mixed, self.dropout, self.training)
            parts.append(normalize(nodes))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dims={self.dims}, dropout={self.dropout:g}"
