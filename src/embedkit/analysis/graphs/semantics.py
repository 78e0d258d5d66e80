"""What vectors keep of meaning: distances of pairs that belong together, and analogies."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_finite,
    check_floating,
    check_integer,
    check_ndim,
)
from embedkit.ops import normalize

_ENTRIES = 1 << 21


class SemanticDrift(NamedTuple):
    """Mean distances; only ``relative`` compares embeddings of different kinds.

    Attributes:
        unit: between vectors of length 1, in [0, 2] for pairs.
        raw: between the vectors as they are.
        standardized: after every dimension has mean 0 and deviation 1.
        random: ``unit`` of random pairs (or random quadruples).
        relative: unit / random: 1 tells nothing, 0 coincides.
    """

    unit: float
    raw: float
    standardized: float
    random: float
    relative: float


@torch.no_grad()
def semantic_drift(
    embedding: Float[Tensor, "n d"],
    groups: Int[Tensor, "p g"],
    *,
    num_random: int = 10_000,
    generator: torch.Generator | None = None,
) -> SemanticDrift:
    """How far apart vectors are that should coincide: the mean of |y_a - y_b|.

    For analogies a : b :: c : d, the mean of |(y_b - y_a) - (y_d - y_c)|. A distance says little
    alone: vectors that all look alike have drift 0, and wide ones have more than narrow ones, so
    the same number for random rows stands beside it.

    Args:
        embedding: one vector per node.
        groups: (p, 2) pairs, or (p, 4) analogies a, b, c, d, as row numbers.
        num_random: pairs or quadruples to draw for ``random``.
        generator: of the device of ``groups``; None: torch's own.

    Returns:
        The means, NaN without a group. A zero vector stays zero.

    Raises:
        ValueError: if ``groups`` has neither 2 nor 4 columns, a row number is out of range, or a
            vector is not finite.
        TypeError: if vectors are not floating or row numbers not integers.

    Source: Yip 2023, RESTORE: Graph Embedding Assessment Through Reconstruction, the semantic
    measure.
    Differs: the paper's exact definition is not public; this one follows its abstract.

    >>> semantic_drift(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0, 1]])).raw
    2.23606797749979
    """
    y = _vectors("semantic_drift", embedding)
    if groups.ndim != 2 or groups.shape[1] not in (2, 4):
        raise ValueError(
            "semantic_drift: groups must be (p, 2) pairs or (p, 4) analogies, got "
            f"{tuple(groups.shape)}"
        )
    _check_rows("semantic_drift", "groups", groups, len(y))
    check_at_least("semantic_drift", "num_random", num_random, 1)
    deviation = y.std(dim=0, correction=0) if len(y) else y.new_ones(y.shape[1])
    spread = (y - y.mean(dim=0)) / deviation.masked_fill(deviation == 0, 1.0)
    unit = normalize(y)
    others = groups[:0]
    if len(y):
        shape = (num_random, groups.shape[1])
        others = torch.randint(len(y), shape, generator=generator, device=groups.device)
        ordered = others.sort(dim=1).values
        others = others[(ordered[:, 1:] != ordered[:, :-1]).all(dim=1)]
    own, random = _mean_gap(unit, groups), _mean_gap(unit, others)
    relative = own / random if random else float("nan")
    return SemanticDrift(own, _mean_gap(y, groups), _mean_gap(spread, groups), random, relative)


def _mean_gap(y: Tensor, groups: Tensor) -> float:
    total = 0.0
    for part in torch.split(groups, max(1, _ENTRIES // max(y.shape[1], 1))):
        gap = y[part[:, 1]] - y[part[:, 0]]
        if groups.shape[1] == 4:
            gap = gap - (y[part[:, 3]] - y[part[:, 2]])
        total += float(gap.norm(dim=1).sum())
    return total / len(groups) if len(groups) else float("nan")


@torch.no_grad()
def analogy_accuracy(embedding: Float[Tensor, "n d"], quadruples: Int[Tensor, "p 4"]) -> float:
    """Share of analogies a : b :: c : d whose d is nearest to y_b - y_a + y_c (3CosAdd).

    By cosine of unit vectors, with a, b and c themselves left out. Where m nodes share the
    highest score and d is one of them, the analogy counts 1 / m.

    Args:
        embedding: one vector per node.
        quadruples: row numbers of a, b, c, d.

    Returns:
        In [0, 1]; NaN without a quadruple.

    Raises:
        ValueError: if ``quadruples`` has not 4 columns, a row number is out of range, d is one of
            a, b, c, or a vector is not finite.
        TypeError: if vectors are not floating or row numbers not integers.

    Source: Mikolov et al. 2013, Linguistic Regularities in Continuous Space Word Representations,
    sec. 4; Levy & Goldberg 2014, Linguistic Regularities in Sparse and Explicit Word
    Representations, eq. 3.

    >>> y = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-0.1, 1.0]])
    >>> analogy_accuracy(y, torch.tensor([[0, 1, 2, 3]]))
    1.0
    """
    y = normalize(_vectors("analogy_accuracy", embedding))
    if quadruples.ndim != 2 or quadruples.shape[1] != 4:
        raise ValueError(
            "analogy_accuracy: quadruples must be (p, 4): a, b, c, d, got "
            f"{tuple(quadruples.shape)}"
        )
    _check_rows("analogy_accuracy", "quadruples", quadruples, len(y))
    if (quadruples[:, :3] == quadruples[:, 3:]).any():
        raise ValueError("analogy_accuracy: d is one of a, b, c, which are left out of the answers")
    right = 0.0
    for part in torch.split(quadruples, max(1, _ENTRIES // max(len(y), 1))):
        a, b, c, d = part.T
        score = normalize(y[b] - y[a] + y[c]) @ y.T
        score.scatter_(1, part[:, :3], -torch.inf)
        best = score.amax(dim=1, keepdim=True)
        won = score.gather(1, d[:, None]) == best
        right += float((won[:, 0] / (score == best).sum(dim=1)).sum())
    return right / len(quadruples) if len(quadruples) else float("nan")


def _vectors(owner: str, embedding: Tensor) -> Tensor:
    check_floating("embedding", embedding)
    check_ndim("embedding", embedding, "n d")
    check_finite(owner, "embedding", embedding)
    return embedding.double()


def _check_rows(owner: str, name: str, rows: Tensor, size: int) -> None:
    check_integer(name, rows)
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < size:
        raise ValueError(
            f"{owner}: {name} must lie in [0, {size - 1}], the rows of embedding, got values in "
            f"[{int(rows.min())}, {int(rows.max())}]"
        )
