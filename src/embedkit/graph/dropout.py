"""Edges and nodes left out at random while training: other values in the same matrix."""

import torch
from torch import Tensor

from embedkit.graph.adjacency import Adjacency, reweight
from embedkit.ops import splitmix64, stable_hash


def edge_dropout(
    adjacency: Adjacency,
    p: float = 0.1,
    *,
    training: bool = True,
    generator: torch.Generator | None = None,
) -> Adjacency:
    """Leave out each edge with probability p; the others are divided by 1 - p.

    The expected matrix is the matrix itself. Places and their number stay, values become 0, so
    nothing is built anew and shapes don't depend on what was drawn. Where the matrix equals its
    transpose both directions of an edge fall together, and the result equals its transpose as well;
    otherwise each entry falls by itself. Self loops are edges too: where they must stay, add them
    after (:func:`add_identity`).

    Args:
        adjacency: normalised as the layers want it; it is not normalised again.
        p: in [0, 1).
        training: False: nothing is left out, as with ``torch.nn.functional.dropout``.
        generator: of the device of the values; None: torch's own.

    Returns:
        An adjacency for one step, or one layer of it: draw anew for each.

    Raises:
        ValueError: if ``p`` is not in [0, 1).

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, node dropout as the released
    code does it.
    Differs: both directions of an edge fall together; the code drops them one by one.

    >>> from embedkit.graph import build_adjacency
    >>> ring = build_adjacency(torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]]), norm="none")
    >>> edge_dropout(ring, 0.5, generator=torch.Generator().manual_seed(1)).value
    tensor([0., 0., 0., 2., 0., 2.])
    """
    _check_share("edge_dropout", p)
    if not training or p == 0:
        return adjacency
    value = adjacency.value
    place = torch.arange(value.shape[0], device=value.device)
    if adjacency.transpose is None:
        row, col = adjacency.row, adjacency.col
        place = torch.minimum(row, col) * adjacency.num_rows + torch.maximum(row, col)
    return adjacency._replace(value=_thin(value, _kept(place, p, generator), p))


def node_dropout(
    adjacency: Adjacency,
    p: float = 0.1,
    *,
    training: bool = True,
    generator: torch.Generator | None = None,
) -> Adjacency:
    """Silence each node with probability p: nobody receives from it; the others speak up.

    Column j of the matrix becomes 0, or is divided by 1 - p, so the expected matrix is the matrix
    itself. A silent node still receives. The result does not equal its transpose, so a matrix that
    did gets one, which sorts its entries; do that once with
    ``reweight(adjacency, adjacency.value)`` and draw from the result.

    Args:
        adjacency: normalised as the layers want it; it is not normalised again.
        p: in [0, 1).
        training: False: nobody is silenced.
        generator: of the device of the values; None: torch's own.

    Returns:
        An adjacency for one step, or one layer of it: draw anew for each.

    Raises:
        ValueError: if ``p`` is not in [0, 1).

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, section 2.4.3, node dropout as
    the text has it (all outgoing messages of a node).

    >>> from embedkit.graph import build_adjacency
    >>> ring = build_adjacency(torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]]), norm="none")
    >>> node_dropout(ring, 0.5, generator=torch.Generator().manual_seed(1)).value
    tensor([0., 0., 2., 0., 2., 0.])
    """
    _check_share("node_dropout", p)
    if not training or p == 0:
        return adjacency
    nodes = torch.arange(adjacency.num_cols, device=adjacency.value.device)
    kept = _kept(nodes, p, generator)
    return reweight(adjacency, _thin(adjacency.value, kept[adjacency.col], p))


def _check_share(owner: str, p: float) -> None:
    if not 0 <= p < 1:
        raise ValueError(f"{owner}: p must lie in [0, 1), got {p:g}. It is the share left out.")


def _kept(ids: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """True with probability 1 - p, the same for equal ids."""
    seed = torch.randint(2**62, (1,), generator=generator, device=ids.device)
    return stable_hash(ids, splitmix64(seed)) >= int(p * 2**63)


def _thin(value: Tensor, kept: Tensor, p: float) -> Tensor:
    return torch.where(kept, value / (1 - p), 0.0)
