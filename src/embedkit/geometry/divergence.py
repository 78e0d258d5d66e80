"""How far two samples of vectors are from being one: MMD, CORAL, sliced Wasserstein."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_last_dim,
    check_ndim,
    check_positive,
)
from embedkit.geometry._kernel_sum import kernel_sum
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops._precision import full_precision

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the mean squared distance, where no bandwidth is given


def mmd(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    bandwidth: int | float | Sequence[int | float] | Float[Tensor, "*s"] | None = None,
    unbiased: bool = False,
) -> Float[Tensor, ""]:
    """Squared maximum mean discrepancy:  mean k(x, x') + mean k(y, y') - 2 mean k(x, y).

    k is the mean over bandwidths s of the Gaussian kernel exp(-|a - b|^2 / (2 s^2)). Kernel values
    are summed a block of about a million at a time, and their gradients with them where one is
    asked for: time grows with (n + m)^2 d, memory with (n + m) d, and nothing of size n x m is ever
    built. Differentiable once, by ``backward`` and ``torch.autograd.grad``, not by ``torch.func``.
    Squared distances come from products, with an error near the dtype's resolution times the
    spread's square: in float32, bandwidths of less than a thousandth of the spread are noise.

    Args:
        x: one sample.
        y: the other sample.
        bandwidth: s > 0, or several; a tensor of them (0-d or 1-d) is not looked at, and gets no
            gradient. None: five, with 2 s^2 = 1/4, 1/2, 1, 2 and 4 times the mean squared distance
            among all rows, through which no gradient flows; rows that differ by rounding alone
            give 0.
        unbiased: leave out the pairs of a row with itself, so that equal distributions give 0 on
            average; single values may then be negative. Else 0 at least, 2 at most.

    Returns:
        A scalar in float32 or wider. An empty sample gives 0, if ``unbiased`` one row as well.

    Raises:
        ValueError: if widths differ, a bandwidth is not above 0, or there is none.
        TypeError: if samples are not floating, or their dtypes differ.

    Source: Gretton et al. 2012, A Kernel Two-Sample Test, eq. 3 and 5; Long et al. 2015, Learning
    Transferable Features with Deep Adaptation Networks, for several bandwidths.
    Differs: the mean over bandwidths, not the sum.

    >>> mmd(torch.zeros(2, 1), torch.ones(3, 1), bandwidth=1.0)
    tensor(0.7869)
    """
    x, y = _samples(x, y)
    n, m = x.shape[0], y.shape[0]
    least = 2 if unbiased else 1
    if bandwidth is None:
        given = None
    elif isinstance(bandwidth, Tensor) and bandwidth.numel():
        given = bandwidth.detach().to(x).flatten()
    else:
        given = x.new_tensor(bandwidths("mmd", bandwidth))
    x, y, rate = _standardized(x, y, given)
    within_x, within_y = kernel_sum(x, None, rate), kernel_sum(y, None, rate)
    between = kernel_sum(x, y, rate) / max(n * m, 1)
    if unbiased:  # k(a, a) = 1
        within_x, within_y = within_x - n, within_y - m
    off = 1 if unbiased else 0
    value = within_x / max(n * (n - off), 1) + within_y / max(m * (m - off), 1) - 2 * between
    return value * float(min(n, m) >= least)


def bandwidths(owner: str, bandwidth: Any) -> tuple[int | float, ...]:
    """One bandwidth or several, as numbers; raise unless there is one and all are above 0."""
    if not isinstance(bandwidth, int | float | Sequence):  # a tensor, or of numpy
        bandwidth = bandwidth.tolist()
    several = tuple(bandwidth) if isinstance(bandwidth, Sequence) else (bandwidth,)
    if not several:
        raise ValueError(f"{owner}: bandwidth must not be an empty list; None chooses by distances")
    if not torch.compiler.is_compiling():  # a check would make a graph for each number
        for one in several:
            check_positive(owner, "bandwidth", one, "In units of distance.")
    return several


def _standardized(x: Tensor, y: Tensor, bandwidth: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both around 0 and within [-1, 1], and 1 / (2 s^2) of every bandwidth in their new unit.

    Distances do not depend on the origin; near it products lose fewer digits, and in a unit of the
    spread their squares neither overflow nor vanish.
    """
    rows = torch.cat([x, y]).detach()
    if not rows.numel():
        return x, y, x.new_ones(1)
    count, limits = rows.shape[0], torch.finfo(x.dtype)
    centre = (rows / count).sum(dim=0)
    rows = rows - centre
    unit = rows.abs().amax()
    # Gradients go with 1 / unit. Where the bandwidth goes with it as well, rounding would make
    # differences of rows that are copies of one.
    least = limits.tiny / limits.eps
    noise = least if bandwidth is not None else (8 * limits.eps * centre.abs().amax()).clamp(least)
    alike = unit <= noise
    unit = torch.where(alike, 1.0, unit)
    x, y = (torch.where(alike, 0.0, (one - centre) / unit) for one in (x, y))
    if bandwidth is None:
        # Rows are centred, so the sum over pairs of squared distances is 2 count times this.
        mean = 2 * (rows / unit).square().sum() / max(count - 1, 1)
        return x, y, 1 / (torch.where(alike, 1.0, mean) * x.new_tensor(FACTORS))
    # Products tell no rows apart that are closer than the most of these would.
    most = (1e3 / limits.eps) ** 0.5
    return x, y, (unit / bandwidth).clamp(max=most).square() / 2


def coral_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Squared distance of two covariance matrices:  |C_x - C_y|_F^2 / (4 d^2).

    Means do not matter. Covariances divide by n - 1 and are of size d x d.

    Args:
        x: one sample.
        y: the other sample.

    Returns:
        A scalar in float32 or wider. Fewer than two rows on a side have no covariance: 0.

    Raises:
        ValueError: if widths differ.
        TypeError: if samples are not floating, or their dtypes differ.

    Source: Sun and Saenko 2016, Deep CORAL: Correlation Alignment for Deep Domain Adaptation,
    eq. 1-3.

    >>> coral_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [5.0]]))
    tensor(1.)
    """
    x, y = _samples(x, y)
    difference = _covariance(x) - _covariance(y)
    value = difference.square().sum() / max(4 * x.shape[1] ** 2, 1)
    return value * float(min(x.shape[0], y.shape[0]) > 1)


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.sum(dim=0) / max(rows.shape[0], 1)
    with full_precision(rows):
        return centred.mT @ centred / max(rows.shape[0] - 1, 1)


def sliced_wasserstein(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    directions: Float[Tensor, "l d"] | None = None,
    num_projections: int = 64,
    order: Literal[1, 2] = 2,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """Mean over directions of the Wasserstein distance of projections, to the power ``order``.

    On a line the best transport goes by rank: sort both samples, pair equal quantiles, and average
    |a - b|^order; n and m may differ, exactly so. Time grows with (n + m) l (d + log(n + m)).

    Args:
        x: one sample.
        y: the other sample.
        directions: of any length but 0, one a row. None: drawn anew at every call.
        num_projections: how many are drawn.
        order: 2, or 1 for one that outliers move less.
        generator: of the directions; torch's global one if None, as a compiled graph needs.

    Returns:
        A scalar in float32 or wider: no root is taken, since it has no gradient at 0. An empty
        sample gives 0.

    Raises:
        ValueError: if widths differ, ``order`` is neither 1 nor 2, or there is no projection.
        TypeError: if samples are not floating, or their dtypes differ.

    Source: Bonneel et al. 2015, Sliced and Radon Wasserstein Barycenters of Measures; Lee et al.
    2019, Sliced Wasserstein Discrepancy for Unsupervised Domain Adaptation.

    >>> sliced_wasserstein(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [1.0], [3.0]]))
    tensor(5.)
    """
    x, y = _samples(x, y)
    if order not in (1, 2):
        raise ValueError(f"sliced_wasserstein: order must be 1 or 2, got {order}")
    if directions is None:
        check_at_least("sliced_wasserstein", "num_projections", num_projections, 1)
        shape = num_projections, x.shape[1]
        directions = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
    check_floating("directions", directions)
    check_ndim("directions", directions, "l d")
    check_last_dim("directions", directions, x.shape[1], "As wide as the samples.")
    check_at_least("sliced_wasserstein", "the number of directions", directions.shape[0], 1)
    n, m = x.shape[0], y.shape[0]
    unit = normalize(directions.to(x.dtype))
    with full_precision(x):
        left, right = (x @ unit.mT).sort(dim=0).values, (y @ unit.mT).sort(dim=0).values
    if min(n, m) == 0:
        return left.sum() + right.sum() if n == m else (left.sum() + right.sum()) * 0.0
    if n != m:
        # Quantiles change at i / n and j / m, on a grid of n m steps at i m and j n.
        steps = torch.arange(1, max(n, m) + 1, device=x.device)
        edges = torch.cat([steps[:n] * m, steps[:m] * n]).sort().values
        share = torch.diff(edges, prepend=edges.new_zeros(1)).to(x.dtype) / (n * m)
        left, right = left[(edges - 1) // m], right[(edges - 1) // n]
    else:
        share = x.new_full((n,), 1 / n)
    gap = left - right
    cost = gap.square() if order == 2 else gap.abs()
    return (cost * share[:, None]).sum() / unit.shape[0]


def _samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both, checked, in float32 or wider."""
    for name, rows in (("x", x), ("y", y)):
        check_floating(name, rows)
        check_ndim(name, rows, "n d")
    check_last_dim("y", y, x.shape[1], "Both samples live in one space.")
    if x.dtype != y.dtype:
        raise TypeError(f"x and y: expected one dtype, got {x.dtype} and {y.dtype}")
    wide = accumulation_dtype(x.dtype)
    return x.to(wide), y.to(wide)
