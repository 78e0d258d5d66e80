"""What a graph layer accepts in place of an adjacency: PyG's edge lists."""

from typing import Any

import torch
from torch import Tensor

from embedkit._checks import check_floating, check_ndim, check_rows
from embedkit.graph._edges import check_degrees, check_edges, check_ids, normalized_entries
from embedkit.graph.adjacency import Adjacency, transpose_of
from embedkit.ops import accumulation_dtype


def check_nodes(owner: str, nodes: Any) -> None:
    """Raise unless ``nodes`` is one floating tensor (n, d)."""
    if type(nodes) is tuple:
        raise TypeError(
            f"{owner}: nodes must be one tensor (n, d) with a row for every node, got a tuple. "
            "Pairs are for layers between two types of nodes; here both types are one graph: "
            "torch.cat([user, item]) with bipartite_adjacency."
        )
    check_floating("nodes", nodes)
    check_ndim("nodes", nodes, "n d")


def as_operator(
    owner: str,
    nodes: Tensor,
    edges: Adjacency | Tensor,
    edge_weight: Tensor | None = None,
    *,
    norm: str = "sym",
    self_loops: bool = False,
) -> Adjacency:
    """The operator itself, or one made of ``edge_index`` and ``edge_weight`` for this call.

    Made on the fly it costs two sorts of the edges, does not merge equal edges (they add up all
    the same) and keeps the gradient of ``edge_weight``. Degrees are added up in float64, as where
    an adjacency is built, so that both agree; values are float32 or wider. An adjacency is taken as
    it is, whatever ``norm`` says: it was normalised when it was built.
    """
    check_nodes(owner, nodes)
    if isinstance(edges, Adjacency):
        if edge_weight is not None:
            raise ValueError(
                f"{owner}: an Adjacency holds its weights already, so edge_weight must be None. "
                "reweight(adjacency, value) gives it other ones."
            )
        check_rows("nodes", nodes, edges.num_cols, f"{owner}: one node per column of the graph.")
        return edges
    check_edges(owner, edges, edge_weight)
    size = nodes.shape[0]
    # Values are looked at where that waits for no other device.
    readable = edges.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable:
        check_ids(owner, "edge_index", edges, size, "num_nodes", "One row of nodes per node id.")
    dtype = accumulation_dtype((nodes if edge_weight is None else edge_weight).dtype)
    wide = torch.float32 if edges.device.type == "mps" else torch.float64
    if edge_weight is None:
        weight = torch.ones(edges.shape[1], dtype=wide, device=nodes.device)
    else:
        weight = edge_weight.to(wide)
    row, col, value = normalized_entries(edges.long(), weight, size, norm, self_loops)
    if readable and edge_weight is not None:
        check_degrees(owner, norm, weight, value)
    value = value.to(dtype)
    order = torch.argsort(row, stable=True)
    row, col, value = row[order], col[order], value[order]
    crow = torch.searchsorted(row, torch.arange(size + 1, device=row.device))
    return Adjacency(crow, col, value, transpose_of(row, col, size))
