"""How much a node listens to each of its triples, from vectors, relations and a map for each."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_floating, check_last_dim, check_ndim, check_rows
from embedkit.graph._product import sampled_product
from embedkit.graph.adjacency import Adjacency
from embedkit.graph.knowledge.collaborative import KnowledgeGraph
from embedkit.ops import accumulation_dtype, segment_softmax


def relational_attention(
    nodes: Float[Tensor, "n d"],
    translation: Float[Tensor, "r k"],
    projection: Float[Tensor, "r k d"],
    graph: KnowledgeGraph,
) -> Float[Tensor, " e"]:
    """A weight for each triple, softmax over all triples of its head, of every relation:

    a(h, r, t) = softmax over (r, t) of  (W_r e_t)^T tanh(W_r e_h + e_r).

    W_r meets every head and every tail of relation r once, and never an edge: time is
    O(sum_r v_r d k + e k) for v_r heads and tails of relation r. Without a gradient the memory
    beside the weights is that of one relation, O(v_r k); with one, of all relations.

    Args:
        nodes: one vector per node of ``graph``; half precision is computed in float32.
        translation: e_r, of every relation of the graph, inverse ones included.
        projection: W_r. :class:`embedkit.heads.TransR` holds both.
        graph: of :func:`knowledge_graph` or :func:`collaborative_knowledge_graph`.

    Returns:
        One weight in [0, 1] per triple, in the order of ``graph.head`` and the dtype of ``nodes``;
        those of one head add up to 1. ``graph.weighted`` makes an operator of them.

    Raises:
        ValueError: if shapes don't fit.
        TypeError: if a tensor is not floating.

    Source: Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, eq. 4-5.

    >>> from embedkit.graph.knowledge.collaborative import knowledge_graph
    >>> graph = knowledge_graph(torch.tensor([[0, 0, 1], [0, 0, 2]]), 3, 1, inverse=False)
    >>> nodes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> projection = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
    >>> relational_attention(nodes, torch.tensor([[0.5, -0.5]]), projection, graph)
    tensor([0.2880, 0.7120])
    """
    _check(nodes, translation, projection, graph)
    wide = accumulation_dtype(nodes.dtype)
    x, translation, projection = nodes.to(wide), translation.to(wide), projection.to(wide)
    with _no_autocast(x):
        logits = [
            sampled_product(
                group.crow, group.col, (x[group.heads] @ w.T + e).tanh(), x[group.tails] @ w.T
            )
            for group, w, e in zip(graph.groups, projection, translation, strict=True)
        ]
        logit = torch.cat(logits)[:, None]
    return segment_softmax(logit, graph.head, graph.num_nodes)[:, 0].to(nodes.dtype)


def _check(nodes: Tensor, translation: Tensor, projection: Tensor, graph: KnowledgeGraph) -> None:
    if not isinstance(graph, KnowledgeGraph):
        raise TypeError(
            f"relational_attention: expected a KnowledgeGraph, got {type(graph).__name__}. Build "
            "it once: knowledge_graph(triples, num_nodes, num_relations)."
        )
    for name, x, axes in (
        ("nodes", nodes, "n d"),
        ("translation", translation, "r k"),
        ("projection", projection, "r k d"),
    ):
        check_floating(name, x)
        check_ndim(name, x, axes)
    check_rows("nodes", nodes, graph.num_nodes, "One per node of the graph.")
    hint = "One per relation of the graph, inverse ones included: graph.num_relations."
    check_rows("translation", translation, graph.num_relations, hint)
    check_rows("projection", projection, graph.num_relations, hint)
    check_last_dim("projection", projection, nodes.shape[1], "W_r maps the width of nodes.")
    check_last_dim("translation", translation, projection.shape[1], "e_r lives where W_r leads.")


def _no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """No autocast; the meta device has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class RelationalAttention(nn.Module):
    """:func:`relational_attention` as an operator, to be made again once an epoch.

    It has no parameters: vectors, relations and maps come from their tables. As it is, no gradient
    passes through it, so the recommendation loss leaves W_r and e_r alone, as in the paper: they
    learn from :class:`embedkit.heads.TransR`'s distances. On every rank of a distributed run it
    gives the same from the same parameters.

    Args:
        differentiable: let gradients through, into nodes, relations and maps; it then belongs into
            every step, and keeps memory for all relations.

    >>> from embedkit.graph.knowledge.collaborative import knowledge_graph
    >>> graph = knowledge_graph(torch.tensor([[0, 0, 1], [0, 0, 2]]), 3, 1)
    >>> nodes, translation, projection = torch.randn(3, 4), torch.randn(2, 5), torch.zeros(2, 5, 4)
    >>> RelationalAttention()(nodes, translation, projection, graph).value
    tensor([0.5000, 0.5000, 1.0000, 1.0000])
    """

    def __init__(self, differentiable: bool = False) -> None:
        super().__init__()
        self.differentiable = differentiable

    def forward(
        self, nodes: Tensor, translation: Tensor, projection: Tensor, graph: KnowledgeGraph
    ) -> Adjacency:
        """Nodes (n, d), relations (r, k) and maps (r, k, d) -> the graph's operator."""
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            return graph.weighted(relational_attention(nodes, translation, projection, graph))

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"differentiable={self.differentiable}"
