"""Do the nearest rows have the same label? Precision at 1, R-precision and MAP@R."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_choice,
    check_finite,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.search import exact_search

_ENTRIES = 2**22  # of a block of rankings


class LabelRetrieval(NamedTuple):
    """What :func:`label_retrieval_metrics` measures: means over the rows that have a match."""

    precision_at_1: float
    """Share of rows whose nearest other row has their label (also called recall@1)."""
    r_precision: float
    """Share of matches among a row's R nearest, R its number of matches."""
    map_at_r: float
    """Mean average precision at R: 1 only where all matches come first; below ``r_precision``."""
    rows: int
    """Rows that took part; a row that is alone in its class has nothing to find."""


@torch.no_grad()
def label_retrieval_metrics(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    reference: Float[Tensor, "n d"] | None = None,
    reference_labels: Int[Tensor, " n"] | None = None,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> LabelRetrieval:
    """Rank all other rows for each row, and see how early those of its label come.

    With R rows of a row's label beside itself, h_i = 1 where the i-th nearest row has that label,
    and P(i) = (h_1 + ... + h_i) / i, a row scores

        precision@1 = h_1,    R-precision = P(R),    MAP@R = (1 / R) sum_{i <= R} P(i) h_i.

    No number of neighbours is to be chosen: each row looks as deep as its class is large. Rows are
    searched exactly in blocks, rows of equally large classes together; nothing of size b x n is
    kept. Of equally similar rows the first comes first, so a collapsed encoder, whose rows are all
    equal, scores by the order of the rows: shuffle them.

    Args:
        embeddings: one row per item.
        labels: integers; equal labels match.
        reference: rows to search among. None: the other rows of ``embeddings``.
        reference_labels: their labels.
        similarity: "cosine" or "dot".

    Returns:
        A :class:`LabelRetrieval` of floats in [0, 1]; all 0 where no row has a match.

    Raises:
        TypeError: if embeddings are not floating or labels not integers.
        ValueError: if rows, widths and labels do not fit, for NaN or infinity, an unknown
            ``similarity``, or only one of ``reference`` and ``reference_labels``.

    Source: Musgrave et al. 2020, A Metric Learning Reality Check.

    >>> x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.3], [0.0, 1.0], [0.6, 0.5]])
    >>> found = label_retrieval_metrics(x, torch.tensor([0, 0, 1, 1, 0]))
    >>> print(*(round(value, 4) for value in found))
    0.4 0.3 0.25 5
    """
    own = reference is None
    if reference is None or reference_labels is None:
        if reference is not None or reference_labels is not None:
            raise ValueError("reference and reference_labels: expected both or neither, got one")
        reference, reference_labels = embeddings, labels
    for name, rows, kind in (
        ("embeddings", embeddings, labels),
        ("reference", reference, reference_labels),
    ):
        check_floating(name, rows)
        check_ndim(name, rows, "b d")
        check_integer("labels", kind, "Labels say by equality who matches; number the classes.")
        check_rows("labels", kind, rows.shape[0], f"One label per row of {name}.")
        check_ndim("labels", kind, "b")
        check_finite("label_retrieval_metrics", name, rows)
    check_last_dim("reference", reference, embeddings.shape[1], "One space for both.")
    check_choice("label_retrieval_metrics", "similarity", similarity, ("cosine", "dot"))

    depth = _matches(labels, reference_labels) - int(own)
    active = (depth > 0).nonzero()[:, 0]
    order = active[depth[active].argsort(stable=True)]  # equally deep rows share a search
    total = torch.zeros(3, dtype=torch.float64, device=embeddings.device)
    step = max(1, _ENTRIES // int(depth.max())) if len(order) else 1
    for start in range(0, len(order), step):
        part = order[start : start + step]
        deepest = int(depth[part[-1]])
        found = exact_search(
            embeddings[part],
            reference,
            deepest,
            similarity=similarity,
            exclude=part[:, None] if own else None,
        ).index
        hit = (reference_labels[found] == labels[part, None]) & (found >= 0)
        total += _score(hit, depth[part])
    first, precise, average = (total / max(len(order), 1)).tolist()
    return LabelRetrieval(first, precise, average, len(order))


def _matches(labels: Tensor, reference_labels: Tensor) -> Tensor:
    """How many reference rows have the label of each row."""
    ordered, labels = reference_labels.long().sort().values, labels.long()
    return torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)


def _score(hit: Tensor, depth: Tensor) -> Tensor:
    """Sums over rows of h_1, P(R) and the mean of P(i) h_i up to R."""
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    hit = (hit & (rank <= depth[:, None])).double()
    precise = (hit * hit.cumsum(dim=1) / rank).sum(dim=1)
    return torch.stack([hit[:, 0], hit.sum(dim=1) / depth, precise / depth]).sum(dim=1)
