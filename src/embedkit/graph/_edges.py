"""Edges as PyG lists them: checked, normalised, and turned into an operator on the fly."""

from operator import index
from typing import Any

import torch
from torch import Tensor

from embedkit._checks import check_floating, check_integer, check_rows, check_tensor


def check_edges(owner: str, edge_index: Tensor, edge_weight: Tensor | None = None) -> None:
    """Raise unless ``edge_index`` is (2, e) integers with one weight per edge."""
    sparse = hasattr(edge_index, "tocoo")  # SciPy's
    if isinstance(edge_index, Tensor):
        sparse = edge_index.layout != torch.strided
    if sparse:
        raise TypeError(
            f"{owner}: edge_index must hold node ids, (2, e), got a sparse matrix. "
            "adjacency_from_sparse(matrix) makes an operator of it."
        )
    check_tensor("edge_index", edge_index)
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        hint = " It looks transposed: edge_index.t()." if edge_index.shape[-1:] == (2,) else ""
        raise ValueError(
            f"{owner}: edge_index must have shape (2, e), sources above targets, "
            f"got {tuple(edge_index.shape)}.{hint}"
        )
    check_integer("edge_index", edge_index, "It holds the numbers of nodes: edge_index.long().")
    if edge_weight is not None:
        check_floating("edge_weight", edge_weight)
        check_rows("edge_weight", edge_weight, edge_index.shape[1], "One weight per edge.")
        if edge_weight.ndim != 1:
            raise ValueError(
                f"{owner}: edge_weight must be one number per edge, (e,), got "
                f"{tuple(edge_weight.shape)}"
            )


def check_ids(
    owner: str, name: str, ids: Tensor, count: int, what: str, hint: str = "Number nodes from 0."
) -> None:
    """Raise unless all ids are in [0, count); reads values, so only where an operator is built."""
    check_integer(name, ids)
    check_count(owner, what, count)
    if not ids.numel():
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= count:
        bound = f"lie in [0, {count - 1}]" if count else "be empty"
        raise ValueError(
            f"{owner}: {name} must {bound} for {what}={count}, "
            f"got values in [{low}, {high}]. {hint}"
        )


def check_count(owner: str, name: str, count: Any) -> None:
    """Raise unless ``count`` is an integer >= 0."""
    try:
        index(count)
    except TypeError as error:
        hint = ""
        if count is None:
            hint = (
                " PyG's num_nodes is None where a store has neither features nor a number of "
                'nodes: set it, data["user"].num_nodes = ...'
            )
        raise TypeError(f"{owner}: {name} must be an integer, got {count!r}.{hint}") from error
    if count < 0:
        raise ValueError(f"{owner}: {name} must be >= 0, got {count}")


def count_nodes(owner: str, edge_index: Tensor) -> int:
    """The largest id plus one; raise where an id is negative."""
    if not edge_index.numel():
        return 0
    low, high = int(edge_index.min()), int(edge_index.max())
    if low < 0:
        raise ValueError(
            f"{owner}: edge_index must be >= 0, got values in [{low}, {high}]. Number nodes from 0."
        )
    return high + 1


def normalized_entries(
    edge_index: Tensor, weight: Tensor, num_nodes: int, norm: str, self_loops: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(row, col, value) of the normalised adjacency; shapes do not depend on values.

    With self loops n entries are appended. A node's own loops then have weight 0 where they stand,
    and the appended one has their mean, or 1 where there is none. Sums are made in the dtype of
    ``weight``: pass float64, and round what comes out.
    """
    col, row = edge_index[0], edge_index[1]
    if self_loops or norm == "gcn":
        nodes, own = torch.arange(num_nodes, device=row.device), row == col
        count = weight.new_zeros(num_nodes).index_add(0, row, own.to(weight.dtype))
        total = weight.new_zeros(num_nodes).index_add(0, row, torch.where(own, weight, 0.0))
        loop = torch.where(count > 0, total / count.clamp(min=1.0), 1.0)
        row, col = torch.cat([row, nodes]), torch.cat([col, nodes])
        weight = torch.cat([torch.where(own, 0.0, weight), loop])
    if norm == "none":
        return row, col, weight
    degree = weight.new_zeros(num_nodes).index_add(0, row, weight)
    safe = degree.masked_fill(degree == 0, 1.0)
    if norm == "row":
        return row, col, weight / safe[row]
    root = safe.rsqrt().masked_fill(degree == 0, 0.0)
    # Roots first: their product is the same both ways, so a symmetric matrix stays one.
    return row, col, weight * (root[row] * root[col])


def check_degrees(owner: str, norm: str, weight: Tensor, value: Tensor) -> None:
    """Raise if the root of a negative degree made NaN of finite weights; reads values."""
    if norm in ("sym", "gcn") and value.isnan().any() and weight.isfinite().all():
        raise ValueError(
            f'{owner}: norm="{norm}" takes the root of a node\'s degree, and the weights that a '
            "node receives add up to less than 0; edge_weight goes down to "
            f'{float(weight.min()):g}. Use weights >= 0, or an adjacency built with norm="none".'
        )
