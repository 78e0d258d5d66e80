"""The operator under every graph layer: a sparse matrix as plain tensors, built once and reused."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import check_choice, check_floating, check_ndim, check_rows, check_same_shape
from embedkit.graph._edges import check_edges, check_ids, normalized_entries
from embedkit.graph._product import sparse_product

Norm = Literal["sym", "row", "gcn", "none"]


class Transpose(NamedTuple):
    """The same matrix by columns: ``value[order]`` are its values."""

    crow: Tensor
    col: Tensor
    order: Tensor


class Adjacency(NamedTuple):
    """A sparse matrix in compressed rows, of plain tensors: it compiles, pickles and broadcasts.

    Entry k of row i, for crow[i] <= k < crow[i + 1], stands in column col[k] and holds value[k]. A
    row is the node that receives, a column the node that sends. Make one with
    :func:`build_adjacency`, :func:`bipartite_adjacency` or :func:`adjacency_from_entries`, once for
    a graph, and hand it to the layers; :func:`propagate` is the product itself.

    Attributes:
        crow: (rows + 1,) where each row starts; int64.
        col: (e,) column of each entry; int64.
        value: (e,) floating.
        transpose: the matrix by columns, which the backward pass needs; None where the matrix
            equals its transpose and serves both.
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
        adjacency: of :func:`build_adjacency` or :func:`bipartite_adjacency`. Where its values need
            a gradient they get one.

    Returns:
        One vector per row, in the dtype of ``nodes``; zeros for a row without entries.

    Raises:
        ValueError: if ``nodes`` has not one row per column of ``adjacency``.
        TypeError: if ``nodes`` is not floating, or ``adjacency`` no :class:`Adjacency`.
        IndexError: if an entry of a matrix made by hand points outside ``nodes``.

    >>> adjacency = build_adjacency(torch.tensor([[0, 1], [1, 0]]), num_nodes=3, norm="row")
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
    place, which = torch.unique(row.long() * num_cols + col.long(), return_inverse=True)
    value = value.new_zeros(place.shape[0]).index_add(0, which, value)
    return _compress(place // max(num_cols, 1), place % max(num_cols, 1), value, num_rows, num_cols)


def _compress(row: Tensor, col: Tensor, value: Tensor, num_rows: int, num_cols: int) -> Adjacency:
    """Distinct entries in the order of rows, then columns."""
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

    Args:
        edge_index: source and target of every edge, as in PyG: messages go from the first to the
            second. An undirected graph lists both directions
            (``torch_geometric.utils.to_undirected``).
        edge_weight: None: 1 each. Edges that are listed twice are added up.
        num_nodes: None: the largest id plus one; say it where the last nodes may have no edge.
        norm: "sym", "row", "gcn" or "none".
        self_loops: add a loop of weight 1 to every node that has none, before normalising; loops
            that are listed several times count with their mean.
        dtype: of the values; None: that of ``edge_weight``, else torch's default.

    Returns:
        The operator; ``adjacency.transpose is None`` tells that the graph is undirected.

    Raises:
        ValueError: if shapes don't fit, an id is out of range, or a weighted degree is negative
            where "sym" or "gcn" takes its root.
        TypeError: if ``edge_index`` does not hold integers or ``edge_weight`` is not floating.

    Source: Kipf & Welling 2017, Semi-supervised Classification with Graph Convolutional Networks,
    eq. 2 ("gcn"); He et al. 2020, LightGCN, eq. 3 ("sym").

    >>> build_adjacency(torch.tensor([[0, 1], [1, 0]]), num_nodes=2, norm="gcn").value
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    check_edges("build_adjacency", edge_index, edge_weight)
    check_choice("build_adjacency", "norm", norm, ("sym", "row", "gcn", "none"))
    edge_index = edge_index.long()
    if num_nodes is None:
        num_nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
    check_ids("build_adjacency", "edge_index", edge_index, num_nodes, "num_nodes")
    if edge_weight is None:
        edge_weight = torch.ones_like(edge_index[0], dtype=dtype or torch.get_default_dtype())
    # A node's degree and the 1 / sqrt of it are rounded once, at the end.
    wide = edge_weight.to(torch.float64)
    row, col, value = normalized_entries(edge_index, wide, num_nodes, norm, self_loops)
    if norm in ("sym", "gcn") and value.isnan().any() and not wide.isnan().any():
        raise ValueError(
            f'build_adjacency: norm="{norm}" takes the root of a node\'s degree, and the weights '
            f"that a node receives add up to less than 0; edge_weight goes down to "
            f'{float(wide.min()):g}. Use weights >= 0, or norm="none".'
        )
    value = value.to(dtype or edge_weight.dtype)
    keep = torch.ones_like(row, dtype=torch.bool)
    if len(keep) > len(wide):  # loops were appended, in place of those in the list
        keep[: len(wide)] = row[: len(wide)] != col[: len(wide)]
    return adjacency_from_entries(row[keep], col[keep], value[keep], num_nodes, num_nodes)


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
        TypeError: if ids are not integers.

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


def add_identity(adjacency: Adjacency) -> Adjacency:
    """A + I, the identity added after normalising, as NGCF's released code does.

    For loops that take part in the normalisation use ``self_loops=True`` when building.

    Raises:
        ValueError: if the matrix is not square.

    >>> add_identity(build_adjacency(torch.tensor([[0, 1], [1, 0]]))).value
    tensor([1., 1., 1., 1.])
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
