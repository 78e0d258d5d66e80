"""Which paths of a knowledge graph lead from a user to an item, and how much is sent along them."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_at_least, check_floating, check_ndim, check_rows
from embedkit.graph._edges import check_ids
from embedkit.graph.knowledge.collaborative import KnowledgeGraph


class AttentionPaths(NamedTuple):
    """Paths, the strongest first.

    Attributes:
        weight: (p,) the product of the weights along each path.
        triples: (p, length) the places of its triples in ``graph.head``, ``graph.relation`` and
            ``graph.tail``, from source to target, filled up with -1.
    """

    weight: Tensor
    triples: Tensor


@torch.no_grad()
def attention_paths(
    graph: KnowledgeGraph,
    weight: Float[Tensor, " e"],
    source: int,
    target: int,
    *,
    k: int = 10,
    length: int = 3,
) -> AttentionPaths:
    """The strongest paths between two nodes, by the product of the attention along each.

    A path follows triples from head to tail and meets no node twice; two relations between the
    same nodes are two paths. All paths of up to ``length`` triples are looked at, by gathers over
    whole levels: with 3, as many as there are triples at the neighbours of the source.

    The weights say what the operator sends, to every user by the same rule. They don't depend on
    the pair that is asked for, and no path is a proof of why an item is recommended.

    Args:
        graph: of :func:`collaborative_knowledge_graph`, where user u is node u and item i is node
            num_users + i.
        weight: one per triple, of :func:`relational_attention`.
        source: the node that is explained, a user.
        target: the node that is reached, an item.
        k: how many paths to give back at most.
        length: triples of the longest path; 3 is user, item, attribute, item.

    Raises:
        ValueError: if there is not one weight per triple, a node is out of range, or ``k`` or
            ``length`` is below 1.
        TypeError: if weights are not floating.

    Source: Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, section
    4.5 (case study).

    >>> from embedkit.graph.knowledge.collaborative import knowledge_graph
    >>> graph = knowledge_graph(torch.tensor([[0, 0, 1], [1, 1, 2], [0, 1, 2]]), 3, 2)
    >>> paths = attention_paths(graph, torch.full((6,), 0.5), source=0, target=2)
    >>> paths.weight, paths.triples
    (tensor([0.5000, 0.2500]), tensor([[ 1, -1, -1],
            [ 0,  2, -1]]))
    """
    owner = "attention_paths"
    check_floating("weight", weight)
    check_ndim("weight", weight, "e")
    check_rows("weight", weight, graph.head.shape[0], "One weight per triple of the graph.")
    check_at_least(owner, "k", k, 1)
    check_at_least(owner, "length", length, 1)
    device = graph.head.device
    for name, node in (("source", source), ("target", target)):
        check_ids(owner, name, torch.tensor([node]), graph.num_nodes, "num_nodes")
    start, back = graph.adjacency.crow, graph.adjacency.transpose
    assert back is not None  # a knowledge graph keeps it
    into = slice(int(back.crow[target]), int(back.crow[target + 1]))
    before, last = back.col[into], graph.order[back.order[into]]
    nodes = torch.tensor([[source]], device=device)  # of every path so far
    taken = nodes.new_empty(1, 0)  # its triples
    found = []
    for step in range(1, length + 1):
        end = nodes[:, -1].contiguous()
        first = torch.searchsorted(before, end)
        count = torch.searchsorted(before, end, right=True) - first
        path, place = _runs(first, count)
        whole = torch.cat([taken[path], last[place][:, None]], dim=1)
        found.append(torch.nn.functional.pad(whole, (0, length - step), value=-1))
        if step == length:
            break
        first = start[end]
        path, place = _runs(first, start[end + 1] - first)
        new = graph.adjacency.col[place][:, None]
        fresh = (new[:, 0] != target) & (nodes[path] != new).all(dim=1)
        if step == length - 1:  # only what one triple more can take to the target
            fresh &= torch.isin(new[:, 0], before)
        path, place, new = path[fresh], place[fresh], new[fresh]
        nodes = torch.cat([nodes[path], new], dim=1)
        taken = torch.cat([taken[path], graph.order[place][:, None]], dim=1)
    triples = torch.cat(found)
    padded = torch.cat([weight, weight.new_ones(1)])  # place -1 multiplies by 1
    product = padded[triples].prod(dim=1)
    best = torch.argsort(product, descending=True, stable=True)[:k]
    return AttentionPaths(product[best], triples[best])


def _runs(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """For run i of ``count[i]`` places from ``first[i]``: i and the place, for all of them."""
    run = torch.arange(len(count), device=count.device).repeat_interleave(count)
    inside = torch.arange(len(run), device=count.device) - (count.cumsum(0) - count)[run]
    return run, first[run] + inside
