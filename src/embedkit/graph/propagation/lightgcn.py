"""LightGCN: the normalised sum over neighbours, and nothing else."""

from torch import Tensor, nn

from embedkit.graph._operator import as_operator
from embedkit.graph.adjacency import Adjacency, propagate


class LightGCNConv(nn.Module):
    """:func:`embedkit.graph.propagate` as a layer:  E' = L E,  L = D^{-1/2} A D^{-1/2}.

    No weights, no self loops, no activation. Several in a row, averaged with the table they start
    from, are LightGCN: :class:`PropagatedEmbedding`.

    Raises:
        ValueError: if shapes don't fit, ``edge_index`` points outside the nodes, or the weights
            that a node receives add up to less than 0.
        TypeError: if nodes or weights are not floating, or ``edge_index`` not integer.

    Source: He et al. 2020, LightGCN: Simplifying and Powering Graph Convolution Network for
    Recommendation, eq. 3.

    >>> edge_index = torch.tensor([[0, 1], [1, 0]])
    >>> LightGCNConv()(torch.tensor([[1.0], [5.0], [7.0]]), edge_index)
    tensor([[5.],
            [1.],
            [0.]])
    """

    def forward(
        self, nodes: Tensor, edges: Adjacency | Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        """(n, d) nodes and a graph -> (n, d); zeros for a node without neighbours.

        ``edges`` is an adjacency of norm "sym", taken as it was built, or PyG's ``edge_index``,
        normalised here at every call.
        """
        return propagate(nodes, as_operator("LightGCNConv", nodes, edges, edge_weight))
