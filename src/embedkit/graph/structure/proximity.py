"""Katz proximity, and HOPE: its best approximation of low rank, kept as source and target."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_at_least, check_finite, check_positive
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.structure.factorize import randomized_svd, transposed

_DENSE = 10_000  # nodes of the largest dense proximity
_TERMS = 20_000  # of the Katz series, at most
_SMALL = 1e-12  # relative size of the first term that is left out


def _by_source(adjacency: Adjacency, owner: str) -> tuple[Adjacency, Adjacency]:
    """A with A_ij the edge i -> j, and its transpose, in float64."""
    if adjacency.num_rows != adjacency.num_cols:
        raise ValueError(
            f"{owner}: expected a square adjacency, got {adjacency.num_rows} x {adjacency.num_cols}"
        )
    wide = adjacency.to(dtype=torch.float64)
    wide = wide._replace(value=wide.value.detach())
    check_finite(owner, "the weights of the adjacency", wide.value)
    if wide.value.numel() and float(wide.value.min()) < 0:
        raise ValueError(f"{owner}: weights must be >= 0, got {float(wide.value.min()):g}")
    return transposed(wide), wide


def spectral_radius(adjacency: Adjacency, iterations: int = 200) -> float:
    """The largest absolute eigenvalue of an adjacency with weights >= 0, by power iteration.

    Power iteration on A + I, so that a bipartite graph or a cycle does not swing. The estimate
    comes from below for an undirected graph, and may come from above for a directed one. A graph
    without a cycle gives exactly 0 where ``iterations`` exceeds its longest path.

    Raises:
        ValueError: if the adjacency is not square, a weight is negative or not finite.

    >>> from embedkit.graph import build_adjacency
    >>> pair = build_adjacency(torch.tensor([[0, 1], [1, 0]]), norm="none")
    >>> round(spectral_radius(pair), 6)
    1.0
    """
    check_at_least("spectral_radius", "iterations", iterations, 1)
    forward, _ = _by_source(adjacency, "spectral_radius")
    if not forward.col.numel():
        return 0.0
    scale = float(forward.value.max()) or 1.0
    forward = forward._replace(value=forward.value / scale)
    x = torch.ones(forward.num_cols, 1, dtype=torch.float64, device=forward.col.device)
    x, reach, growth = x / x.norm(), x, 1.0
    for _ in range(iterations):
        reach = propagate(reach, forward)
        length = float(reach.norm())
        if length == 0.0:
            return 0.0
        reach = reach / length
        image = propagate(x, forward) + x
        growth = float(image.norm())
        x = image / growth
    image = propagate(x, forward)
    return scale * float((x * image).sum() if forward.transpose is None else growth - 1.0)


def _decay(adjacency: Adjacency, beta: float | None, owner: str) -> float:
    """beta, or half of what is allowed; raises where the series would not converge."""
    radius = spectral_radius(adjacency)
    if beta is None:
        if radius == 0.0 and adjacency.col.numel():
            raise ValueError(
                f"{owner}: the graph has no cycle, so every beta converges and none is usual: "
                "pass one, e.g. beta=0.1"
            )
        return 0.5 / radius if radius else 0.5
    check_positive(owner, "beta", beta)
    if beta * radius >= 1.0:
        raise ValueError(
            f"{owner}: beta must be below 1 / (the largest eigenvalue) = {1 / radius:g}, got "
            f"{beta:g}. Beyond it the series of walks grows without bound; half of it is usual."
        )
    return beta


def katz_proximity(adjacency: Adjacency, beta: float | None = None) -> Float[Tensor, "n n"]:
    """All walks from i to j, each step discounted by beta:  S = (I - beta A)^-1 beta A.

    S = sum_t beta^t A^t, where A_ij is the weight of the edge i -> j (a column of ``adjacency`` is
    the sender i). Dense, for graphs of up to 10,000 nodes; :func:`hope_embedding` needs no S.

    Args:
        adjacency: square, weights >= 0, mostly ``norm="none"``.
        beta: 0 < beta < 1 / rho(A); None: half of that bound.

    Returns:
        (n, n) in float64.

    Raises:
        ValueError: if beta is out of range, the graph is too large or not square, or a weight is
            negative or not finite.

    Source: Katz 1953, A New Status Index Derived from Sociometric Analysis; Ou et al. 2016,
    Asymmetric Transitivity Preserving Graph Embedding, eq. 4-5.

    >>> from embedkit.graph import build_adjacency
    >>> pair = build_adjacency(torch.tensor([[0, 1], [1, 0]]), norm="none")
    >>> katz_proximity(pair, beta=0.5)
    tensor([[0.3333, 0.6667],
            [0.6667, 0.3333]], dtype=torch.float64)
    """
    forward, _ = _by_source(adjacency, "katz_proximity")
    size = forward.num_rows
    if size > _DENSE:
        raise ValueError(
            f"katz_proximity: {size} nodes would need a dense {size} x {size} matrix; the limit is "
            f"{_DENSE}. hope_embedding factorises it without making it."
        )
    beta = _decay(adjacency, beta, "katz_proximity")
    identity = torch.eye(size, dtype=torch.float64, device=forward.col.device)
    edges = beta * propagate(identity, forward)
    solved: Tensor = torch.linalg.solve(identity - edges, edges)
    return solved


def _walks(x: Tensor, adjacency: Adjacency, beta: float) -> Tensor:
    """S x, summing walks until a term no longer counts."""
    term = beta * propagate(x, adjacency)
    total = term.clone()
    for _ in range(_TERMS):
        term = beta * propagate(term, adjacency)
        total += term
        if float(term.norm()) <= _SMALL * float(total.norm()):
            return total
    raise ValueError(
        f"hope_embedding: the sum of walks did not converge in {_TERMS} terms: beta={beta:g} is "
        "too close to 1 / (the largest eigenvalue) or beyond. Half of that bound is usual."
    )


def hope_embedding(
    adjacency: Adjacency,
    dim: int,
    beta: float | None = None,
    *,
    iterations: int = 4,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]]:
    """Two vectors per node whose dot product approximates :func:`katz_proximity`.

    With the leading c = dim / 2 singular triplets S ~ U Sigma V^T:  source = U Sigma^(1/2),
    target = V Sigma^(1/2), and the score of i -> j is source_i . target_j. Keep the two halves
    apart: source . source, or distances of both side by side, is another measure.

    A randomised SVD that meets S only in products: S x is summed over walks, one sparse product
    each, so memory is O(e + n c) and nothing of size n x n is made. The number of terms grows as
    1 / log(1 / (beta rho)): 40 at half of the bound.

    Args:
        adjacency: square, weights >= 0, mostly ``norm="none"``; a directed graph stays directed.
        dim: numbers kept per node, both halves together: even, at most 2 n.
        beta: 0 < beta < 1 / rho(A); None: half of that bound. Small beta sees near nodes only.
        iterations: of the subspace; more come closer to the best approximation where singular
            values fall slowly.
        generator: of the device of the adjacency, for the first subspace; None: torch's own.

    Returns:
        (source, target), (n, dim / 2) each, in the dtype of the adjacency. Signs are arbitrary,
        dot products are not.

    Raises:
        ValueError: if beta is out of range, ``dim`` is odd or above 2 n, the graph is not square,
            or a weight is negative or not finite.

    Source: Ou et al. 2016, Asymmetric Transitivity Preserving Graph Embedding, sec. 4 (HOPE-Katz);
    Halko et al. 2011, Finding Structure with Randomness, algorithm 4.4.
    Differs: a randomised SVD in place of the generalised one of Jacobi-Davidson type.

    >>> from embedkit.graph import build_adjacency
    >>> pair = build_adjacency(torch.tensor([[0, 1], [1, 0]]), norm="none")
    >>> source, target = hope_embedding(pair, dim=4, beta=0.5)
    >>> source @ target.T
    tensor([[0.3333, 0.6667],
            [0.6667, 0.3333]])
    """
    forward, backward = _by_source(adjacency, "hope_embedding")
    size = forward.num_rows
    check_at_least("hope_embedding", "iterations", iterations, 0)
    if dim < 2 or dim % 2 or dim > 2 * size:
        raise ValueError(
            f"hope_embedding: dim must be even, for a source and a target of half of it, and lie "
            f"in [2, {2 * size}] for {size} nodes, got {dim}"
        )
    beta = _decay(adjacency, beta, "hope_embedding")
    width = min(size, dim // 2 + max(10, math.ceil(dim / 8)))
    device = forward.col.device
    start = torch.randn(size, width, dtype=torch.float64, device=device, generator=generator)
    left, value, right = randomized_svd(
        lambda x: _walks(x, forward, beta),
        lambda x: _walks(x, backward, beta),
        start,
        dim // 2,
        iterations,
    )
    source, target = left * value.sqrt(), right * value.sqrt()
    return source.to(adjacency.value.dtype), target.to(adjacency.value.dtype)
