"""RESTORE: how much of each node's neighbourhood the vectors alone can rebuild."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.analysis.graphs.hops import hop_distances
from embedkit.analysis.graphs.pairs import best_pairs, pair_precision
from embedkit.analysis.graphs.precision import (
    chance_precision,
    check_scores,
    expected_precision,
    sort_scores,
)
from embedkit.analysis.graphs.report import HopReport, ReconstructionReport
from embedkit.graph import Adjacency
from embedkit.graph._square import check_square
from embedkit.ops import normalize

Score = Literal["dot", "cosine", "neg_sqeuclidean"]
Candidates = Literal["not_closer", "exact", "within"]
_SCORES = ("dot", "cosine", "neg_sqeuclidean")
_CANDIDATES = ("not_closer", "exact", "within")
_ENTRIES = 1 << 18  # of one block of scores


@torch.no_grad()
def reconstruction_metrics(
    embedding: Float[Tensor, "n d"] | Callable[[Tensor], Tensor],
    adjacency: Adjacency,
    *,
    target: Float[Tensor, "n d"] | None = None,
    score: Score = "dot",
    hops: Sequence[int] = (1, 2, 3),
    candidates: Candidates = "not_closer",
    precision_at: Sequence[int] = (),
    query: Int[Tensor, " q"] | None = None,
    max_queries: int = 10_000,
    generator: torch.Generator | None = None,
) -> ReconstructionReport:
    """Mean average precision of finding the nodes at k hops by their scores.

    For node i the candidates C are ranked by score, the relevant ones R should come first, and
    AP_i = (1 / |R|) sum over relevant ranks r of precision@r. With h_ij the length of the shortest
    path from i to j:

    - "not_closer":  C = {h >= k} (with nodes out of reach), R = {h = k}: perfect distances give 1;
    - "within":  C = all others, R = {h <= k}: likewise, but near 1 for all once most pairs count;
    - "exact":  C = all others, R = {h = k}: even perfect distances fall far below 1 for k > 1.

    The graph is the one the vectors were trained on: what is measured is what they kept of it, not
    the prediction of edges that were held out. Equal scores count in expectation over their orders
    (:func:`average_precision`). Scores are made in blocks of rows: memory is O(n) per row, nothing
    is n x n. With more than 50,000 nodes ``max_queries`` of them are drawn; candidates never are,
    because that would change how rare the relevant ones are.

    Args:
        embedding: one vector per node; or a callable, e.g. a decoder, that takes node numbers (b,)
            and gives their scores with all nodes, (b, n), without ``score`` and ``target``.
        adjacency: the graph; edges lead from columns (senders) to rows, see
            :func:`hop_distances`. A directed graph is judged as directed.
        target: the vectors on the other side, for HOPE's two halves; None: ``embedding`` again.
        score: "dot", "cosine" or "neg_sqeuclidean": take what the vectors were trained for.
        hops: distances k, each at least 1.
        candidates: "not_closer", "within" or "exact".
        precision_at: cut-offs of precision@k, the share of the first k candidates of each node, and
            of the first k pairs of all nodes.
        query: the nodes to ask; None: all, or a sample.
        max_queries: size of the sample.
        generator: of the CPU, for the sample; None: torch's own.

    Returns:
        The report, NaN with a warning at a distance that no node of the graph is at.

    Raises:
        ValueError: if shapes do not fit, a vector is not finite, a score is NaN, a node is out of
            range, or a setting is unknown.
        TypeError: if vectors are not floating, or ``adjacency`` is no :class:`Adjacency`.

    Source: Yip 2023, RESTORE: Graph Embedding Assessment Through Reconstruction, the topological
    measure.
    Differs: the paper does not say which candidates it ranks; all three conventions are here, with
    chance level beside each. GEM divides by the relevant pairs retrieved and ranks only j > i.

    >>> from embedkit.graph import build_adjacency
    >>> path = build_adjacency(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), norm="none")
    >>> places = torch.tensor([[0.0], [1.0], [2.0]])
    >>> report = reconstruction_metrics(places, path, score="neg_sqeuclidean", hops=[1, 2])
    >>> [hop.map for hop in report.hops]
    [1.0, 1.0]
    """
    check_choice(
        "reconstruction_metrics", "candidates", candidates, ("not_closer", "exact", "within")
    )
    check_square("reconstruction_metrics", adjacency)
    if not hops:
        raise ValueError("reconstruction_metrics: hops must name a distance, got none. Try (1, 2).")
    for hop in hops:
        check_at_least("reconstruction_metrics", "each of hops", hop, 1)
    for k in precision_at:
        check_at_least("precision_at", "k", k, 1)
    size = adjacency.num_cols
    scored, name = _scorer(embedding, target, score, size)
    if query is None:
        query = torch.arange(size)
        if size > 50_000 and max_queries < size:
            check_at_least("reconstruction_metrics", "max_queries", max_queries, 2)
            query = torch.randperm(size, generator=generator)[:max_queries]
        query = query.to(adjacency.col.device)
    check_integer("query", query)
    query, rows = query.long(), max(1, _ENTRIES // max(size, 1))
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in hops]
    best: list[Tensor | None] = [None for _ in hops]
    for nodes in torch.split(query, rows):
        distance = hop_distances(adjacency, nodes, max(hops))
        values = scored(nodes)
        if values.shape != distance.shape:
            raise ValueError(
                "reconstruction_metrics: the callable must give one score per node of the graph, "
                f"{tuple(distance.shape)}, got {tuple(values.shape)}"
            )
        check_scores("reconstruction_metrics", values)
        ordered = sort_scores(values)
        for place, hop in enumerate(hops):
            relevant, candidate = _roles(distance, hop, candidates)
            counts = relevant.double().sum(dim=1), candidate.double().sum(dim=1)
            roles = relevant, candidate
            if precision_at:
                best[place] = best_pairs(values, *roles, max(precision_at), best[place])
            near = ((distance > 0) & (distance <= hop)).double().sum(dim=1)
            closer = near - counts[0] if candidates == "exact" else torch.zeros_like(near)
            found[place].append(
                (
                    *expected_precision(ordered, *roles, precision_at),
                    *chance_precision(*counts, precision_at),
                    *counts,
                    _ideal(closer, counts[0]),
                    near / max(size - 1, 1),
                )
            )
    missing = 0.0 if len(query) >= size else 1.0 - len(query) / size
    reports = tuple(
        _summary(hop, parts, pairs, precision_at, missing)
        for hop, parts, pairs in zip(hops, found, best, strict=True)
    )
    return ReconstructionReport(name, candidates, query, reports)


def _scorer(
    embedding: Tensor | Callable[[Tensor], Tensor],
    target: Tensor | None,
    score: Score,
    size: int,
) -> tuple[Callable[[Tensor], Tensor], str]:
    """Node numbers -> scores with all nodes, and a name for it."""
    check_choice("reconstruction_metrics", "score", score, _SCORES)
    if not isinstance(embedding, Tensor):
        if target is not None or score != "dot":
            raise ValueError(
                "reconstruction_metrics: a callable gives the scores itself, so score and target "
                "must be left out"
            )
        return embedding, "callable"
    other = embedding if target is None else target
    for name, x in (("embedding", embedding), ("target", other)):
        check_floating(name, x)
        check_ndim(name, x, "n d")
        check_rows(name, x, size, "One vector per node of the graph.")
        check_finite("reconstruction_metrics", name, x)
    check_last_dim("target", other, embedding.shape[1], "Both sides need one width.")
    # In float64 so that the order of near scores does not depend on the size of a block.
    left, right = embedding.double(), other.double()
    if score == "cosine":
        left, right = normalize(left), normalize(right)
    squared = right.square().sum(dim=1)

    def scored(nodes: Tensor) -> Tensor:
        dots = left[nodes] @ right.T
        # |x_i - y_j|^2 without |x_i|^2, which is the same for every candidate of node i.
        return 2 * dots - squared if score == "neg_sqeuclidean" else dots

    return scored, score


def _roles(distance: Tensor, hop: int, candidates: Candidates) -> tuple[Tensor, Tensor]:
    """(relevant, candidate) masks; a node is neither for itself."""
    if candidates == "within":
        return (distance > 0) & (distance <= hop), distance > 0
    return distance == hop, distance > 0 if candidates == "exact" else distance >= hop


def _ideal(closer: Tensor, relevant: Tensor) -> Tensor:
    """AP of the distances themselves: (1 / R) sum over i to R of i / (c + i), c of them closer."""
    harmonic = torch.digamma(closer + relevant + 1) - torch.digamma(closer + 1)
    return 1 - closer / relevant * harmonic


def _summary(
    hop: int,
    parts: list[tuple[Tensor, ...]],
    best: Tensor | None,
    precision_at: Sequence[int],
    missing: float,
) -> HopReport:
    row, cuts = torch.empty(0), torch.empty(0, len(precision_at))
    nothing = [row, cuts, row, row, cuts, *[row] * 4]
    ap, cut, auc, chance_ap, chance_cut, relevant, candidate, ideal, reach = (
        (torch.cat(part) for part in zip(*parts, strict=True)) if parts else nothing
    )
    real = ~ap.isnan()
    count = int(real.sum())
    if not count:
        warnings.warn(
            f"reconstruction_metrics: no node asked has another at {hop} hops, so mAP is NaN. "
            "The graph is smaller than that, or has no edges there.",
            stacklevel=4,
        )
    mean, chance = float(ap[real].mean()), float(chance_ap[real].mean())
    deviation = float(ap[real].std()) if count > 1 else 0.0
    precision = {
        k: (float(cut[real, i].mean()), float(chance_cut[real, i].mean()))
        for i, k in enumerate(precision_at)
    }
    together = {}
    if best is not None and count:
        among = chance_precision(relevant.sum()[None], candidate.sum()[None], precision_at)[1][0]
        shares = pair_precision(best, precision_at)
        together = dict(zip(precision_at, zip(shares, among.tolist(), strict=True), strict=True))
    return HopReport(
        hop=hop,
        map=mean,
        chance=chance,
        normalized=(mean - chance) / (1 - chance) if chance < 1 else float("nan"),
        standard_error=deviation / max(count, 1) ** 0.5 * missing**0.5,
        nodes=count,
        precision=precision,
        pair_precision=together,
        oracle=float(ideal[real].mean()),
        auc=float(auc.nanmean()),
        reach=float(reach.mean()),
        ap=ap,
    )
