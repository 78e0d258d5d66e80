"""Katz proximity, and HOPE: its best approximation of low rank, kept as source and target."""

import math
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_at_least, check_finite, check_positive
from embedkit.graph._square import check_square
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.structure._radius import radius_bounds
from embedkit.graph.structure.factorize import randomized_svd, transposed

_DENSE = 10_000  # nodes of the largest dense proximity
_TERMS = 20_000  # of the Katz series, at most
_STEPS = 1000  # in which a bound of the radius is to show that beta is allowed
_SMALL = 1e-12  # relative size of the first term that is left out


def _by_source(adjacency: Adjacency, owner: str) -> tuple[Adjacency, Adjacency]:
    """A with A_ij the edge i -> j, and its transpose, in float64."""
    check_square(owner, adjacency)
    wide = adjacency.to(dtype=torch.float64)
    wide = wide._replace(value=wide.value.detach())
    check_finite(owner, "the weights of the adjacency", wide.value)
    if wide.value.numel() and float(wide.value.min()) < 0:
        raise ValueError(f"{owner}: weights must be >= 0, got {float(wide.value.min()):g}")
    return transposed(wide), wide


def spectral_radius(adjacency: Adjacency, iterations: int = 200) -> float:
    """The largest absolute eigenvalue of an adjacency with weights >= 0, from above.

    A power iteration whose every step proves a bound:  rho(A) <= max_i (A x)_i / x_i  for x > 0.
    It runs on each strongly connected component by itself, so that long ways between cycles do not
    hide them; a graph without a cycle gives exactly 0. The bound is above the radius by more than
    rounding only where ``iterations`` are too few for a component that mixes slowly, as a long
    path does, and 1 / (the bound) is safe as beta there, too.

    Args:
        adjacency: square, weights >= 0.
        iterations: at least 1; each takes O(e).

    Raises:
        ValueError: if the adjacency is not square, a weight is negative or not finite.
        TypeError: if ``adjacency`` is no :class:`Adjacency`.

    Source: Collatz 1942, Einschließungssatz für die charakteristischen Zahlen von Matrizen;
    Wielandt 1950, Unzerlegbare, nicht negative Matrizen.

    >>> from embedkit.graph import build_adjacency
    >>> pair = build_adjacency(torch.tensor([[0, 1], [1, 0]]), norm="none")
    >>> round(spectral_radius(pair), 6)
    1.0
    """
    check_at_least("spectral_radius", "iterations", iterations, 1)
    forward, _ = _by_source(adjacency, "spectral_radius")
    return min(islice(radius_bounds(forward), iterations + 1))


def _decay(adjacency: Adjacency, beta: float | None, owner: str) -> float:
    """beta, or half of what is allowed; raises unless the series is sure to converge."""
    if beta is None:
        radius = spectral_radius(adjacency)
        if radius == 0.0 and adjacency.col.numel():
            raise ValueError(
                f"{owner}: the graph has no cycle, so every beta converges and none is usual: "
                "pass one, e.g. beta=0.1"
            )
        return 0.5 / radius if radius else 0.5
    check_positive(owner, "beta", beta)
    radius = math.inf
    for radius in islice(radius_bounds(_by_source(adjacency, owner)[0]), _STEPS):
        if beta * radius < 1.0:
            return beta
    raise ValueError(
        f"{owner}: beta must be below 1 / (the largest eigenvalue) = {1 / radius:g}, got "
        f"{beta:g}. Beyond it the series of walks grows without bound; half of it is usual."
    )


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
        TypeError: if ``adjacency`` is no :class:`Adjacency`.

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
        ValueError: if beta is out of range, ``dim`` is odd or above 2 n, the graph is not square or
            has no node, or a weight is negative or not finite.
        TypeError: if ``adjacency`` is no :class:`Adjacency`.

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
    if not size:
        raise ValueError("hope_embedding: the graph has no node, and so no vector of any width")
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
