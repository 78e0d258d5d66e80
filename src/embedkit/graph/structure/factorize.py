"""Node vectors as factors of a sparse matrix of co-occurrence: PPMI, NetMF, randomised SVD."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_at_least, check_floating, check_ndim, check_positive
from embedkit.graph._square import check_adjacency
from embedkit.graph.adjacency import Adjacency, Transpose, propagate, transpose_of
from embedkit.ops import accumulation_dtype

_BLOCK = 1 << 22  # numbers in a block of dense rows


class Factors(NamedTuple):
    """Two vectors per node: row i of a matrix is about ``source[i] @ context.T``.

    Attributes:
        source: (n, d) of the rows, the embedding that is used alone.
        context: (m, d) of the columns; for a symmetric matrix it differs from ``source`` in signs
            of columns only.
    """

    source: Tensor
    context: Tensor


def transposed(adjacency: Adjacency) -> Adjacency:
    """The transpose; both share the index tensors, values are put in the other order.

    >>> from embedkit.graph import adjacency_from_entries
    >>> entry = torch.tensor([0]), torch.tensor([1]), torch.tensor([3.0])
    >>> transposed(adjacency_from_entries(*entry, 2, 2)).row
    tensor([1])
    """
    crow, col, value, other = adjacency
    if other is None:
        return adjacency
    back = torch.empty_like(other.order)
    back[other.order] = torch.arange(back.shape[0], device=back.device)
    return Adjacency(other.crow, other.col, value[other.order], Transpose(crow, col, back))


@torch.no_grad()
def randomized_svd(
    product: Callable[[Tensor], Tensor],
    transposed_product: Callable[[Tensor], Tensor],
    start: Float[Tensor, "m k"],
    rank: int,
    num_iterations: int = 6,
) -> tuple[Float[Tensor, "n r"], Float[Tensor, " r"], Float[Tensor, "m r"]]:
    """The largest singular values and vectors of a matrix known by its products only.

    The range of A is found by  (A A^T)^q A start,  orthogonalised after every product, and the
    singular vectors inside it exactly.

    Args:
        product: x (m, k) -> A x (n, k).
        transposed_product: y (n, k) -> A^T y (m, k).
        start: ``torch.randn(m, rank + 10)`` or wider; its dtype is that of the computation.
        rank: how many are wanted.
        num_iterations: q; 6 suits slowly falling singular values.

    Returns:
        Left vectors, singular values from the largest, and right vectors: A is about
        ``(left * values) @ right.T``. Where A has a smaller rank the rest are zeros. The entry of
        a left vector that is largest by size is positive.

    Raises:
        ValueError: if ``start`` is no matrix, or has fewer columns than ``rank``.
        TypeError: if ``start`` is not floating.

    Source: Halko et al. 2011, Finding Structure with Randomness, algorithms 4.4 and 5.1.

    >>> a = torch.diag(torch.tensor([5.0, 3.0, 1.0]))
    >>> randomized_svd(lambda x: a @ x, lambda y: a.T @ y, torch.randn(3, 3), 2)[1]
    tensor([5.0000, 3.0000])
    """
    check_floating("start", start)
    check_ndim("start", start, "m k")
    if not 1 <= rank <= start.shape[1]:
        raise ValueError(
            f"randomized_svd: rank must lie between 1 and the {start.shape[1]} columns of start, "
            f"got {rank}. Use torch.randn(m, rank + 10)."
        )
    basis = torch.linalg.qr(product(start)).Q
    for _ in range(num_iterations):
        basis = torch.linalg.qr(transposed_product(basis)).Q
        basis = torch.linalg.qr(product(basis)).Q
    right, values, inner = torch.linalg.svd(transposed_product(basis), full_matrices=False)
    left, right, values = (basis @ inner.mT)[:, :rank], right[:, :rank], values[:rank]
    found = values.shape[0]
    if found:
        least = values[:1] * torch.finfo(values.dtype).eps * max(left.shape[0], right.shape[0])
        real = (values > least).to(values.dtype)
        top = left.gather(0, left.abs().argmax(0, keepdim=True))
        left, values, right = left * real * top.sign(), values * real, right * real * top.sign()
    pad = torch.nn.functional.pad
    wide = (0, rank - found)
    return pad(left, wide), pad(values, wide), pad(right, wide)


def _factors(
    matrix: Adjacency, dim: int, power: float, generator: torch.Generator | None
) -> Factors:
    """The scaled singular vectors of a sparse matrix; zeros for its empty rows and columns."""
    value, back = matrix.value, transposed(matrix)
    if not value.shape[0]:
        zeros = value.new_zeros
        return Factors(zeros(matrix.num_rows, dim), zeros(matrix.num_cols, dim))
    width = dim + max(10, dim // 2)
    home = value.device if generator is None else generator.device
    start = torch.randn(
        matrix.num_cols, width, generator=generator, dtype=value.dtype, device=home
    ).to(value.device)
    left, values, right = randomized_svd(
        lambda x: propagate(x, matrix), lambda y: propagate(y, back), start, dim
    )
    scale = torch.where(values > 0, values**power, 0.0)
    source = torch.where(matrix.crow.diff()[:, None] > 0, left * scale, 0.0)
    return Factors(source, torch.where(back.crow.diff()[:, None] > 0, right * scale, 0.0))


@torch.no_grad()
def ppmi_factorize(
    matrix: Adjacency,
    dim: int,
    *,
    shift: float = 1.0,
    power: float = 0.5,
    generator: torch.Generator | None = None,
) -> Factors:
    """Vectors from counts of co-occurrence: the SVD of their positive pointwise mutual information.

    PMI_uv = log( w_uv sum(w) / (r_u c_v) ) - log(shift)  at stored entries, r and c the sums of
    rows and columns; what is below 0 counts as 0;  source = U S^power,  context = V S^power.

    Args:
        matrix: counts >= 0, e.g. of :func:`embedkit.graph.orbit_adjacency`, or a graph of
            ``norm="none"``; n x m.
        dim: width of the vectors; columns beyond the rank are zeros.
        shift: 1: none; k: as word2vec with k negative samples.
        power: of the singular values; 0.5 shares them among both sides, so that ``source @
            context.T`` is the matrix; 0 is whitened, 1 is weighted most.
        generator: of the randomised SVD; its seed fixes the result.

    Returns:
        :class:`Factors`, (n, dim) and (m, dim), in the dtype of the counts (halves: float32
        inside), without gradient. Zeros for a node without an entry, so that
        ``source.any(1).float().mean()`` is the share of nodes that the matrix covers.

    Raises:
        ValueError: if a count is negative or not finite, ``dim`` < 1 or ``shift`` <= 0.
        TypeError: if ``matrix`` is no :class:`embedkit.graph.Adjacency`.

    Source: Levy & Goldberg 2014, Neural Word Embedding as Implicit Matrix Factorization, eq. 10-11;
    Windels et al. 2024, Graphlets correct for the topological information missed by random walks.
    Differs: a randomised SVD, which does not stall on matrices of low rank.

    >>> from embedkit.graph import build_adjacency
    >>> path = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    >>> counts = build_adjacency(path, norm="none", dtype=torch.float64)
    >>> source, context = ppmi_factorize(counts, 4)
    >>> (source @ context.T)[0].round(decimals=4).abs()
    tensor([0.0000, 1.0986, 0.0000, 0.0000], dtype=torch.float64)
    """
    _check_matrix("ppmi_factorize", matrix)
    check_at_least("ppmi_factorize", "dim", dim, 1)
    check_positive("ppmi_factorize", "shift", shift, "1 leaves the PMI as it is.")
    dtype, row = matrix.value.dtype, matrix.row
    count = matrix.value.to(accumulation_dtype(dtype))
    rows = count.new_zeros(matrix.num_rows).index_add(0, row, count)
    cols = rows
    if matrix.transpose is not None:
        cols = count.new_zeros(matrix.num_cols).index_add(0, matrix.col, count)
    # Shares first: products of sums leave the range of float32.
    lift = (count / rows[row]) * (count.sum() / cols[matrix.col])
    pmi = torch.where(count > 0, lift.log() - math.log(shift), 0.0)
    keep = pmi > 0
    places = row[keep], matrix.col[keep]
    crow = torch.searchsorted(places[0], torch.arange(len(rows) + 1, device=row.device))
    other = None if matrix.transpose is None else transpose_of(*places, matrix.num_cols)
    positive = Adjacency(crow, places[1], pmi[keep], other)
    source, context = _factors(positive, dim, power, generator)
    return Factors(source.to(dtype), context.to(dtype))


@torch.no_grad()
def netmf(
    adjacency: Adjacency,
    dim: int,
    *,
    window: int = 10,
    negatives: float = 1.0,
    max_entries: int = 100_000_000,
    generator: torch.Generator | None = None,
) -> Factors:
    """DeepWalk in closed form: the SVD of  log max(M, 1)  over all walks of up to ``window`` steps.

    M = vol / (b T)  (P + P^2 + ... + P^T)  D^-1,  with P = D^-1 A, vol the sum of degrees, T the
    window and b the negatives. No walk is drawn. This is the PPMI of how often walks meet two
    nodes together; rows of M are made in blocks and only entries above 1 are kept, so there is no
    dense n x n matrix. Time is O(n e T), memory O(n + entries kept).

    Args:
        adjacency: of an undirected graph, by ``build_adjacency(..., norm="none")``; weights >= 0.
        dim: width of the vectors; columns beyond the rank are zeros.
        window: T, the longest walk that counts; 5-10 as in DeepWalk, 3 sees up to four nodes.
        negatives: b, how many negative samples the loss of DeepWalk has.
        max_entries: most entries of log max(M, 1) that are kept; each needs 16 bytes, and 32 while
            they are put together.
        generator: of the randomised SVD; its seed fixes the result.

    Returns:
        :class:`Factors` (n, dim) twice; ``source`` is the embedding, its dot products with
        ``context`` give the matrix. Zeros for isolated nodes. In the dtype of the adjacency,
        without gradient.

    Raises:
        ValueError: if the graph is directed, a weight negative, or a number out of range.
        MemoryError: before more than ``max_entries`` entries are kept.
        TypeError: if ``adjacency`` is no :class:`embedkit.graph.Adjacency`.

    Source: Qiu et al. 2018, Network Embedding as Matrix Factorization, theorem 2.3 and algorithm 3.
    Differs: the sparse rows are exact at any window, instead of a spectral approximation.

    >>> from embedkit.graph import build_adjacency
    >>> path = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    >>> graph = build_adjacency(path, norm="none", dtype=torch.float64)
    >>> source, context = netmf(graph, 4, window=2)
    >>> (source @ context.T)[0].round(decimals=4).abs()
    tensor([0.4055, 0.4055, 0.0000, 0.0000], dtype=torch.float64)
    """
    _check_matrix("netmf", adjacency)
    check_at_least("netmf", "dim", dim, 1)
    check_at_least("netmf", "window", window, 1)
    check_positive("netmf", "negatives", negatives)
    if adjacency.transpose is not None:
        raise ValueError(
            "netmf: expected an undirected graph, got an adjacency that differs from its "
            'transpose. List both directions, and build with norm="none".'
        )
    dtype, size = adjacency.value.dtype, adjacency.num_rows
    graph = adjacency.to(dtype=torch.float64)
    degree = graph.value.new_zeros(size).index_add(0, graph.row, graph.value)
    share = torch.where(degree > 0, 1 / degree, 0.0)[:, None]
    scale = share * degree.sum() / (negatives * window)
    counts, cols, values, kept = [], [], [], 0
    step = max(1, _BLOCK // max(size, 1))
    for first in range(0, size, step):
        nodes = torch.arange(first, min(first + step, size), device=degree.device)
        walk = degree.new_zeros(size, len(nodes))
        walk[nodes, nodes - first] = 1.0
        total = torch.zeros_like(walk)
        for _ in range(window):
            walk = propagate(share * walk, graph)
            total += walk
        rows = (scale * total).T  # M is symmetric
        keep = rows > 1
        counts.append(keep.sum(1))
        kept += int(counts[-1].sum())
        if kept > max_entries:
            raise MemoryError(
                f"netmf: {kept} entries after {first + len(nodes)} of {size} nodes, more than "
                f"max_entries={max_entries}. A smaller window or more negatives leaves fewer; "
                "for large graphs draw walks (random_walks)."
            )
        cols.append(keep.nonzero()[:, 1])
        values.append(rows[keep].log())
    crow = torch.cat([graph.crow[:1], *counts]).cumsum(0)
    matrix = Adjacency(crow, torch.cat([graph.col[:0], *cols]), torch.cat([degree[:0], *values]))
    source, context = _factors(matrix, dim, 0.5, generator)
    return Factors(source.to(dtype), context.to(dtype))


def _check_matrix(owner: str, matrix: Adjacency) -> None:
    """Raise unless it is an adjacency of finite values >= 0; reads values."""
    check_adjacency(owner, matrix)
    if matrix.value.numel():
        low, high = torch.aminmax(matrix.value)
        if not (low >= 0 and high.isfinite()):
            raise ValueError(
                f"{owner}: entries must be finite and >= 0, got values in [{float(low):g}, "
                f"{float(high):g}]. They are counts or weights."
            )
