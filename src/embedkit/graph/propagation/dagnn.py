"""DAGNN: an MLP on every node, then many hops and a gate over them."""

from torch import Tensor, nn

from embedkit._checks import check_at_least, check_last_dim
from embedkit.graph._operator import check_nodes
from embedkit.graph.adjacency import Adjacency
from embedkit.graph.propagation.adaptive_depth import DAGNNPropagation


class DAGNN(nn.Module):
    """Deep adaptive graph neural network: transform first, then propagate K times.

    Z = W_2 ReLU(W_1 x),  with dropout before either matrix, then :class:`DAGNNPropagation` of Z.
    It gives logits, or embeddings, without an activation. Of this you can build your own:
    ``DAGNNPropagation`` follows any encoder, also one with normalisation, as large graphs need.

    Args:
        in_features: width of the features of a node.
        hidden: width between the two matrices.
        out_features: number of classes, or the width wanted.
        num_hops: K.
        dropout: the paper takes 0.8 on Cora and PubMed, 0.5 elsewhere.
        checkpoint: see :class:`DAGNNPropagation`.

    Raises:
        ValueError: if a width is below 1, ``num_hops`` below 0, or shapes don't fit.
        TypeError: if ``nodes`` is not floating.

    Source: Liu et al. 2020, Towards Deeper Graph Neural Networks, section 4.1.

    >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> DAGNN(8, 16, 3)(torch.randn(3, 8), edge_index).shape
    torch.Size([3, 3])
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        out_features: int,
        num_hops: int = 10,
        dropout: float = 0.5,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        for name, width in (("in_features", in_features), ("hidden", hidden)):
            check_at_least("DAGNN", name, width, 1)
        check_at_least("DAGNN", "out_features", out_features, 1)
        self.encoder = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(in_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, out_features),
        )
        self.propagation = DAGNNPropagation(out_features, num_hops, checkpoint=checkpoint)
        self.in_features = in_features

    def reset_parameters(self) -> None:
        """Give both matrices and the gate torch's own initialisation."""
        for layer in (self.encoder[1], self.encoder[4], self.propagation):
            layer.reset_parameters()  # type: ignore[operator]

    def forward(
        self, nodes: Tensor, edges: Adjacency | Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """(n, in_features) and an adjacency, or edge_index (2, e) -> (n, out_features)."""
        check_nodes("DAGNN", nodes)
        check_last_dim("nodes", nodes, self.in_features, "The first matrix fits one width.")
        hidden: Tensor = self.propagation(self.encoder(nodes), edges, edge_weight)
        return hidden.to(nodes.dtype)
