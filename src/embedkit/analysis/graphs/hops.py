"""How many edges lead from a node to each other one, a block of nodes at a time."""

import torch
from jaxtyping import Int
from torch import Tensor

from embedkit._checks import check_ndim
from embedkit.graph import Adjacency, propagate
from embedkit.graph._edges import check_ids
from embedkit.graph._square import check_square


@torch.no_grad()
def hop_distances(
    adjacency: Adjacency, nodes: Int[Tensor, " b"], max_hop: int = 3
) -> Int[Tensor, "b n"]:
    """The length of the shortest path from each of ``nodes`` to every node of the graph.

    Every hop is one sparse product with the nodes that were reached last, so time is
    O(e b max_hop) and memory O(n b): call it for blocks of nodes, not for all of a large graph.

    Args:
        adjacency: square; every edge with a weight other than 0 counts as one hop, and leads from
            a column (sender) to a row (receiver).
        nodes: where paths start.
        max_hop: how far to look, 1 to 125.

    Returns:
        (b, n) int8: 0 at the node itself, 1 to ``max_hop``, and ``max_hop`` + 1 for nodes that
        are further away or out of reach.

    Raises:
        ValueError: if a node or ``max_hop`` is out of range or the adjacency is not square.
        TypeError: if ``nodes`` are not integers, or ``adjacency`` is no :class:`Adjacency`.

    Source: Moore 1959, The Shortest Path Through a Maze (breadth-first search).

    >>> from embedkit.graph import build_adjacency
    >>> path = build_adjacency(torch.tensor([[0, 1], [1, 2]]), num_nodes=4, norm="none")
    >>> hop_distances(path, torch.tensor([0, 1]), max_hop=1)
    tensor([[0, 1, 2, 2],
            [2, 0, 1, 2]], dtype=torch.int8)
    """
    check_square("hop_distances", adjacency)
    size = adjacency.num_rows
    if not 1 <= max_hop <= 125:
        raise ValueError(f"hop_distances: max_hop must be in [1, 125], got {max_hop}. Try 3.")
    check_ids("hop_distances", "nodes", nodes, size, "num_nodes")
    check_ndim("nodes", nodes, "b")
    nodes = nodes.long()  # bytes would be a mask
    plain = adjacency._replace(value=(adjacency.value != 0).float())
    column = torch.arange(len(nodes), device=nodes.device)
    hops = torch.full((size, len(nodes)), max_hop + 1, dtype=torch.int8, device=nodes.device)
    hops[nodes, column] = 0
    frontier = torch.zeros(hops.shape, device=nodes.device)
    frontier[nodes, column] = 1.0
    for hop in range(1, max_hop + 1):
        reached = (propagate(frontier, plain) > 0) & (hops > hop)
        hops[reached] = hop
        frontier = reached.float()
    return hops.T
