"""How to build the encoder of contrastive methods and the bound on it."""

import torch

from embedkit.graph import build_adjacency, reweight
from embedkit.graph.contrast.bounds import AdjacencyBounds, edge_drop_bounds
from embedkit.graph.contrast.compactness import NodeCompactness
from embedkit.graph.propagation.encoder import GCNEncoder


def ring(b):
    nodes = torch.arange(b)
    both = torch.cat([torch.stack([nodes, nodes.roll(1)]), torch.stack([nodes.roll(1), nodes])], 1)
    return both[:, both[0] != both[1]].unique(dim=1)


def features(b, width=3):
    return torch.randn(b, width, generator=torch.Generator().manual_seed(1))


def view(b, edges=None):
    """With a transpose of its own, so that each value can move by itself."""
    made = build_adjacency(ring(b) if edges is None else edges, num_nodes=b, norm="gcn")
    return reweight(made, made.value)


def encoder(slope=0.25):
    """Weights of their own seed, biases too, and no unit near its kink."""
    made = GCNEncoder([3, 4, 2], slope)
    for weight in made.parameters():
        torch.nn.init.normal_(weight)
    return made


def compared(b):
    """One view, embeddings of the other, and the box of the graph."""
    lower, upper = edge_drop_bounds(ring(b), b, 0.5)
    box = AdjacencyBounds(reweight(lower, lower.value), reweight(upper, upper.value))
    return features(b), view(b, ring(b)[:, 1:]), features(b, 2), box


CASES = {
    GCNEncoder: (encoder, lambda b: (features(b), view(b))),
    NodeCompactness: (lambda: NodeCompactness(encoder()), compared),
}
