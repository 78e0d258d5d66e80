"""NGCF, LightGCN and their combination in the contract."""

import torch
from torch import nn

from embedkit.graph import bipartite_adjacency, build_adjacency
from embedkit.graph.propagation.combination import LayerCombination, PropagatedEmbedding
from embedkit.graph.propagation.lightgcn import LightGCNConv
from embedkit.graph.propagation.ngcf import NGCFConv


def ring(b):
    """b nodes, each linked with the next, and the last left alone."""
    node = torch.arange(max(b - 2, 0))
    both = torch.stack([torch.cat([node, node + 1]), torch.cat([node + 1, node])])
    nodes = torch.randn(b, 4, generator=torch.Generator().manual_seed(0))
    return nodes, build_adjacency(both, num_nodes=b)


def layers(b):
    return ([torch.randn(b, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)],)


def clicks(b):
    """b clicks of 3 users on 3 items."""
    pair = torch.tensor([0, 4, 8, 1])[:b]
    return (bipartite_adjacency(pair // 3, pair % 3, 3, 3),)


def ngcf():
    convs = [NGCFConv(4, 3, dropout=0.0), NGCFConv(3, 2, dropout=0.0)]
    return PropagatedEmbedding(nn.Embedding(6, 4), convs, LayerCombination("concat", True))


CASES = {
    LayerCombination: (lambda: LayerCombination([0.5, 0.25, 1.0], True), layers),
    LightGCNConv: (LightGCNConv, ring),
    NGCFConv: (lambda: NGCFConv(4, 3, dropout=0.0, mode="split"), ring),
    PropagatedEmbedding: (ngcf, clicks),
}
