"""Many hops without a weight between them, and a gate that chooses how much each node keeps."""

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_last_dim, check_ndim
from embedkit.graph._operator import as_operator
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.propagation._streamed import streamed_hops, sum_of_hops
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision


def hop_stack(
    nodes: Float[Tensor, "n c"],
    edges: Adjacency | Int[Tensor, "2 e"],
    edge_weight: Float[Tensor, " e"] | None = None,
    *,
    num_hops: int = 10,
) -> Float[Tensor, "n k c"]:
    """Every hop of a propagation, side by side:  H_0 = x,  H_k = A H_(k-1).

    It takes n (K + 1) c numbers. To look at hops, or to gate them in a way of your own;
    :class:`DAGNNPropagation` needs no stack.

    Args:
        nodes: one vector per node.
        edges: a square :class:`Adjacency`, or ``edge_index``, which is normalised by "gcn".
        edge_weight: of ``edge_index``; None: 1 each.
        num_hops: K; 0 gives the nodes alone.

    Returns:
        (n, K + 1, c), hop 0 first, in the dtype of ``nodes``; hops in float32 or wider between.

    Raises:
        ValueError: if ``num_hops`` is below 0, the matrix is not square, shapes don't fit, or a
            weighted degree is negative.
        TypeError: if ``nodes`` is not floating.

    >>> hop_stack(torch.eye(2), torch.tensor([[0, 1], [1, 0]]), num_hops=2).shape
    torch.Size([2, 3, 2])
    """
    check_at_least("hop_stack", "num_hops", num_hops, 0)
    adjacency = _square("hop_stack", nodes, edges, edge_weight)
    hops = [nodes.to(accumulation_dtype(nodes.dtype))]
    for _ in range(num_hops):
        hops.append(propagate(hops[-1], adjacency))
    return torch.stack(hops, dim=1).to(nodes.dtype)


def adaptive_propagation(
    nodes: Float[Tensor, "n c"],
    edges: Adjacency | Int[Tensor, "2 e"],
    weight: Float[Tensor, " c"],
    bias: Float[Tensor, ""] | None = None,
    *,
    edge_weight: Float[Tensor, " e"] | None = None,
    num_hops: int = 10,
    checkpoint: bool = False,
) -> Float[Tensor, "n c"]:
    """Propagate K times and keep of every hop as much as the node's gate says.

    H_0 = x,  H_k = A H_(k-1);  s_ik = sigmoid(H_ik . w + b);  out_i = sum_(k=0..K) s_ik H_ik. The
    scores of a node don't compete: they need not add up to 1. Hops are added up as they come:
    without gradients at most 3 n c numbers live beside the nodes, whatever K is.

    Args:
        nodes: x, usually the output of an MLP: narrow vectors make narrow hops.
        edges: a square :class:`Adjacency` (``norm="gcn"`` is the paper's), or ``edge_index``, which
            is normalised by "gcn": self loops are added where a node has none.
        weight: w, one vector for all nodes and hops.
        bias: b; None: 0.
        edge_weight: of ``edge_index``; None: 1 each.
        num_hops: K; 0 gates the nodes themselves.
        checkpoint: in training keep K + 1 numbers per node for the backward pass in place of K + 1
            vectors, and propagate a third time. Gradients are the same. Where weights of edges
            need a gradient, that needs the hops, and these are kept.

    Returns:
        One vector per node in the dtype of ``nodes``; hops, gate and sum in float32 or wider.

    Raises:
        ValueError: if widths differ, ``num_hops`` is below 0, the matrix is not square, or a
            weighted degree is negative.
        TypeError: if ``nodes`` is not floating.

    Source: Liu et al. 2020, Towards Deeper Graph Neural Networks, eq. 8.
    Differs: the optional bias, which the released code has and the paper has not.
    """
    check_at_least("adaptive_propagation", "num_hops", num_hops, 0)
    adjacency = _square("adaptive_propagation", nodes, edges, edge_weight)
    check_last_dim("nodes", nodes, weight.shape[0], "The gate fits one width.")
    wide = accumulation_dtype(nodes.dtype)
    hop, weight = nodes.to(wide), weight.to(wide)
    bias = weight.new_zeros(()) if bias is None else bias.to(wide)
    if checkpoint and torch.is_grad_enabled() and not adjacency.value.requires_grad:
        other = adjacency.transpose or (None, None, None)
        streamed: Tensor = streamed_hops(*adjacency[:3], *other, hop, weight, bias, num_hops)
        return streamed.to(nodes.dtype)
    return sum_of_hops(hop, adjacency, weight, bias, num_hops).to(nodes.dtype)


def _square(
    owner: str, nodes: Tensor, edges: Adjacency | Tensor, weight: Tensor | None
) -> Adjacency:
    """The operator; a matrix that is to be applied twice has as many rows as columns."""
    adjacency = as_operator(owner, nodes, edges, weight, norm="gcn")
    if adjacency.num_rows != adjacency.num_cols:
        raise ValueError(
            f"{owner}: hops need a square matrix, got {adjacency.num_rows} x {adjacency.num_cols}. "
            "bipartite_adjacency gives the square one of users and items."
        )
    return adjacency


class AdaptiveHopGate(nn.Module):
    """Mix vectors of several hops or layers, each by a score of its own:  sum_k s_k h_k.

    s_k = sigmoid(h_k . w + b)  is large where the hop points along w. Scores are independent of
    each other, where a softmax would make hops compete. Takes :func:`hop_stack`, or the outputs of
    the layers of any graph network, stacked.

    Args:
        dim: width of a vector.
        bias: with b, as in the released code; the paper has none.

    Raises:
        ValueError: if ``dim`` is below 1, or another width comes in.
        TypeError: if vectors are not floating.

    Source: Liu et al. 2020, Towards Deeper Graph Neural Networks, eq. 8.

    >>> AdaptiveHopGate(4)(torch.randn(5, 11, 4)).shape
    torch.Size([5, 4])
    """

    def __init__(self, dim: int, bias: bool = True) -> None:
        super().__init__()
        check_at_least("AdaptiveHopGate", "dim", dim, 1)
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(())) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from (-1 / sqrt(dim), 1 / sqrt(dim)), as torch's linear layer does."""
        bound = self.weight.shape[0] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def scores(self, hops: Tensor) -> Tensor:
        """(*n, k, dim) -> (*n, k), how much of each is kept, in (0, 1)."""
        check_floating("hops", hops)
        check_last_dim("hops", hops, self.weight.shape[0], "The gate fits one width.")
        wide = accumulation_dtype(hops.dtype)
        logits = (hops.to(wide) * self.weight.to(wide)).sum(dim=-1)
        return torch.sigmoid(logits if self.bias is None else logits + self.bias.to(wide))

    def forward(self, hops: Tensor) -> Tensor:
        """(*n, k, dim) -> (*n, dim)."""
        scores = self.scores(hops)
        if hops.ndim < 2:
            check_ndim("hops", hops, "n k d")
        with full_precision(hops):
            kept = einsum(scores, hops.to(scores.dtype), "... k, ... k d -> ... d")
        return kept.to(hops.dtype)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dim={self.weight.shape[0]}, bias={self.bias is not None}"


class DAGNNPropagation(nn.Module):
    """:func:`adaptive_propagation` with a learned gate: depth without layers.

    A parameter per column and one more, for all nodes and hops. Put it behind an encoder that sees
    each node alone; a weight matrix between hops is what makes deep graph networks collapse.

    Args:
        dim: width of a node's vector.
        num_hops: K. The paper takes 10 for citation graphs, 5 for denser ones.
        bias: see :class:`AdaptiveHopGate`.
        checkpoint: train in memory that doesn't grow with K. Hops are made three times in place of
            two, but not stored: a step takes 0.7 (width 64) to 1.4 times (width 16) as long.

    Raises:
        ValueError: if ``dim`` is below 1, ``num_hops`` below 0, or shapes don't fit.
        TypeError: if ``nodes`` is not floating.

    Source: Liu et al. 2020, Towards Deeper Graph Neural Networks, section 4.1.

    >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> DAGNNPropagation(4, num_hops=5)(torch.randn(3, 4), edge_index).shape
    torch.Size([3, 4])
    """

    def __init__(
        self, dim: int, num_hops: int = 10, bias: bool = True, checkpoint: bool = False
    ) -> None:
        super().__init__()
        check_at_least("DAGNNPropagation", "num_hops", num_hops, 0)
        self.gate = AdaptiveHopGate(dim, bias)
        self.num_hops, self.checkpoint = num_hops, checkpoint

    def reset_parameters(self) -> None:
        """Draw the gate again."""
        self.gate.reset_parameters()

    def forward(
        self, nodes: Tensor, edges: Adjacency | Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """(n, dim) and an adjacency, or edge_index (2, e) with weights (e,) -> (n, dim)."""
        return adaptive_propagation(
            nodes,
            edges,
            self.gate.weight,
            self.gate.bias,
            edge_weight=edge_weight,
            num_hops=self.num_hops,
            checkpoint=self.checkpoint,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"num_hops={self.num_hops}, checkpoint={self.checkpoint}"
