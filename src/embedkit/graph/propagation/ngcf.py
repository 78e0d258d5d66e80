"""NGCF: neighbours are summed, and what they share with the node counts on its own."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_choice, check_last_dim
from embedkit.graph._operator import as_operator
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.propagation.bi_interaction import bi_interaction


class NGCFConv(nn.Module):
    """:func:`bi_interaction` of every node E with the weighted sum S of its neighbours.

    "paper":  LeakyReLU((S + E) W1^T + (S * E) W2^T + b),  S = L E,  L = D^{-1/2} A D^{-1/2};
    "split", the released code:  LeakyReLU(S W1^T + b1) + LeakyReLU((S * E) W2^T + b2),  S = A' E,
    A' = D^{-1} A + I.  Then ordinary dropout, while training. The result is not normalised: it
    feeds the next layer as it is, and :class:`LayerCombination` normalises its copy.

    One sparse product and two dense ones per layer: O(e d + n d^2) time, O(n d) memory.

    Args:
        in_features: width of the nodes.
        out_features: width of the result.
        negative_slope: of the LeakyReLU below 0.
        bias: one bias for "paper", two for "split".
        dropout: share of entries of the result that are zeroed while training (message dropout).
        mode: "paper", the equations; "split", what the released code computes, and the published
            numbers come from.

    Raises:
        ValueError: if a width is below 1, the dropout is not in [0, 1), the mode is unknown, shapes
            don't fit, ``edge_index`` points outside the nodes, or, for "paper", the weights that a
            node receives add up to less than 0.
        TypeError: if nodes or weights are not floating, or ``edge_index`` not integer.

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, eq. 3-7 ("paper") and its
    released code ("split").
    Differs: the equations have no bias, as ``bias=False``.

    >>> edge_index = torch.tensor([[0, 1], [1, 0]])
    >>> NGCFConv(8, 4)(torch.randn(3, 8), edge_index).shape
    torch.Size([3, 4])
    """

    bias: Tensor | None
    product_bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        negative_slope: float = 0.2,
        bias: bool = True,
        dropout: float = 0.1,
        mode: Literal["paper", "split"] = "paper",
    ) -> None:
        super().__init__()
        check_at_least("NGCFConv", "in_features", in_features, 1)
        check_at_least("NGCFConv", "out_features", out_features, 1)
        check_choice("NGCFConv", "mode", mode, ("paper", "split"))
        if not 0 <= dropout < 1:
            raise ValueError(f"NGCFConv: dropout must lie in [0, 1), got {dropout:g}. Try 0.1.")
        self.negative_slope, self.dropout, self.mode = negative_slope, dropout, mode
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.product_weight = nn.Parameter(torch.empty(out_features, in_features))
        empty = (torch.empty(out_features) if bias else None for _ in range(2))
        first, second = (None if b is None else nn.Parameter(b) for b in empty)
        self.register_parameter("bias", first)
        self.register_parameter("product_bias", second if mode == "split" else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform, a bias as a matrix of one row."""
        for parameter in self.parameters():
            nn.init.xavier_uniform_(parameter if parameter.ndim == 2 else parameter[None])

    def forward(
        self, nodes: Tensor, edges: Adjacency | Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """(n, in_features) nodes and a graph -> (n, out_features).

        ``edges`` is an adjacency, taken as it was built: norm "sym" for "paper"; for "split" one
        that holds the self connections, ``add_identity(bipartite_adjacency(..., norm="row"))``.
        Or PyG's ``edge_index``, from which the same is made at every call.
        """
        norm = "sym" if self.mode == "paper" else "row"
        operator = as_operator("NGCFConv", nodes, edges, edge_weight, norm=norm)
        hint = "The layer's in_features: rebuild it for other nodes."
        check_last_dim("nodes", nodes, self.weight.shape[1], hint)
        summed = propagate(nodes, operator)
        if self.mode == "split" and not isinstance(edges, Adjacency):
            summed = summed + nodes
        mixed = bi_interaction(
            summed + nodes if self.mode == "paper" else summed,
            summed * nodes,
            self.weight,
            self.product_weight,
            self.bias,
            self.product_bias,
            negative_slope=self.negative_slope,
            joint=self.mode == "paper",
        )
        return F.dropout(mixed, self.dropout, self.training)

    def extra_repr(self) -> str:
        """What was asked for."""
        out, into = self.weight.shape
        return f"{into}, {out}, dropout={self.dropout}, mode={self.mode!r}"
