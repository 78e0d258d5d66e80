"""Views of a heterogeneous graph for contrast: whom a path leads to, and through whom."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import elu, layer_norm

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_floating,
    check_last_dim,
    check_ndim,
    check_same_shape,
)
from embedkit.graph._operator import as_operator
from embedkit.graph._square import check_square
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.build import build_adjacency
from embedkit.ops import accumulation_dtype


def mask_entries(
    features: Float[Tensor, "*n"], rate: float, *, generator: torch.Generator | None = None
) -> Float[Tensor, "*n"]:
    """Set each entry to 0 with probability ``rate``; the rest stays as it is, not scaled up.

    Sparse features are masked by their values: ``reweight(features, mask_entries(features.value,
    rate))``. MEOW draws a mask once, before training; drawing one per step is the usual practice.

    Args:
        features: any shape.
        rate: 0 to 1.
        generator: of the draw, on the device of ``features``.

    Raises:
        ValueError: if ``rate`` is not in [0, 1].
        TypeError: if features are not floating.

    Source: Yu et al. 2022, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples (MEOW), the masked copy of the fine view.
    """
    check_floating("features", features)
    _check_rate("mask_entries", "rate", rate)
    draw = torch.rand(features.shape, generator=generator, device=features.device)
    return features.masked_fill(draw < rate, 0.0)


def mask_edges(
    adjacency: Adjacency, rate: float, *, generator: torch.Generator | None = None
) -> Adjacency:
    """Drop each edge with probability ``rate``, forget weights, add self loops, normalise again.

    The diagonal is taken out, what survives counts 1, a loop of 1 is added to every node, and both
    sides are scaled by 1 / sqrt(row sum). A node that loses all its edges keeps its loop.

    Args:
        adjacency: square, e.g. of :func:`topk_pathsim`; each direction of an edge is drawn for
            itself.
        rate: 0 to 1.
        generator: of the draw, on the device of ``adjacency``.

    Raises:
        ValueError: if ``rate`` is not in [0, 1] or the matrix is not square.
        TypeError: if ``adjacency`` is no :class:`Adjacency`.

    Source: Yu et al. 2022, MEOW, the masked copy of the fine view.

    >>> graph = build_adjacency(torch.tensor([[0, 1], [1, 0]]))
    >>> mask_edges(graph, 1.0).value
    tensor([1., 1.])
    """
    _check_rate("mask_edges", "rate", rate)
    check_square("mask_edges", adjacency)
    size = adjacency.num_rows
    row, col = adjacency.row, adjacency.col
    draw = torch.rand(col.shape, generator=generator, device=col.device)
    keep = (draw >= rate) & (row != col)
    weight = torch.ones_like(adjacency.value[keep])
    edge_index = torch.stack([col[keep], row[keep]])
    return build_adjacency(edge_index, weight, size, norm="sym", self_loops=True)


class MetaPathContext(nn.Module):
    """Add to each node what lies between it and those a meta-path leads to.

    ELU( h_i + sum_q dropout(V_q c_i^q) ),  c_i^q the mean of the distinct nodes at position q of
    the path: ``propagate(nodes_of_that_type, context)`` with the operators of
    :func:`metapath_contexts`. A node that reaches nothing has c = 0 and stays ELU(h).

    Args:
        dim: width of the target nodes.
        position_dims: width of the means at each position, one entry per position.
        dropout: 0 to 1, on each V_q c^q.

    Raises:
        ValueError: if a width is below 1, there is no position, ``dropout`` is not in [0, 1], or
            inputs do not fit.
        TypeError: if inputs are not floating.

    Source: Yu et al. 2022, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, the fine view.

    >>> MetaPathContext(8, [8, 8])(torch.randn(5, 8), [torch.randn(5, 8), torch.randn(5, 8)]).shape
    torch.Size([5, 8])
    """

    def __init__(self, dim: int, position_dims: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        check_at_least("MetaPathContext", "dim", dim, 1)
        check_at_least("MetaPathContext", "the number of positions", len(position_dims), 1)
        for width in position_dims:
            check_at_least("MetaPathContext", "each width of position_dims", width, 1)
        _check_rate("MetaPathContext", "dropout", dropout)
        self.dim, self.dropout = dim, dropout
        self.positions = nn.ModuleList(nn.Linear(w, dim, bias=False) for w in position_dims)

    def reset_parameters(self) -> None:
        """Give the linear layers torch's own initialisation."""
        for layer in self.positions:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, nodes: Tensor, contexts: Sequence[Tensor] | Tensor) -> Tensor:
        """Nodes (n, dim) and a mean (n, width) per position, listed or stacked -> (n, dim)."""
        check_floating("nodes", nodes)
        check_ndim("nodes", nodes, "n d")
        check_last_dim("nodes", nodes, self.dim, "A layer fits one width: rebuild it.")
        if len(contexts) != len(self.positions):
            raise ValueError(
                f"contexts: expected {len(self.positions)}, one per position of the path, got "
                f"{len(contexts)}. metapath_contexts gives an operator for each."
            )
        total = nodes
        for number, (layer, context) in enumerate(zip(self.positions, contexts, strict=True)):
            check_floating(f"context {number}", context)
            check_last_dim(f"context {number}", context, int(layer.in_features))  # type: ignore[arg-type]
            part = layer(context)
            check_same_shape("One mean per target node.", nodes=nodes, **{f"part {number}": part})
            total = total + drop(part, self.dropout, self.training).to(nodes.dtype)
        return elu(total)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dim={self.dim}, dropout={self.dropout}"


class ContextGCN(nn.Module):
    """The shared encoder of all views:  norm( A dropout( PReLU( A dropout(h W1) ) W2 ) ).

    "matrix" brings all n x d numbers together to mean 0 and variance 1, so that a node's result
    depends on every other node: vectors of a part of the graph differ from those of the whole.
    "row" does that for each node alone, "none" not at all.

    Args:
        in_features: width of the nodes.
        dim: width of the result.
        dropout: 0 to 1, before each propagation.
        standardize: "matrix" (MEOW), "row" or "none".

    Raises:
        ValueError: if a width is below 1, ``dropout`` is not in [0, 1], or inputs do not fit.
        TypeError: if nodes are not floating.

    Source: Yu et al. 2022, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, the encoder in the released code; Kipf & Welling 2017,
    Semi-supervised Classification with Graph Convolutional Networks, eq. 2.
    Differs: the second propagation uses A; the released code uses its transpose.

    >>> edge_index = torch.tensor([[0, 1], [1, 0]])
    >>> ContextGCN(8, 4)(torch.randn(3, 8), edge_index).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        in_features: int,
        dim: int = 64,
        dropout: float = 0.0,
        standardize: Literal["matrix", "row", "none"] = "matrix",
    ) -> None:
        super().__init__()
        check_at_least("ContextGCN", "in_features", in_features, 1)
        check_at_least("ContextGCN", "dim", dim, 1)
        _check_rate("ContextGCN", "dropout", dropout)
        check_choice("ContextGCN", "standardize", standardize, ("matrix", "row", "none"))
        self.dropout, self.standardize = dropout, standardize
        self.first = nn.Linear(in_features, dim, bias=False)
        self.second = nn.Linear(dim, dim, bias=False)
        self.activation = nn.PReLU()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both matrices from [-1 / sqrt(dim), 1 / sqrt(dim)]; the slope of PReLU is 0.25."""
        bound = self.second.out_features**-0.5
        for layer in (self.first, self.second):
            nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.constant_(self.activation.weight, 0.25)

    def forward(
        self, nodes: Tensor, edges: Adjacency | Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """Nodes (n, in_features) and an Adjacency, or PyG's edge_index (2, e) -> (n, dim).

        An ``edge_index`` is normalised as ``norm="sym"`` without self loops.
        """
        adjacency = as_operator("ContextGCN", nodes, edges, edge_weight, norm="sym")
        check_last_dim("nodes", nodes, self.first.in_features, "A layer fits one width: rebuild.")
        x = propagate(drop(self.first(nodes), self.dropout, self.training), adjacency)
        x = self.second(self.activation(x))
        x = propagate(drop(x, self.dropout, self.training), adjacency)
        if self.standardize != "none":
            wide = x.to(accumulation_dtype(x.dtype))
            x = layer_norm(wide, x.shape if self.standardize == "matrix" else x.shape[1:])
        return x.to(nodes.dtype)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dropout={self.dropout}, standardize={self.standardize!r}"


def _check_rate(owner: str, name: str, rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ValueError(f"{owner}: {name} must be in [0, 1], got {rate:g}. It is a probability.")
