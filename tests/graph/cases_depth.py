"""DAGNN and its gate in the contract."""

import torch

from embedkit.graph import build_adjacency
from embedkit.graph.propagation.adaptive_depth import AdaptiveHopGate, DAGNNPropagation
from embedkit.graph.propagation.dagnn import DAGNN


def ring(n):
    """Every node sends to the next one, and every third to the one after: not symmetric."""
    here = torch.arange(n)
    edges = torch.stack([here, (here + 1) % max(n, 1)])
    more = torch.stack([here[::3], (here[::3] + 2) % max(n, 1)])
    return build_adjacency(torch.cat([edges, more], dim=1), num_nodes=n, norm="gcn")


CASES = {
    AdaptiveHopGate: (lambda: AdaptiveHopGate(4), lambda b: (torch.randn(b, 3, 4),)),
    DAGNNPropagation: (
        lambda: DAGNNPropagation(4, num_hops=3),
        lambda b: (torch.randn(b, 4), ring(b)),
    ),
    DAGNN: (
        lambda: DAGNN(5, 6, 4, num_hops=3, dropout=0.0),
        lambda b: (torch.randn(b, 5), ring(b)),
    ),
}
