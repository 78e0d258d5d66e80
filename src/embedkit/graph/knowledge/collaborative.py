"""Triples as an operator: a knowledge graph, and clicks and knowledge in one graph."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_integer,
    check_ndim,
    check_rows,
    check_same_shape,
)
from embedkit.graph._edges import check_count, check_ids
from embedkit.graph.adjacency import Adjacency, reweight, transpose_of

_MOST = 2**63  # keys of triples are int64


class RelationGroup(NamedTuple):
    """The triples of one relation, as a sparse matrix between its own heads and tails.

    Attributes:
        heads: (m,) the different nodes that are a head of the relation, ascending.
        tails: (n,) the different nodes that are a tail of it, ascending.
        crow: (m + 1,) where the triples of each head start.
        col: (e_r,) the place of each triple's tail in ``tails``.
    """

    heads: Tensor
    tails: Tensor
    crow: Tensor
    col: Tensor


class KnowledgeGraph(NamedTuple):
    """Different triples (head, relation, tail) and the operator that sends from tail to head.

    All plain tensors, made by :func:`knowledge_graph` or :func:`collaborative_knowledge_graph`.
    What depends on the triples alone is done when it is built: :meth:`weighted` takes new weights
    by one gather, neither sorting nor searching.

    Attributes:
        head: (e,) the node that receives, in the order of relations, then heads, then tails.
        relation: (e,) 0 to num_relations - 1.
        tail: (e,) the node that sends.
        order: (e,) the triple behind each entry of ``adjacency``.
        adjacency: rows are heads, columns tails, one entry per triple, so that two relations
            between one pair are two entries, which add up; each holds 1 / (triples of its head),
            and :meth:`weighted` gives other values.
        groups: one :class:`RelationGroup` per relation, empty ones included.
    """

    head: Tensor
    relation: Tensor
    tail: Tensor
    order: Tensor
    adjacency: Adjacency
    groups: tuple[RelationGroup, ...]

    @property
    def num_nodes(self) -> int:
        """How many nodes there are, with those that no triple names."""
        return self.adjacency.num_rows

    @property
    def num_relations(self) -> int:
        """How many relations there are, inverse ones and those without a triple included."""
        return len(self.groups)

    def weighted(self, weight: Float[Tensor, " e"]) -> Adjacency:
        """The operator with one weight per triple, in the order of ``head``; with its gradient.

        Raises:
            ValueError: if there is not one weight per triple.
            TypeError: if weights are not floating.
        """
        check_ndim("weight", weight, "e")
        check_rows("weight", weight, self.head.shape[0], "One weight per triple of the graph.")
        return reweight(self.adjacency, weight[self.order])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "KnowledgeGraph":
        """The same graph on another device, or with an operator of another floating dtype."""
        head, relation, tail, order = (t.to(device) for t in self[:4])
        groups = tuple(RelationGroup(*(t.to(device) for t in group)) for group in self.groups)
        return KnowledgeGraph(head, relation, tail, order, self.adjacency.to(device, dtype), groups)


def knowledge_graph(
    triples: Int[Tensor, "t 3"],
    num_nodes: int,
    num_relations: int,
    *,
    inverse: bool = True,
    dtype: torch.dtype | None = None,
) -> KnowledgeGraph:
    """The graph of a list of triples, sorted and grouped once for all that is done with it.

    Args:
        triples: head, relation and tail of each; a triple that is listed twice counts once.
        num_nodes: heads and tails are 0 to num_nodes - 1.
        num_relations: R; relations are 0 to R - 1, and one without a triple is allowed.
        inverse: add (t, r + R, h) for every (h, r, t), so that messages run both ways and the graph
            has 2 R relations.
        dtype: of the operator; None: torch's default.

    Returns:
        A :class:`KnowledgeGraph`; some 80 bytes per triple.

    Raises:
        ValueError: if shapes don't fit, an id is out of range, or ids are too large for a key.
        TypeError: if triples are not integers.

    >>> graph = knowledge_graph(torch.tensor([[0, 0, 2], [1, 0, 2]]), num_nodes=3, num_relations=1)
    >>> graph.head, graph.relation, graph.tail
    (tensor([0, 1, 2, 2]), tensor([0, 0, 1, 1]), tensor([2, 2, 0, 1]))
    """
    owner = "knowledge_graph"
    _check_triples(owner, triples)
    check_count(owner, "num_relations", num_relations)
    check_at_least(owner, "num_relations", num_relations, 1)
    head, relation, tail = triples.long().unbind(1)
    hint = "Number nodes from 0, heads and tails alike."
    check_ids(owner, "the heads of triples", head, num_nodes, "num_nodes", hint)
    check_ids(owner, "the tails of triples", tail, num_nodes, "num_nodes", hint)
    hint = "Number relations from 0; inverse ones are added here."
    check_ids(owner, "the relations of triples", relation, num_relations, "num_relations", hint)
    if inverse:
        head, tail = torch.cat([head, tail]), torch.cat([tail, head])
        relation = torch.cat([relation, relation + num_relations])
        num_relations = 2 * num_relations
    if num_relations * num_nodes**2 >= _MOST:
        raise ValueError(
            f"{owner}: {num_nodes} nodes and {num_relations} relations don't fit into one 64-bit "
            "key. Number the nodes from 0 without gaps: unique(return_inverse=True)."
        )
    size = max(num_nodes, 1)
    key = torch.unique((relation * size + head) * size + tail)
    relation, head, tail = key // size**2, key // size % size, key % size
    order = torch.argsort(head * size + tail, stable=True)
    row, col = head[order], tail[order]
    nodes = torch.arange(num_nodes + 1, device=row.device)
    crow = torch.searchsorted(row, nodes)
    value = (1.0 / crow.diff()[row].double()).to(dtype or torch.get_default_dtype())
    adjacency = Adjacency(crow, col, value, transpose_of(row, col, num_nodes))
    groups = _group(head, relation, tail, size, num_relations)
    return KnowledgeGraph(head, relation, tail, order, adjacency, groups)


def _group(
    head: Tensor, relation: Tensor, tail: Tensor, size: int, num_relations: int
) -> tuple[RelationGroup, ...]:
    """Per relation its different heads and tails, from triples in order."""
    heads, count = torch.unique_consecutive(relation * size + head, return_counts=True)
    tails, place = torch.unique(relation * size + tail, return_inverse=True)
    bounds = torch.arange(num_relations + 1, device=head.device)
    sizes = [
        torch.searchsorted(ids, bounds).diff().tolist()
        for ids in (heads // size, tails // size, relation)
    ]
    split = zip(heads.split(sizes[0]), count.split(sizes[0]), tails.split(sizes[1]), strict=True)
    start, groups = 0, []
    for (h, n, t), col in zip(split, place.split(sizes[2]), strict=True):
        crow = torch.cat([n.new_zeros(1), n.cumsum(0)])
        groups.append(RelationGroup(h % size, t % size, crow, col - start))
        start += t.shape[0]
    return tuple(groups)


def _check_triples(owner: str, triples: Tensor) -> None:
    check_integer("triples", triples, "They hold the numbers of nodes and relations.")
    if triples.ndim != 2 or triples.shape[1] != 3:
        hint = " It looks transposed: triples.t()." if triples.shape[:1] == (3,) else ""
        raise ValueError(
            f"{owner}: triples must have shape (t, 3), head, relation and tail in a row, "
            f"got {tuple(triples.shape)}.{hint}"
        )


def collaborative_knowledge_graph(
    user: Int[Tensor, " m"],
    item: Int[Tensor, " m"],
    triples: Int[Tensor, "t 3"],
    *,
    num_users: int,
    num_items: int,
    num_entities: int,
    num_relations: int,
    dtype: torch.dtype | None = None,
) -> KnowledgeGraph:
    """Clicks and knowledge of the items in one graph: users, then entities, items first of them.

    User u is node u, entity v node num_users + v, and item i is entity i. With R relations of the
    triples the graph has 2 R + 2: 0 says that a user chose an item, r + 1 is relation r of the
    triples, and R + 1 + s is the inverse of s. Pass training clicks only: test clicks leak.

    Args:
        user: 0 to num_users - 1, one for each click.
        item: 0 to num_items - 1, not offset by the number of users.
        triples: entity, relation and entity of each, numbered from 0 and not offset; items that
            no triple names are allowed.
        num_users: how many there are, with those that chose nothing.
        num_items: how many of the entities are items.
        num_entities: items and everything else.
        num_relations: R, of the triples; one without a triple is allowed.
        dtype: of the operator; None: torch's default.

    Raises:
        ValueError: if shapes don't fit, an id is out of range, or there are more items than
            entities.
        TypeError: if ids are not integers.

    Source: Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, section 2
    (collaborative knowledge graph).
    Differs: before the first attention every triple of a head weighs alike and its weights add up
    to 1, where the released code gives each relation a mean of its own.

    >>> user, item, triples = torch.tensor([0]), torch.tensor([1]), torch.tensor([[1, 0, 2]])
    >>> graph = collaborative_knowledge_graph(
    ...     user, item, triples, num_users=1, num_items=2, num_entities=3, num_relations=1
    ... )
    >>> graph.head, graph.relation, graph.tail
    (tensor([0, 2, 2, 3]), tensor([0, 1, 2, 3]), tensor([2, 3, 0, 2]))
    """
    owner = "collaborative_knowledge_graph"
    for name, count in (
        ("num_users", num_users),
        ("num_items", num_items),
        ("num_entities", num_entities),
        ("num_relations", num_relations),
    ):
        check_count(owner, name, count)
    if num_items > num_entities:
        raise ValueError(
            f"{owner}: items are the first entities, so num_items must be <= num_entities, got "
            f"{num_items} items and {num_entities} entities. An item without a triple is an "
            "entity too."
        )
    check_ids(owner, "user", user, num_users, "num_users", "Users are numbered from 0.")
    hint = (
        "Items are numbered from 0 on their own, not after the users, and are the first entities: "
        "renumber entities so that item i is entity i."
    )
    check_ids(owner, "item", item, num_items, "num_items", hint)
    check_ndim("user", user, "m")
    check_same_shape("One item per user.", user=user, item=item)
    _check_triples(owner, triples)
    ends, relation = triples[:, ::2].long(), triples[:, 1].long()
    hint = "Entities are numbered from 0 on their own, not after the users; items come first."
    check_ids(owner, "the entities of triples", ends, num_entities, "num_entities", hint)
    hint = "Number relations of the triples from 0; clicks and inverse ones are added here."
    check_ids(owner, "the relations of triples", relation, num_relations, "num_relations", hint)
    clicks = torch.stack(
        [user.long(), torch.zeros_like(user).long(), item.long() + num_users], dim=1
    )
    facts = torch.stack([ends[:, 0] + num_users, relation + 1, ends[:, 1] + num_users], dim=1)
    return knowledge_graph(
        torch.cat([clicks, facts]), num_users + num_entities, num_relations + 1, dtype=dtype
    )
