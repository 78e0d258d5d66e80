"""How many dimensions embeddings fill, by four counts of one spectrum."""

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_finite, check_floating, check_ndim, check_positive


@torch.no_grad()
def spectrum(x: Float[Tensor, "n d"]) -> Float[Tensor, " r"]:
    """The singular values of the rows as they are, largest first; not centred.

    All counts of this file come from them. Subtract the mean first (``x - x.mean(0)``) for the
    spread around it; the squares over n - 1 are then the variances of the principal components.
    Time is that of a float64 decomposition, n d^2: a few thousand rows tell as much as all, and
    fewer rows than columns bound every count.

    Args:
        x: one row per item.

    Returns:
        (min(n, d),) in float64.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for NaN or infinity.

    >>> spectrum(torch.tensor([[3.0, 0.0], [0.0, -4.0], [0.0, 0.0]])).tolist()
    [4.0, 3.0]
    """
    return _singular_values("spectrum", x)


@torch.no_grad()
def effective_rank(x: Float[Tensor, "n d"]) -> float:
    """How many dimensions the rows really use:  exp(-sum_i p_i log p_i),  p_i = s_i / sum_j s_j.

    s are the singular values of ``x`` as it is, not centred; subtract the mean first for the rank
    of the spread alone. Neither scale nor rotation matters.

    Args:
        x: one row per item.

    Returns:
        A float from 1 (all rows on one line) to min(n, d) (equal singular values), computed in
        float64; 0.0 for a matrix of zeros or without entries.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for NaN or infinity.

    Source: Roy and Vetterli 2007, The effective rank: a measure of effective dimensionality, eq. 4.

    >>> round(effective_rank(torch.eye(5)), 6)
    5.0
    """
    p = _shares("effective_rank", x, 1)
    return float(torch.special.entr(p).sum().exp()) if len(p) else 0.0


@torch.no_grad()
def rankme(x: Float[Tensor, "n d"], eps: float = 1e-7) -> float:
    """:func:`effective_rank` with ``eps`` added to each share p_i, as RankMe is published.

    For comparison with published numbers; the two differ by about eps times the width. The paper
    takes 25,600 rows: with fewer than the width it saturates at their number.

    Args:
        x: one row per item, not centred.
        eps: above 0; the paper's, for float32.

    Returns:
        A float, computed in float64; 0.0 for a matrix of zeros or without entries.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for eps <= 0, NaN or infinity.

    Source: Garrido et al. 2023, RankMe: Assessing the Downstream Performance of Pretrained
    Self-Supervised Representations by Their Rank, the definition of RankMe.
    Differs: zeros give 0, where the formula gives about 1.
    """
    check_positive("rankme", "eps", eps)
    p = _shares("rankme", x, 1)
    return float(torch.special.entr(p + eps).sum().exp()) if len(p) else 0.0


@torch.no_grad()
def participation_ratio(x: Float[Tensor, "n d"]) -> float:
    """How many dimensions share the variance:  (sum_i s_i^2)^2 / sum_i s_i^4.

    Small singular values count less here than in :func:`effective_rank`.

    Args:
        x: one row per item; subtract the mean first for the participation ratio of the
            covariance matrix, as it is mostly used.

    Returns:
        A float from 1 to min(n, d), computed in float64; 0.0 for a matrix of zeros or without
        entries.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for NaN or infinity.

    Source: Gao et al. 2017, A theory of multineuronal dimensionality, dynamics and measurement,
    the participation ratio.

    >>> round(participation_ratio(torch.eye(5)), 6)
    5.0
    """
    p = _shares("participation_ratio", x, 2)
    return float(1.0 / p.square().sum()) if len(p) else 0.0


@torch.no_grad()
def stable_rank(x: Float[Tensor, "n d"]) -> float:
    """The whole energy in units of the largest direction's:  sum_i s_i^2 / max_i s_i^2.

    The most cautious of the counts: it says how far one direction dominates.

    Args:
        x: one row per item, not centred.

    Returns:
        A float from 1 to min(n, d), computed in float64; 0.0 for a matrix of zeros or without
        entries.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for NaN or infinity.

    Source: Rudelson and Vershynin 2007, Sampling from Large Matrices: An Approach through
    Geometric Functional Analysis, the numerical rank.

    >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0])))
    1.25
    """
    p = _shares("stable_rank", x, 2)
    return float(1.0 / p.max()) if len(p) else 0.0


def _singular_values(owner: str, x: Tensor) -> Tensor:
    """Checked, in float64, largest first; scaled inside, so that no square over- or underflows."""
    check_ndim("x", x, "n d")
    check_floating("x", x)
    check_finite(owner, "x", x)
    if x.numel() == 0:
        return x.new_zeros(0, dtype=torch.float64)
    wide = x.double()
    largest = wide.abs().max().clamp(min=torch.finfo(wide.dtype).tiny)
    values: Tensor = torch.linalg.svdvals(wide / largest) * largest
    return values


def _shares(owner: str, x: Tensor, power: int) -> Tensor:
    """s^power over its sum; empty where all are zero."""
    values = _singular_values(owner, x)
    values = (values / values[:1].clamp(min=torch.finfo(values.dtype).tiny)) ** power
    return values[:0] if not values.any() else values / values.sum()
