"""Where infinitely many hops lead: one direction for every connected component."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import check_choice, check_floating, check_ndim, check_rows
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.build import build_adjacency
from embedkit.ops import accumulation_dtype


class PropagationLimit(NamedTuple):
    """lim A^k as vectors: entry (i, j) is left_i * right_j within a component, 0 between two."""

    left: Tensor
    """(n,) 1 each for "rw"; sqrt(d_i / sum of d over the component) for "sym"."""
    right: Tensor
    """(n,) d_j / sum of d for "rw", the stationary distribution; equal to ``left`` for "sym"."""
    component: Tensor
    """(n,) connected component of each node, numbered from 0."""

    def propagate(self, nodes: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """What :func:`embedkit.graph.propagate` comes to after infinitely many hops, in O(n d).

        Raises:
            ValueError: if ``nodes`` has not one row per node of the graph.
            TypeError: if ``nodes`` is not floating.
        """
        check_floating("nodes", nodes)
        check_ndim("nodes", nodes, "n d")
        check_rows("nodes", nodes, self.left.shape[0], "The limit is that of one graph.")
        wide = accumulation_dtype(nodes.dtype)
        total = torch.zeros(nodes.shape, dtype=wide, device=nodes.device)
        weighted = self.right[:, None].to(wide) * nodes.to(wide)
        total = total.index_add(0, self.component, weighted)
        return (self.left[:, None].to(wide) * total[self.component]).to(nodes.dtype)


def propagation_limit(
    edge_index: Int[Tensor, "2 e"],
    edge_weight: Float[Tensor, " e"] | None = None,
    num_nodes: int | None = None,
    *,
    kind: Literal["sym", "rw"] = "sym",
) -> PropagationLimit:
    """The limit of A^k for k -> infinity, in closed form: rank one per connected component.

    With self loops, A~ = A + I, d~_i its row sums, and S the sum of d~ over a component:

    "sym":  (D~^(-1/2) A~ D~^(-1/2))^k  ->  sqrt(d~_i d~_j) / S,

    "rw":  (D~^(-1) A~)^k  ->  d~_j / S.

    So infinitely many hops leave one direction per component ("sym", scaled by the root of the
    degree) or one vector ("rw"): all that told its nodes apart is gone. Hops come closer to the
    limit geometrically, by the second largest modulus of an eigenvalue.

    Args:
        edge_index: an undirected graph, with both directions of every edge. Loops are added to
            nodes that have none, as ``build_adjacency(..., norm="gcn")`` does.
        edge_weight: above 0; None: 1 each.
        num_nodes: None: the largest id plus one.
        kind: "sym" is the limit of ``build_adjacency(..., norm="gcn")``, "rw" that of
            ``build_adjacency(..., norm="row", self_loops=True)``.

    Returns:
        A :class:`PropagationLimit`, in the dtype of ``edge_weight``, computed in float64. An
        isolated node is a component of its own, which keeps its vector.

    Raises:
        ValueError: if the graph is directed, a weight is not above 0, an id is out of range, or
            ``kind`` is another.
        TypeError: if ``edge_index`` does not hold integers.

    Source: Liu et al. 2020, Towards Deeper Graph Neural Networks, theorems 1 and 2.
    Differs: graphs of several components, and weights.

    >>> propagation_limit(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), kind="rw").right
    tensor([0.2857, 0.4286, 0.2857])
    """
    check_choice("propagation_limit", "kind", kind, ("sym", "rw"))
    wide = None if edge_weight is None else edge_weight.to(torch.float64)
    adjacency = build_adjacency(
        edge_index, wide, num_nodes, norm="none", self_loops=True, dtype=torch.float64
    )
    if not bool((adjacency.value > 0).all()):
        raise ValueError(
            f"propagation_limit: edge_weight must be > 0, got {float(adjacency.value.min()):g}. "
            "Leave edges without weight out; for negative ones there is no such limit."
        )
    if adjacency.transpose is not None:
        raise ValueError(
            "propagation_limit: the graph must be undirected, with both directions of every edge "
            "and one weight. torch_geometric.utils.to_undirected adds the missing ones."
        )
    component = _components(adjacency)
    ones = adjacency.value.new_ones(adjacency.num_rows, 1)
    degree = propagate(ones, adjacency)[:, 0]
    total = torch.zeros_like(degree).index_add(0, component, degree)[component]
    right = degree / total if kind == "rw" else (degree / total).sqrt()
    left = torch.ones_like(right) if kind == "rw" else right
    dtype = torch.get_default_dtype() if edge_weight is None else edge_weight.dtype
    return PropagationLimit(left.to(dtype), right.to(dtype), component)


def _components(adjacency: Adjacency) -> Tensor:
    """(n,) connected component of each node, by pointer jumping.

    Every node points to one of its component, at first to itself. Each round a whole tree moves
    under the least tree that any of its nodes sees, and trees are made flat: some log(n) rounds,
    each O(e), where passing labels along edges takes as many as the graph is wide.
    """
    parent = torch.arange(adjacency.num_rows, device=adjacency.col.device)
    row = adjacency.row
    while True:
        seen = parent.scatter_reduce(0, row, parent[adjacency.col], "amin")
        moved = parent.scatter_reduce(0, parent, seen, "amin")
        while not torch.equal(moved, flat := moved[moved]):
            moved = flat
        if torch.equal(moved, parent):
            numbers: Tensor = torch.unique(parent, return_inverse=True)[1]
            return numbers
        parent = moved
