"""How often a hashed table makes two values share their row."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from embedkit._checks import check_at_least
from embedkit.tables import MultiplexedHash


class CollisionReport(NamedTuple):
    """What :func:`collision_report` measures; shares are of all values, averaged over look-ups."""

    within: float
    """Share of values that meet another value of their own feature: no layer can tell them apart
    by this look-up."""
    between: float
    """Share of values that meet a value of another feature: weights per feature separate them."""
    together: float
    """Share of values that meet one other value of their feature in every look-up at once."""
    lost: float
    """Values minus the buckets they fill, per look-up."""
    expected_lost: float
    """What a perfect random function would lose; see :func:`expected_lost`."""
    load: Tensor
    """``load[i]``: buckets that hold i values, added up over the look-ups."""


def expected_lost(num_values: int, num_buckets: int | float) -> float:
    """Values minus filled buckets, N - M (1 - (1 - 1/M)^N), for a random function of N into M.

    Args:
        num_values: N.
        num_buckets: M, also a fraction, such as a third of a budget.

    Raises:
        ValueError: if ``num_values`` is negative or ``num_buckets`` below 1.

    Source: Coleman et al. 2023, Unified Embedding: Battle-Tested Feature Representations for
        Web-Scale ML Systems, the analysis of collisions.

    >>> round(expected_lost(1000, 1000), 4)
    367.6954
    """
    check_at_least("expected_lost", "num_values", num_values, 0)
    if num_buckets < 1:
        raise ValueError(f"expected_lost: num_buckets must be >= 1, got {num_buckets:g}")
    if num_buckets == 1:
        return float(max(num_values - 1, 0))
    return num_values + num_buckets * math.expm1(num_values * math.log1p(-1 / num_buckets))


def collision_report(hash: MultiplexedHash, sizes: Sequence[int]) -> CollisionReport:
    """Count the collisions of ids 0 to sizes[t] - 1 of each feature t, exactly.

    Args:
        hash: the hash policy of a table, for instance ``UnifiedEmbedding(...).hash``.
        sizes: number of values of each feature, in the order of the features.

    Returns:
        A :class:`CollisionReport`. Every look-up is counted in a range of its own, as if it had
        the table to itself. Without values all shares are 0.

    Raises:
        ValueError: if there is not one size per feature, or one is negative.

    Source: Coleman et al. 2023, Unified Embedding: Battle-Tested Feature Representations for
        Web-Scale ML Systems, the collisions within and
        between features.

    >>> report = collision_report(MultiplexedHash(2, 2, num_buckets=1000), [500, 500])
    >>> f"{report.within:.2f} {report.between:.2f} {report.together:.2f}"
    '0.39 0.38 0.00'
    """
    features, lookups = hash.seeds.shape
    if len(sizes) != features:
        raise ValueError(
            f"collision_report: expected {features} sizes, one per feature, got {len(sizes)}"
        )
    for size in sizes:
        check_at_least("collision_report", "each size", size, 0)
    device, buckets = hash.seeds.device, hash.num_buckets
    rows = [hash(torch.arange(size, device=device), t) for t, size in enumerate(sizes)]
    own = torch.stack([_loads(part, buckets) for part in rows])  # (features, look-ups, buckets)
    every = own.sum(0)
    within = between = together = 0.0
    for part, mine in zip(rows, own, strict=True):
        within += (mine.gather(1, part.T) > 1).sum().item() / lookups
        between += ((every - mine).gather(1, part.T) > 0).sum().item() / lookups
        copies = part.unique(dim=0, return_counts=True)[1]
        together += copies[copies > 1].sum().item()
    total = sum(sizes)
    return CollisionReport(
        within=within / max(total, 1),
        between=between / max(total, 1),
        together=together / max(total, 1),
        lost=total - (every > 0).sum().item() / lookups,
        expected_lost=expected_lost(total, buckets),
        load=every.flatten().bincount(),
    )


def _loads(rows: Tensor, num_buckets: int) -> Tensor:
    """How many values each bucket of each look-up holds, (look-ups, buckets)."""
    return torch.stack([lookup.bincount(minlength=num_buckets) for lookup in rows.unbind(1)])
