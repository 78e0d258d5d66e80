"""The operator under every graph layer: a sparse matrix as plain tensors, built once and reused."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import check_floating, check_ndim, check_rows, check_same_shape
from embedkit.graph._edges import check_ids
from embedkit.graph._product import sparse_product
from embedkit.ops import accumulation_dtype


class Transpose(NamedTuple):
    """The same matrix by columns: ``value[order]`` are its values."""

    crow: Tensor
    col: Tensor
    order: Tensor


class Adjacency(NamedTuple):
    """A sparse matrix in compressed rows, of plain tensors: it compiles, pickles and broadcasts.

    Entry k of row i, for crow[i] <= k < crow[i + 1], stands in column col[k] and holds value[k]. A
    row is the node that receives, a column the node that sends. Make one with
    :func:`embedkit.graph.build_adjacency`, :func:`embedkit.graph.bipartite_adjacency` or
    :func:`adjacency_from_entries`, once for a graph, and hand it to the layers;
    :func:`propagate` is the product itself.

    Attributes:
        crow: (rows + 1,) where each row starts; int64.
        col: (e,) column of each entry; int64.
        value: (e,) floating.
        transpose: the matrix by columns, which the backward pass needs; None where the matrix
            equals its transpose and serves both. Values that break the symmetry go in by
            :func:`reweight`, which adds it.
    """

    crow: Tensor
    col: Tensor
    value: Tensor
    transpose: Transpose | None = None

    @property
    def num_rows(self) -> int:
        """How many nodes receive."""
        return self.crow.shape[0] - 1

    @property
    def num_cols(self) -> int:
        """How many nodes send."""
        return (self if self.transpose is None else self.transpose).crow.shape[0] - 1

    @property
    def row(self) -> Tensor:
        """(e,) the row of each entry."""
        rows = torch.arange(self.num_rows, device=self.crow.device)
        return rows.repeat_interleave(self.crow.diff(), output_size=self.col.shape[0])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Adjacency":
        """The same matrix on another device, or with values of another floating dtype."""
        crow, col = self.crow.to(device), self.col.to(device)
        other = self.transpose
        if other is not None:
            other = Transpose(*(t.to(device) for t in other))
        return Adjacency(crow, col, self.value.to(device=device, dtype=dtype), other)


def propagate(nodes: Float[Tensor, "m d"], adjacency: Adjacency) -> Float[Tensor, "n d"]:
    """Every node receives the weighted sum of its neighbours' vectors:  A x.

    Time is O(e d), memory O(n d): nothing is kept per edge. The backward pass is the product with
    the transpose. Rows are summed by one thread in a fixed order, so the result is the same every
    time, on a CPU and on CUDA.

    Args:
        nodes: one vector per column of ``adjacency``; half precision is added up in float32, and
            the values of the adjacency are rounded to it.
        adjacency: built once. Where its values need a gradient they get one; let those of a
            symmetric matrix learn through :func:`reweight`, or each product sorts the entries to
            make the transpose, which learned values no longer equal.

    Returns:
        One vector per row, in the dtype of ``nodes``; zeros for a row without entries.

    Raises:
        ValueError: if ``nodes`` has not one row per column of ``adjacency``.
        TypeError: if ``nodes`` is not floating, or ``adjacency`` no :class:`Adjacency`.
        IndexError: if an entry of a matrix made by hand points outside ``nodes``.

    >>> row, col = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> adjacency = adjacency_from_entries(row, col, torch.ones(2), 3, 3)
    >>> propagate(torch.tensor([[1.0], [5.0], [7.0]]), adjacency)
    tensor([[5.],
            [1.],
            [0.]])
    """
    if not isinstance(adjacency, Adjacency):
        raise TypeError(
            f"propagate: expected an Adjacency, got {type(adjacency).__name__}. Build it once: "
            "build_adjacency(edge_index, num_nodes=...)."
        )
    check_floating("nodes", nodes)
    check_ndim("nodes", nodes, "n d")
    check_rows("nodes", nodes, adjacency.num_cols, "The adjacency has one column per node.")
    learns = adjacency.value.requires_grad and nodes.requires_grad and torch.is_grad_enabled()
    if learns and adjacency.transpose is None:
        adjacency = reweight(adjacency, adjacency.value)
    other = adjacency.transpose or (None, None, None)
    try:
        product: Tensor = sparse_product(*adjacency[:3], *other, nodes)
    except RuntimeError as error:
        if torch.compiler.is_compiling() or not adjacency.col.numel():
            raise
        low, high = int(adjacency.col.min()), int(adjacency.col.max())
        if low >= 0 and high < len(nodes):
            raise
        raise IndexError(
            f"propagate: columns of the adjacency must be 0 to {len(nodes) - 1}, one per row of "
            f"nodes, got {low} to {high}. build_adjacency and adjacency_from_entries check this."
        ) from error
    return product


def adjacency_from_entries(
    row: Int[Tensor, " e"],
    col: Int[Tensor, " e"],
    value: Float[Tensor, " e"],
    num_rows: int,
    num_cols: int,
) -> Adjacency:
    """A sparse matrix from its entries, in any order; entries of one place are added up.

    Half precision is added up in float32 and rounded once.

    Args:
        row: the node that receives, 0 to num_rows - 1.
        col: the node that sends, 0 to num_cols - 1.
        value: a gradient flows into it.
        num_rows: how many nodes receive.
        num_cols: how many nodes send.

    Returns:
        The operator; its transpose is None where it equals its transpose and no gradient is asked
        for, which costs one sort to find out.

    Raises:
        ValueError: if shapes differ or an id is out of range.
        TypeError: if ids are not integers or values not floating.
    """
    check_floating("value", value)
    check_ndim("value", value, "e")
    check_same_shape("One value per entry.", row=row, col=col, value=value)
    check_ids("adjacency_from_entries", "row", row, num_rows, "num_rows")
    check_ids("adjacency_from_entries", "col", col, num_cols, "num_cols")
    wide = value.to(accumulation_dtype(value.dtype))
    return merge_entries(row.long(), col.long(), wide, num_rows, num_cols, value.dtype)


def merge_entries(
    row: Tensor, col: Tensor, value: Tensor, num_rows: int, num_cols: int, dtype: torch.dtype
) -> Adjacency:
    """Entries of one place added up in the dtype they come in, and rounded to ``dtype`` last."""
    place, which = torch.unique(row * num_cols + col, return_inverse=True)
    value = value.new_zeros(place.shape[0]).index_add(0, which, value).to(dtype)
    row, col = place // max(num_cols, 1), place % max(num_cols, 1)
    crow = torch.searchsorted(row, torch.arange(num_rows + 1, device=row.device))
    other = transpose_of(row, col, num_cols)
    if num_rows == num_cols and not value.requires_grad:
        same = torch.equal(other.crow, crow) and torch.equal(other.col, col)
        if same and torch.equal(value[other.order], value):
            return Adjacency(crow, col, value)
    return Adjacency(crow, col, value, other)


def transpose_of(row: Tensor, col: Tensor, num_cols: int) -> Transpose:
    """By columns, from entries in the order of rows."""
    order = torch.argsort(col, stable=True)
    ends = torch.arange(num_cols + 1, device=col.device)
    return Transpose(torch.searchsorted(col[order], ends), row[order], order)


def add_identity(adjacency: Adjacency) -> Adjacency:
    """A + I, the identity added after normalising, as NGCF's released code does.

    For loops that take part in the normalisation use ``self_loops=True`` when building.

    Raises:
        ValueError: if the matrix is not square.

    >>> both = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> add_identity(adjacency_from_entries(*both, torch.ones(2), 2, 2)).col
    tensor([0, 1, 0, 1])
    """
    size = adjacency.num_rows
    if size != adjacency.num_cols:
        raise ValueError(
            f"add_identity: expected a square matrix, got {size} x {adjacency.num_cols}"
        )
    nodes = torch.arange(size, device=adjacency.col.device)
    row, col = torch.cat([adjacency.row, nodes]), torch.cat([adjacency.col, nodes])
    value = torch.cat([adjacency.value, adjacency.value.new_ones(size)])
    return adjacency_from_entries(row, col, value, size, size)


def reweight(adjacency: Adjacency, value: Float[Tensor, " e"]) -> Adjacency:
    """The same places with other values, e.g. attention; a gradient flows into ``value``.

    Where the transpose is not stored yet it is made, which sorts: keep the result, and reweight
    that.

    Raises:
        ValueError: if there is not one value per entry.
        TypeError: if values are not floating.
    """
    check_floating("value", value)
    check_ndim("value", value, "e")
    check_rows("value", value, adjacency.col.shape[0], "One value per entry of the adjacency.")
    other = adjacency.transpose
    if other is None:
        other = transpose_of(adjacency.row, adjacency.col, adjacency.num_rows)
    return Adjacency(adjacency.crow, adjacency.col, value, other)
