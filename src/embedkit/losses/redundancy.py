"""Losses without negatives: two views agree, and features do not repeat each other."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_floating, check_ndim, check_positive, check_same_shape
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops._precision import full_precision

_VIEWS = "Row i of one view goes with row i of the other."


def vicreg(
    first: Float[Tensor, "b d"],
    second: Float[Tensor, "b d"],
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    eps: float = 1e-4,
) -> Float[Tensor, ""]:
    """Two views agree, every feature keeps a spread of 1, and features are uncorrelated.

    invariance: mean of (x - y)^2 over rows and features; variance: mean over features of
    max(0, 1 - sqrt(var + eps)), the average of both views; covariance: sum over pairs of
    different features of cov^2, divided by d, the sum of both views. Variances and covariances
    divide by b - 1. Of size d x d are the covariances alone, of size b x b nothing.

    Args:
        first: projections of one view, not normalised.
        second: projections of the other view, row by row.
        invariance_weight: lambda in the paper.
        variance_weight: mu in the paper.
        covariance_weight: nu in the paper.
        eps: > 0, keeps the derivative of the square root finite.

    Returns:
        A scalar in float32 or wider. One row has no variance: only the first term is left. An
        empty batch gives 0.

    Raises:
        ValueError: if the views differ in shape or ``eps`` is not > 0.
        TypeError: if they are not floating.

    Source: Bardes et al. 2022, VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning, eq. 1-6.
    Differs: invariance is divided by d, and the variance terms are averaged instead of added, as
    in the authors' code and in pytorch-metric-learning: the weights 25, 25, 1 belong to that form.
    """
    check_positive("vicreg", "eps", eps)
    x, y = _views(first, second)
    rows, width = x.shape
    agreement = (x - y).square().sum() / max(rows * width, 1)
    spread, overlap = x.new_zeros(()), x.new_zeros(())
    for view in (x, y):
        centred = _centred(view)
        covariance = _product(centred, centred) / max(rows - 1, 1)
        deviation = (covariance.diagonal() + eps).sqrt()
        spread = spread + (1.0 - deviation).relu().sum() / (2 * max(width, 1))
        overlap = overlap + _off_diagonal(covariance).square().sum() / max(width, 1)
    statistics = variance_weight * spread + covariance_weight * overlap
    return invariance_weight * agreement + statistics * float(rows > 1)


def barlow_twins(
    first: Float[Tensor, "b d"],
    second: Float[Tensor, "b d"],
    *,
    redundancy_weight: float = 5e-3,
) -> Float[Tensor, ""]:
    """Bring the cross-correlation of two views' features to the identity.

    C_ij = sum_b x_bi y_bj / (|x_i| |y_j|)  with features centred over the batch; the loss is
    sum_i (1 - C_ii)^2 + weight * sum_{i != j} C_ij^2.  Of size d x d is C alone.

    Args:
        first: projections of one view, not normalised.
        second: projections of the other view, row by row.
        redundancy_weight: lambda in the paper.

    Returns:
        A scalar in float32 or wider. A constant feature has correlation 0 and no gradient. Fewer
        than two rows have no correlations and give 0 with a connected graph.

    Raises:
        ValueError: if the views differ in shape.
        TypeError: if they are not floating.

    Source: Zbontar et al. 2021, Barlow Twins: Self-Supervised Learning via Redundancy Reduction,
    eq. 1-2.
    Differs: exact eq. 2; the authors' code standardises by batch normalisation, whose 1e-5 beside
    the variance shrinks the correlation of features with little variance.
    """
    x, y = (normalize(_centred(view).mT).mT for view in _views(first, second))
    correlation = _product(x, y)
    agreement = (1.0 - correlation.diagonal()).square().sum()
    overlap = _off_diagonal(correlation).square().sum()
    return (agreement + redundancy_weight * overlap) * float(x.shape[0] > 1)


def _views(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    check_floating("first", first)
    check_floating("second", second)
    check_ndim("first", first, "b d")
    check_same_shape(_VIEWS, first=first, second=second)
    wide = accumulation_dtype(torch.promote_types(first.dtype, second.dtype))
    return first.to(wide), second.to(wide)


def _centred(view: Tensor) -> Tensor:
    return view - view.sum(dim=0) / max(view.shape[0], 1)


def _product(x: Tensor, y: Tensor) -> Tensor:
    with full_precision(x):
        return x.mT @ y


def _off_diagonal(square: Tensor) -> Tensor:
    return square - square.diagonal().diag()


class VICRegLoss(nn.Module):
    """:func:`vicreg` with its settings.

    Args:
        invariance_weight: lambda in the paper.
        variance_weight: mu in the paper.
        covariance_weight: nu in the paper.
        eps: > 0, keeps the derivative of the square root finite.

    >>> import torch
    >>> VICRegLoss()(torch.eye(2), torch.eye(2))
    tensor(7.8206)
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        check_positive("VICRegLoss", "eps", eps)
        self.invariance_weight, self.variance_weight = invariance_weight, variance_weight
        self.covariance_weight, self.eps = covariance_weight, eps

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views (b, d)."""
        return vicreg(
            first,
            second,
            invariance_weight=self.invariance_weight,
            variance_weight=self.variance_weight,
            covariance_weight=self.covariance_weight,
            eps=self.eps,
        )


class BarlowTwinsLoss(nn.Module):
    """:func:`barlow_twins` with its setting.

    Args:
        redundancy_weight: lambda in the paper.

    >>> import torch
    >>> BarlowTwinsLoss()(torch.eye(2), torch.eye(2))
    tensor(0.0100)
    """

    def __init__(self, redundancy_weight: float = 5e-3) -> None:
        super().__init__()
        self.redundancy_weight = redundancy_weight

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views (b, d)."""
        return barlow_twins(first, second, redundancy_weight=self.redundancy_weight)
