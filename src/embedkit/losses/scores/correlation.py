"""Losses that are small where predicted scores follow the wanted ones, whatever their scale."""

from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from embedkit._checks import check_choice, check_positive
from embedkit.losses.scores._scores import (
    TEMPERATURE_HINT,
    check_scores,
    connected_zero,
    tells_apart,
)
from embedkit.ops import normalize
from embedkit.ops.ranks import average_ranks

ListReduction = Literal["sum", "mean"]
_LISTS = ("sum", "mean")
_EPS_HINT = "It is the least variance that counts, far below that of real scores."


def _largest(x: Tensor) -> Tensor:
    return x.detach().abs().amax() if x.shape[0] else x.new_ones(())


def pearson_loss(
    pred: Float[Tensor, " n"], target: Shaped[Tensor, " n"], *, eps: float = 1e-8
) -> Float[Tensor, ""]:
    """One minus Pearson's correlation of predicted and wanted scores.

    1 - cov(x, y) / sqrt(max(var x, eps) var y),  with moments over the list; in [0, 2]. Neither
    the scale nor the offset of either side matters (as long as var x >= eps), the order of the
    rows does not either. One list is one estimate: below about 16 pairs it is mostly noise.

    Args:
        pred: predicted scores, e.g. cosines of pairs; half precision is computed in float32.
        target: wanted scores on any scale; a constant.
        eps: where all predictions (nearly) agree their variance counts as this, so that the
            gradient stays finite and still drives them apart.

    Returns:
        A scalar in float32 or wider. 0 with a zero gradient where all targets are equal, for one
        pair and for none; a non-finite entry makes it NaN.

    Raises:
        ValueError: if shapes differ or ``eps`` is not > 0.
        TypeError: if ``pred`` is not floating.

    Source: Zhang et al. 2025, CoDiEmb: A Collaborative yet Distinct Framework for Unified
    Representation Learning in Information Retrieval and Semantic Textual Similarity, the Pearson
    term of its similarity loss.
    Differs: ``eps`` bounds the variance from below, in place of the denominator; above it the
    coefficient is exact.
    """
    check_positive("pearson_loss", "eps", eps, _EPS_HINT)
    x, y = check_scores(pred, target)
    rows = max(x.shape[0], 1)
    zero, informative = connected_zero(x, y), tells_apart(y)
    x = x - x.sum() / rows
    y = y if y.is_floating_point() else y.to(x.dtype)
    y = y - y.sum() / rows
    # Deviations are divided by the largest one first, so that no square over- or underflows.
    least = eps**0.5
    x_largest, y_largest = (_largest(side) for side in (x, y))
    x_largest = x_largest.clamp(min=least)
    x = x / x_largest
    y = normalize(y / y_largest.masked_fill(~informative, 1.0)).masked_fill(~informative, 0.0)
    y = y.to(x.dtype)
    length = x.square().sum().clamp(min=rows * (least / x_largest).square()).sqrt()
    return informative.to(x.dtype) - (x * y).sum() / length + zero


class PearsonLoss(nn.Module):
    """:func:`pearson_loss` with its setting.

    Args:
        eps: the least variance of predictions that counts.

    >>> import torch
    >>> PearsonLoss()(torch.tensor([0.9, 0.2, 0.5, 0.4]), torch.tensor([5.0, 1.0, 3.0, 3.0]))
    tensor(0.0293)
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        check_positive("PearsonLoss", "eps", eps, _EPS_HINT)
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss of predicted scores (n,) against wanted scores (n,)."""
        return pearson_loss(pred, target, eps=self.eps)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"eps={self.eps:g}"


def rank_kl_loss(
    pred: Float[Tensor, " n"],
    target: Shaped[Tensor, " n"],
    *,
    temperature: float = 0.05,
    reduction: ListReduction = "sum",
) -> Float[Tensor, ""]:
    """Divergence of the predicted scores' softmax from that of the ranks they should have.

    KL(P || Q),  P = softmax(g / t),  Q = softmax(x / t),  over the list, with the ideal score
    g_i = (rank of y_i - 1) / (n - 1) in [0, 1], ties at their mean rank. Only the order of the
    targets matters; a constant added to all predictions does not. At t = 0.05 and n > 20 nearly
    all of P lies on the top ranks and the rest has next to no gradient: combine it with
    :func:`pearson_loss`.

    Args:
        pred: predicted scores, e.g. cosines of pairs; half precision is computed in float32.
        target: wanted scores on any scale, compared exactly; a constant.
        temperature: > 0, in units of ``pred``.
        reduction: "sum" is the divergence of the list; "mean" divides it by n, to which the
            paper's weight 5 belongs.

    Returns:
        A scalar in float32 or wider. 0 with a zero gradient where all targets are equal, for
        one pair and for none; a non-finite entry makes it NaN.

    Raises:
        ValueError: if shapes differ, ``temperature`` is not > 0, or ``reduction`` is another.
        TypeError: if ``pred`` is not floating.

    Source: Zhang et al. 2025, CoDiEmb: A Collaborative yet Distinct Framework for Unified
    Representation Learning in Information Retrieval and Semantic Textual Similarity, the rank KL
    term of its similarity loss, where "mean" is the released code.
    Differs: a list of equal targets gives 0, not the divergence from the uniform distribution.
    """
    check_positive("rank_kl_loss", "temperature", temperature, TEMPERATURE_HINT)
    check_choice("rank_kl_loss", "reduction", reduction, _LISTS)
    x, y = check_scores(pred, target)
    rows = x.shape[0]
    ideal = (average_ranks(y).to(x.dtype) - 1) / max(rows - 1, 1)
    wanted = (ideal / temperature).log_softmax(dim=0)
    terms = wanted.exp() * (wanted - (x / temperature).log_softmax(dim=0))
    total = terms.sum() * tells_apart(y)
    return total / (max(rows, 1) if reduction == "mean" else 1) + connected_zero(x, y)


class RankKLLoss(nn.Module):
    """:func:`rank_kl_loss` with its settings.

    Args:
        temperature: > 0, in units of the predicted scores.
        reduction: "sum", or "mean" over the list.

    >>> import torch
    >>> loss = RankKLLoss(temperature=0.5)
    >>> loss(torch.tensor([0.9, 0.2, 0.5, 0.4]), torch.tensor([5.0, 1.0, 3.0, 3.0]))
    tensor(0.0153)
    """

    def __init__(self, temperature: float = 0.05, reduction: ListReduction = "sum") -> None:
        super().__init__()
        check_positive("RankKLLoss", "temperature", temperature, TEMPERATURE_HINT)
        check_choice("RankKLLoss", "reduction", reduction, _LISTS)
        self.temperature, self.reduction = temperature, reduction

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss of predicted scores (n,) against wanted scores (n,)."""
        return rank_kl_loss(pred, target, temperature=self.temperature, reduction=self.reduction)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"temperature={self.temperature:g}, reduction={self.reduction!r}"
