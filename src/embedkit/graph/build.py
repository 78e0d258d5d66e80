"""Edges, or pairs of users and items -> a normalised operator."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import check_choice, check_ndim, check_same_shape
from embedkit.graph._edges import (
    check_degrees,
    check_edges,
    check_ids,
    count_nodes,
    normalized_entries,
)
from embedkit.graph.adjacency import Adjacency, merge_entries

Norm = Literal["sym", "row", "gcn", "none"]


def build_adjacency(
    edge_index: Int[Tensor, "2 e"],
    edge_weight: Float[Tensor, " e"] | None = None,
    num_nodes: int | None = None,
    *,
    norm: Norm = "sym",
    self_loops: bool = False,
    dtype: torch.dtype | None = None,
) -> Adjacency:
    """The adjacency of a graph, normalised, built once and reused by every layer and step.

    "sym":  w_ij / sqrt(d_i d_j);  "row":  w_ij / d_i, the mean over neighbours;  "gcn":  "sym" with
    self loops;  "none":  w_ij.  d_i is the sum of the weights that node i receives; a node without
    any keeps an empty row, and no division by zero.

    Loops that are listed stay, and count in d_i, under every norm. Where none are meant take them
    out first: ``torch_geometric.utils.remove_self_loops(edge_index, edge_weight)``.

    Args:
        edge_index: source and target of every edge, as in PyG: messages go from the first to the
            second. An undirected graph lists both directions
            (``torch_geometric.utils.to_undirected``).
        edge_weight: None: 1 each. Edges that are listed twice are added up.
        num_nodes: None: the largest id plus one; say it where the last nodes may have no edge.
        norm: "sym", "row", "gcn" or "none".
        self_loops: add a loop of weight 1 to every node that has none, before normalising, as
            ``torch_geometric.utils.add_remaining_self_loops`` does; loops that are listed several
            times count with their mean. False adds none, and takes none away.
        dtype: of the values; None: that of ``edge_weight``, else torch's default.

    Returns:
        The operator; ``adjacency.transpose is None`` tells that the graph is undirected.

    Raises:
        ValueError: if shapes don't fit, an id is out of range, or a weighted degree is negative
            where "sym" or "gcn" takes its root.
        TypeError: if ``edge_index`` does not hold integers, ``edge_weight`` is not floating, or
            ``num_nodes`` is no integer.

    Source: Kipf & Welling 2017, Semi-supervised Classification with Graph Convolutional Networks,
    eq. 2 ("gcn"); He et al. 2020, LightGCN, eq. 3 ("sym").

    >>> build_adjacency(torch.tensor([[0, 1], [1, 0]]), num_nodes=2, norm="gcn").value
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    check_edges("build_adjacency", edge_index, edge_weight)
    check_choice("build_adjacency", "norm", norm, ("sym", "row", "gcn", "none"))
    edge_index = edge_index.long()
    if num_nodes is None:
        num_nodes = count_nodes("build_adjacency", edge_index)
    check_ids("build_adjacency", "edge_index", edge_index, num_nodes, "num_nodes")
    if edge_weight is None:
        edge_weight = torch.ones_like(edge_index[0], dtype=dtype or torch.get_default_dtype())
    # Degrees, the 1 / sqrt of them and the sum of equal edges are rounded once, at the end.
    wide = edge_weight.to(torch.float64)
    row, col, value = normalized_entries(edge_index, wide, num_nodes, norm, self_loops)
    check_degrees("build_adjacency", norm, wide, value)
    keep = torch.ones_like(row, dtype=torch.bool)
    if len(keep) > len(wide):  # loops were appended, in place of those in the list
        keep[: len(wide)] = row[: len(wide)] != col[: len(wide)]
    size, dtype = (num_nodes, num_nodes), dtype or edge_weight.dtype
    return merge_entries(row[keep], col[keep], value[keep], *size, dtype)


def bipartite_adjacency(
    user: Int[Tensor, " e"],
    item: Int[Tensor, " e"],
    num_users: int,
    num_items: int,
    *,
    norm: Norm = "sym",
    self_loops: bool = False,
    dtype: torch.dtype | None = None,
) -> Adjacency:
    """The graph of users and the items they chose, [[0, R], [R^T, 0]], as one operator.

    Node ids are users first, then items: item i is node num_users + i. A pair that is listed twice
    counts once, with weight 1. Pass training pairs only: test pairs in the graph leak.

    Args:
        user: 0 to num_users - 1.
        item: 0 to num_items - 1, not offset by the number of users.
        num_users: how many there are, with those that chose nothing.
        num_items: how many there are, with those that nobody chose.
        norm: see :func:`build_adjacency`.
        self_loops: see :func:`build_adjacency`.
        dtype: of the values; None: torch's default.

    Raises:
        ValueError: if shapes differ or an id is out of range.
        TypeError: if ids, or numbers of users and items, are not integers.

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, section 2.2 (Laplacian); He et
    al. 2020, LightGCN, eq. 7 (matrix form).

    >>> bipartite_adjacency(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2).col
    tensor([1, 2, 0, 0])
    """
    check_ids("bipartite_adjacency", "user", user, num_users, "num_users")
    hint = "Items are numbered from 0 on their own, not after the users."
    check_ids("bipartite_adjacency", "item", item, num_items, "num_items", hint)
    check_ndim("user", user, "e")
    check_same_shape("One item per user.", user=user, item=item)
    pair = torch.unique(user.long() * num_items + item.long())
    user, item = pair // max(num_items, 1), pair % max(num_items, 1) + num_users
    both = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    return build_adjacency(
        both, None, num_users + num_items, norm=norm, self_loops=self_loops, dtype=dtype
    )
