"""Sparse matrices of torch, SciPy and PyG in and out."""

import importlib
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit.graph.adjacency import Adjacency, adjacency_from_entries
from embedkit.ops import accumulation_dtype


def adjacency_from_sparse(matrix: Any, *, dtype: torch.dtype | None = None) -> Adjacency:
    """A sparse matrix of torch (COO, CSR, CSC), SciPy or PyG (``EdgeIndex``) as an operator.

    Values are taken as they are: normalise before, or hand ``row`` and ``col`` to
    :func:`build_adjacency`. Rows receive and columns send, as in ``matrix @ nodes``; an
    ``EdgeIndex`` lists sources above targets, so its target is the row.

    Args:
        matrix: two axes; entries of one place are added up.
        dtype: of the values; None: theirs, or torch's default where they are not floating.

    Raises:
        TypeError: if ``matrix`` is none of these; a dense one, say: ``matrix.to_sparse()``.
        ValueError: if it has not two axes, or an ``EdgeIndex`` without a size.

    >>> adjacency_from_sparse(torch.eye(2).to_sparse()).col
    tensor([0, 1])
    """
    if hasattr(matrix, "sparse_size") and isinstance(matrix, Tensor):
        rows, cols, value = _of_edge_index(matrix)
        sources, targets = matrix.as_subclass(Tensor).unbind()
        return adjacency_from_entries(targets, sources, _floating(value, dtype), rows, cols)
    if isinstance(matrix, Tensor) and matrix.layout != torch.strided:
        _check_two_axes(tuple(matrix.shape))
        entries = matrix.to_sparse(layout=torch.sparse_coo)
        if matrix.is_floating_point():  # equal places are added up in float32 or wider
            entries = entries.to(accumulation_dtype(matrix.dtype))
            dtype = dtype or matrix.dtype
        entries = entries.coalesce()
        row, col = entries.indices()
        return adjacency_from_entries(row, col, _floating(entries.values(), dtype), *matrix.shape)
    if not isinstance(matrix, Tensor) and hasattr(matrix, "tocoo"):
        _check_two_axes(tuple(matrix.shape))
        coo = matrix.tocoo()
        row, col = torch.tensor(coo.row).long(), torch.tensor(coo.col).long()
        value = _floating(torch.tensor(coo.data), dtype)
        return adjacency_from_entries(row, col, value, *matrix.shape)
    raise TypeError(
        "adjacency_from_sparse: expected a sparse tensor, a SciPy sparse matrix or PyG's "
        f"EdgeIndex, got {type(matrix).__name__}. A dense matrix: matrix.to_sparse(); "
        "PyG's edge_index: build_adjacency."
    )


def _check_two_axes(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise ValueError(f"adjacency_from_sparse: expected two axes, got shape {shape}")


def _of_edge_index(matrix: Any) -> tuple[int, int, Tensor]:
    """(number of targets, number of sources, values) of PyG's EdgeIndex."""
    sources, targets = matrix.sparse_size()
    if sources is None or targets is None:
        raise ValueError(
            f"adjacency_from_sparse: an EdgeIndex must know its size, got ({sources}, {targets}). "
            "Make it with EdgeIndex(..., sparse_size=(num_nodes, num_nodes))."
        )
    ones = torch.ones(matrix.shape[1], device=matrix.device)
    return targets, sources, ones


def _floating(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None:
        dtype = value.dtype if value.is_floating_point() else torch.get_default_dtype()
    return value.to(dtype)


def to_torch_sparse(adjacency: Adjacency) -> Tensor:
    """The operator as a CSR tensor of torch, which shares its memory.

    torch wants every place once and the columns of a row in order. Where a matrix has several
    entries of one place, as a knowledge graph with two relations between one pair, they are added
    up, and the result is a copy.

    >>> to_torch_sparse(adjacency_from_sparse(torch.eye(2).to_sparse())).to_dense()
    tensor([[1., 0.],
            [0., 1.]])
    """
    size = (adjacency.num_rows, adjacency.num_cols)
    try:
        return torch.sparse_csr_tensor(*adjacency[:3], size, check_invariants=True)
    except RuntimeError:
        merged = adjacency_from_entries(adjacency.row, adjacency.col, adjacency.value, *size)
    return torch.sparse_csr_tensor(*merged[:3], size, check_invariants=True)


def to_scipy(adjacency: Adjacency) -> Any:
    """The operator as a ``scipy.sparse.csr_array``; values without a gradient.

    Raises:
        ImportError: without SciPy.
    """
    try:
        sparse: Any = importlib.import_module("scipy.sparse")
    except ImportError as error:
        raise ImportError("to_scipy needs SciPy: pip install scipy") from error
    parts = (adjacency.value.detach(), adjacency.col, adjacency.crow)
    arrays = tuple(part.cpu().numpy() for part in parts)
    return sparse.csr_array(arrays, shape=(adjacency.num_rows, adjacency.num_cols))


def to_edge_index(adjacency: Adjacency) -> tuple[Int[Tensor, "2 e"], Float[Tensor, " e"]]:
    """(edge_index, edge_weight) as PyG's layers take them, in the order of targets.

    :func:`to_pyg_edge_index` makes PyG's own sparse type of it.

    >>> to_edge_index(adjacency_from_sparse(torch.eye(2).to_sparse()))[0]
    tensor([[0, 1],
            [0, 1]])
    """
    return torch.stack([adjacency.col, adjacency.row]), adjacency.value


def to_pyg_edge_index(adjacency: Adjacency) -> tuple[Any, Float[Tensor, " e"]]:
    """(``torch_geometric.EdgeIndex``, edge_weight): PyG's sparse type, and the weights beside it.

    It knows its size, (senders, receivers), that it is in the order of targets
    (``sort_order="col"``), and, where the matrix equals its transpose, that it is undirected; PyG's
    layers then take their faster ways. ``index.matmul(nodes, input_value=weight, transpose=True)``
    is :func:`propagate`. :func:`adjacency_from_sparse` takes an ``EdgeIndex`` with weights of 1;
    the way back with these is ``build_adjacency(index, weight, n, norm="none")``.

    >>> index, weight = to_pyg_edge_index(adjacency_from_sparse(torch.eye(2).to_sparse()))
    >>> index.sparse_size(), index.is_sorted_by_col
    ((2, 2), True)
    """
    pyg: Any = importlib.import_module("torch_geometric")
    edge_index, weight = to_edge_index(adjacency)
    size, undirected = (adjacency.num_cols, adjacency.num_rows), adjacency.transpose is None
    typed = pyg.EdgeIndex(edge_index, sparse_size=size, sort_order="col", is_undirected=undirected)
    return typed, weight
