"""The plain graph convolution encoder: what contrastive methods train and bounds are known for."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_last_dim, check_list, check_ndim
from embedkit.graph._operator import as_operator, check_nodes
from embedkit.graph.adjacency import Adjacency, propagate

SLOPE_HINT = "0 is ReLU, 0.25 what a PReLU starts from."


def check_slope(owner: str, negative_slope: float | Tensor) -> None:
    """Raise unless 0 <= slope < 1, where a leaky ReLU bends upwards; a tensor is not looked at."""
    if not isinstance(negative_slope, Tensor) and not 0 <= negative_slope < 1:
        raise ValueError(
            f"{owner}: negative_slope must be >= 0 and < 1, got {negative_slope:g}. {SLOPE_HINT}"
        )


def leaky_relu(x: Float[Tensor, "n d"], slope: float | Tensor) -> Float[Tensor, "n d"]:
    """t for t >= 0, else slope t; the slope may be learned."""
    if isinstance(slope, Tensor):
        return torch.where(x >= 0, x, slope.to(x.dtype) * x)
    return F.leaky_relu(x, slope)


def linear_nodes(
    nodes: Float[Tensor, "n i"] | Adjacency, weight: Float[Tensor, "o i"]
) -> Float[Tensor, "n o"]:
    """x W^T of dense node features, or of sparse ones, stored as an (n, i) :class:`Adjacency`."""
    hint = "The first layer fits one width of features."
    if isinstance(nodes, Adjacency):
        if nodes.num_cols != weight.shape[1]:
            raise ValueError(
                f"nodes: expected {weight.shape[1]} columns of sparse features, got "
                f"{nodes.num_cols}. {hint}"
            )
        return propagate(weight.t(), nodes)
    check_floating("nodes", nodes)
    check_ndim("nodes", nodes, "n d")
    check_last_dim("nodes", nodes, weight.shape[1], hint)
    return F.linear(nodes, weight)


class GCNEncoder(nn.Module):
    """Graph convolutions with a (leaky) ReLU after each, also after the last.

    H <- s(A H W^T + b),  s(t) = t for t >= 0, else negative_slope t.  No dropout, no batch norm
    and no residual: :func:`node_compactness` knows bounds for exactly this.

    Args:
        dims: widths of the input, of every hidden layer and of the output; GRACE has
            ``(features, 2 d, d)``, so two layers.
        negative_slope: of the leaky ReLU, in [0, 1); 0 is ReLU.
        learn_slope: learn one slope for all layers, a PReLU, from ``negative_slope`` on.

    Attributes:
        slope: the slope as it is, a number or a 0-d tensor.

    Raises:
        ValueError: if there are fewer than two widths or one is below 1, if the slope is outside
            [0, 1) or is to be learned from 0, or if nodes and edges do not fit.
        TypeError: if ``dims`` is no list, or nodes are not floating.

    Source: Kipf & Welling 2017, Semi-supervised Classification with Graph Convolutional Networks,
    eq. 2; Zhu et al. 2020, Deep Graph Contrastive Representation Learning (GRACE), eq. 6.
    Differs: a learned slope is a sigmoid, so that it stays in (0, 1), where bounds are known.

    >>> import torch
    >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> GCNEncoder([4, 8, 2])(torch.randn(3, 4), edge_index).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, dims: Sequence[int], negative_slope: float = 0.0, *, learn_slope: bool = False
    ) -> None:
        super().__init__()
        check_list("GCNEncoder", "dims", dims, "Two layers: [in_features, hidden, out_features].")
        check_at_least("GCNEncoder", "the number of dims", len(dims), 2, "Input and output width.")
        for width in dims:
            check_at_least("GCNEncoder", "each width of dims", width, 1)
        check_slope("GCNEncoder", negative_slope)
        if learn_slope and negative_slope == 0:
            raise ValueError(
                "GCNEncoder: learn_slope needs a negative_slope above 0 to begin with, got 0. A "
                "PReLU starts from 0.25."
            )
        self.dims, self.negative_slope, self.learn_slope = tuple(dims), negative_slope, learn_slope
        self.layers = nn.ModuleList(nn.Linear(wide, narrow) for wide, narrow in pairwise(dims))
        self.slope_logit = nn.Parameter(torch.empty(())) if learn_slope else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot weights and zero biases, as PyG's ``GCNConv``, and the slope it began with."""
        for weight, bias in self.weights:
            nn.init.xavier_uniform_(weight)
            nn.init.zeros_(bias)
        if self.slope_logit is not None:
            start = math.log(self.negative_slope / (1 - self.negative_slope))
            nn.init.constant_(self.slope_logit, start)

    @property
    def slope(self) -> float | Tensor:
        """The slope below 0: ``negative_slope``, or what has been learned."""
        return self.negative_slope if self.slope_logit is None else self.slope_logit.sigmoid()

    @property
    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Weight (out, in) and bias (out,) of every layer."""
        return [
            (self.get_parameter(f"layers.{i}.weight"), self.get_parameter(f"layers.{i}.bias"))
            for i in range(len(self.layers))
        ]

    def forward(
        self,
        nodes: Tensor | Adjacency,
        edges: Adjacency | Tensor,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        """Features (n, dims[0]) -> (n, dims[-1]).

        ``nodes`` may be sparse: an :class:`Adjacency` of shape (n, dims[0]), e.g. bags of words of
        :func:`adjacency_from_entries`, 10 times cheaper than a dense product on Cora. ``edges`` is
        an adjacency built with ``norm="gcn"``, or PyG's edge_index, which is normalised so.
        """
        if not isinstance(nodes, Adjacency):
            check_nodes("GCNEncoder", nodes)
        for number, (weight, bias) in enumerate(self.weights):
            nodes = linear_nodes(nodes, weight)
            if not number:
                edges = as_operator("GCNEncoder", nodes, edges, edge_weight, norm="gcn")
            assert isinstance(edges, Adjacency)
            nodes = leaky_relu(propagate(nodes, edges) + bias, self.slope)
        assert isinstance(nodes, Tensor)
        return nodes

    def extra_repr(self) -> str:
        """What was asked for."""
        learned = ", learn_slope=True" if self.learn_slope else ""
        return f"dims={self.dims}, negative_slope={self.negative_slope:g}{learned}"
