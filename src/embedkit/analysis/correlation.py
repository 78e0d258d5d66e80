"""How well predicted scores follow the wanted ones: Pearson, Spearman and Kendall."""

import torch
import torch.nn.functional as F
from jaxtyping import Int, Shaped
from torch import Tensor

from embedkit._checks import check_finite, check_ndim, check_same_shape
from embedkit.ops.ranks import average_ranks


def _wide(owner: str, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    check_same_shape(f"{owner} wants one wanted score per predicted one.", pred=pred, target=target)
    check_ndim("pred", pred, "n")
    for name, x in (("pred", pred), ("target", target)):
        if x.is_complex():
            raise TypeError(f"{name}: expected real numbers, got {x.dtype}")
        check_finite(owner, name, x.to(torch.uint8) if x.dtype == torch.bool else x)
    return pred.double(), target.double()


def _correlation(x: Tensor, y: Tensor) -> float:
    """The cosine of deviations from the mean; 0.0 where a side is constant."""
    if x.shape[0] < 2 or bool((x == x[0]).all() | (y == y[0]).all()):
        return 0.0
    x, y = ((side - side.mean()) for side in (x, y))
    x, y = ((side / side.abs().max()) for side in (x, y))  # so that no square overflows
    cosine = (x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()
    return float(cosine.clamp(-1, 1))


@torch.no_grad()
def pearson(pred: Shaped[Tensor, " n"], target: Shaped[Tensor, " n"]) -> float:
    """Pearson's r, how far a straight line explains the scores:  cov(x, y) / (sd x sd y).

    Args:
        pred: one predicted score per item; any real dtype.
        target: one wanted score per item.

    Returns:
        A float in [-1, 1], computed in float64; 0.0 where a side is constant, and for fewer than
        two items.

    Raises:
        TypeError: for complex numbers.
        ValueError: for shapes that differ, more than one axis, NaN or infinity.

    Source: Pearson 1895, Note on Regression and Inheritance in the Case of Two Parents.
    Differs: scipy.stats.pearsonr gives NaN for a constant side.

    >>> round(pearson(torch.tensor([0.9, 0.2, 0.5, 0.4]), torch.tensor([5, 1, 3, 3])), 6)
    0.970725
    """
    return _correlation(*_wide("pearson", pred, target))


@torch.no_grad()
def spearman(pred: Shaped[Tensor, " n"], target: Shaped[Tensor, " n"]) -> float:
    """Spearman's rho, how far the two orders agree: :func:`pearson` of ranks, ties at their mean.

    The usual measure of semantic textual similarity. O(n log n).

    Args:
        pred: one predicted score per item; any real dtype, compared exactly.
        target: one wanted score per item.

    Returns:
        A float in [-1, 1], computed in float64; 0.0 where a side is constant, and for fewer than
        two items.

    Raises:
        TypeError: for complex numbers.
        ValueError: for shapes that differ, more than one axis, NaN or infinity.

    Source: Spearman 1904, The Proof and Measurement of Association between Two Things.
    Differs: scipy.stats.spearmanr gives NaN for a constant side.

    >>> spearman(torch.tensor([0.9, 0.2, 0.5, 0.4]), torch.tensor([4, 1, 3, 2]))
    1.0
    """
    x, y = _wide("spearman", pred, target)
    return _correlation(average_ranks(x), average_ranks(y))


@torch.no_grad()
def kendall(pred: Shaped[Tensor, " n"], target: Shaped[Tensor, " n"]) -> float:
    """Kendall's tau-b, how many more pairs agree in order than disagree, ties taken out.

    (P - Q) / sqrt((n0 - n1)(n0 - n2)),  P and Q the pairs in which both sides order the two items
    alike and oppositely, n0 = n (n - 1) / 2, n1 and n2 the pairs tied in one side. Counted by a
    merge sort over all items at once: O(n log^2 n) time, O(n) memory.

    Args:
        pred: one predicted score per item; any real dtype, compared exactly.
        target: one wanted score per item.

    Returns:
        A float in [-1, 1], from exact counts; 0.0 where a side is constant, and for fewer than two
        items.

    Raises:
        TypeError: for complex numbers.
        ValueError: for shapes that differ, more than one axis, NaN or infinity.

    Source: Kendall 1945, The Treatment of Ties in Ranking Problems; Knight 1966, A Computer Method
    for Calculating Kendall's Tau with Ungrouped Data.
    Differs: scipy.stats.kendalltau gives NaN for a constant side.

    >>> round(kendall(torch.tensor([0.9, 0.2, 0.5, 0.4]), torch.tensor([5, 1, 3, 3])), 6)
    0.912871
    """
    x, y = _wide("kendall", pred, target)
    if x.shape[0] < 2:
        return 0.0
    n = x.shape[0]
    # By x, and by y where x is tied: such pairs are then no inversions of y.
    by_y = y.argsort(stable=True)
    order = by_y[x[by_y].argsort(stable=True)]
    x, y = x[order], y[order]
    places = torch.searchsorted(y.sort().values, y)
    discordant = _inversions(places)
    pairs = n * (n - 1) // 2
    tied_x, tied_y = _tied_pairs(x[:, None]), _tied_pairs(places.sort().values[:, None])
    concordant = pairs - tied_x - tied_y + _tied_pairs(torch.stack([x, y], dim=1)) - discordant
    ordered = (pairs - tied_x) * (pairs - tied_y)
    return max(-1.0, min(1.0, (concordant - discordant) / ordered**0.5)) if ordered else 0.0


def _tied_pairs(ordered: Shaped[Tensor, "n c"]) -> int:
    """Number of pairs of equal rows, which stand side by side."""
    counts = torch.unique_consecutive(ordered, dim=0, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Int[Tensor, " n"]) -> int:
    """Number of pairs i < j with values[i] > values[j], values below 2^62."""
    size = 1 << (values.shape[0] - 1).bit_length()
    rows = F.pad(values, (0, size - values.shape[0]), value=2**62)[:, None]
    total = values.new_zeros(())
    while rows.shape[0] > 1:  # each row is sorted; join neighbours
        left, right = rows[0::2].contiguous(), rows[1::2].contiguous()
        total += left.numel() * left.shape[1] - torch.searchsorted(left, right, right=True).sum()
        rows = torch.cat([left, right], dim=1).sort(dim=1).values
    return int(total)
