"""RESTORE: how much of each node's neighbourhood the vectors alone can rebuild."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_floating,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.analysis.graphs.hops import hop_distances
from embedkit.analysis.graphs.precision import (
    chance_precision,
    check_scores,
    expected_precision,
    sort_scores,
)
from embedkit.graph import Adjacency
from embedkit.ops import normalize

Score = Literal["dot", "cosine", "neg_sqeuclidean"]
Candidates = Literal["not_closer", "exact", "within"]
_SCORES = ("dot", "cosine", "neg_sqeuclidean")
_CANDIDATES = ("not_closer", "exact", "within")
_ENTRIES = 1 << 18  # of one block of scores


class HopReport(NamedTuple):
    """How well nodes at one distance were found.

    Attributes:
        hop: the distance k.
        map: mean of ``ap`` over the nodes that have a relevant candidate; NaN if none has.
        chance: what a random order has in expectation, for the same nodes.
        normalized: (map - chance) / (1 - chance): 0 at chance level, 1 at best.
        standard_error: of ``map``, from having asked a sample of nodes; 0 where all were asked.
        nodes: how many nodes the means are over.
        precision: k -> mean precision@k, and what a random order has.
        ap: (q,) average precision of each query; NaN without a relevant candidate.
    """

    hop: int
    map: float
    chance: float
    normalized: float
    standard_error: float
    nodes: int
    precision: dict[int, tuple[float, float]]
    ap: Tensor


class ReconstructionReport(NamedTuple):
    """One :class:`HopReport` per distance; ``print`` shows a table.

    Attributes:
        score: how pairs were scored.
        candidates: what competed, see :func:`reconstruction_metrics`.
        query: (q,) the nodes that were asked.
        hops: the reports, in the order asked for.
    """

    score: str
    candidates: str
    query: Tensor
    hops: tuple[HopReport, ...]

    def __str__(self) -> str:
        """A table with the chance row beside every value."""
        head = f"score {self.score}, candidates {self.candidates}, {len(self.query)} queries"
        lines = [head, " hop    mAP   chance  normalized  std. error  nodes"]
        lines += [
            f"{h.hop:4d}  {h.map:.4f}  {h.chance:.4f}  {h.normalized:10.4f}  "
            f"{h.standard_error:10.4f}  {h.nodes:5d}"
            for h in self.hops
        ]
        return "\n".join(lines)


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
            and gives their scores with all nodes, (b, n).
        adjacency: the graph; edges lead from columns (senders) to rows, see
            :func:`hop_distances`. A directed graph is judged as directed.
        target: the vectors on the other side, for HOPE's two halves; None: ``embedding`` again.
        score: "dot", "cosine" or "neg_sqeuclidean": take what the vectors were trained for.
        hops: distances k, each at least 1.
        candidates: "not_closer", "within" or "exact".
        precision_at: cut-offs of precision@k, the share of the first k candidates.
        query: the nodes to ask; None: all, or a sample.
        max_queries: size of the sample.
        generator: of the CPU, for the sample; None: torch's own.

    Returns:
        The report, NaN with a warning at a distance that no node of the graph is at.

    Raises:
        ValueError: if shapes do not fit, a vector is not finite, a score is NaN, a node is out of
            range, or a setting is unknown.
        TypeError: if vectors are not floating.

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
    if not hops:
        raise ValueError("reconstruction_metrics: hops must name a distance, got none. Try (1, 2).")
    for hop in hops:
        check_at_least("reconstruction_metrics", "each of hops", hop, 1)
    size = adjacency.num_cols
    scored, name = _scorer(embedding, target, score, size)
    if query is None:
        query = torch.arange(size)
        if size > 50_000 and max_queries < size:
            check_at_least("reconstruction_metrics", "max_queries", max_queries, 2)
            query = torch.randperm(size, generator=generator)[:max_queries]
        query = query.to(adjacency.col.device)
    rows = max(1, _ENTRIES // max(size, 1))
    found: list[list[tuple[Tensor, ...]]] = [[] for _ in hops]
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
        for hop, parts in zip(hops, found, strict=True):
            relevant, candidate = _roles(distance, hop, candidates)
            counts = relevant.double().sum(dim=1), candidate.double().sum(dim=1)
            parts.append(
                (
                    *expected_precision(ordered, relevant, candidate, precision_at),
                    *chance_precision(*counts, precision_at),
                )
            )
    missing = 0.0 if len(query) >= size else 1.0 - len(query) / size
    reports = tuple(
        _summary(hop, parts, precision_at, missing) for hop, parts in zip(hops, found, strict=True)
    )
    return ReconstructionReport(name, candidates, query, reports)


def _scorer(
    embedding: Tensor | Callable[[Tensor], Tensor],
    target: Tensor | None,
    score: Score,
    size: int,
) -> tuple[Callable[[Tensor], Tensor], str]:
    """Node numbers -> scores with all nodes, and a name for it."""
    if not isinstance(embedding, Tensor):
        return embedding, "callable"
    check_choice("reconstruction_metrics", "score", score, _SCORES)
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


def _summary(
    hop: int, parts: list[tuple[Tensor, ...]], precision_at: Sequence[int], missing: float
) -> HopReport:
    nothing = [torch.empty(0), torch.empty(0, len(precision_at))] * 2
    ap, cut, chance_ap, chance_cut = (
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
    scaled = (mean - chance) / (1 - chance) if chance < 1 else float("nan")
    error = deviation / max(count, 1) ** 0.5 * missing**0.5
    return HopReport(hop, mean, chance, scaled, error, count, precision, ap)
