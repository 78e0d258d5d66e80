"""How to build the views of a meta-path."""

import torch

from embedkit.graph import build_adjacency, reweight
from embedkit.graph.contrast.context import ContextGCN, MetaPathContext


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def view(b):
    """A ring with a transpose of its own, so that each value can move by itself."""
    nodes = torch.arange(b)
    made = build_adjacency(torch.stack([nodes, nodes.roll(1)]), num_nodes=b, norm="gcn")
    return reweight(made, made.value)


CASES = {
    MetaPathContext: (
        lambda: MetaPathContext(3, [4, 4]),
        lambda b: (randn(b, 3), randn(2, b, 4)),
    ),
    ContextGCN: (lambda: ContextGCN(3, 4), lambda b: (randn(b, 3), view(b))),
}
