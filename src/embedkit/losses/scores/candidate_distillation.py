"""Learning a teacher's order of each query's candidates: by distribution, or by margins."""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_ndim,
    check_positive,
    check_same_shape,
    check_weight,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype

_REDUCTIONS = ("mean", "sum", "none")
_SCORES_HINT = "It divides the scores of both; 0.05 suits cosines, 1 and more suits logits."


def _real(mask: Tensor | None, scores: Tensor, entry: str) -> Tensor:
    """The mask, checked; all True where there is none."""
    if mask is None:
        return torch.ones_like(scores, dtype=torch.bool)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected bool (True is a real {entry}), got {mask.dtype}")
    check_same_shape(scores=scores, mask=mask)
    return mask


def _weighted(
    row: Tensor, taking_part: Tensor, weight: Tensor | None, reduction: Reduction
) -> Tensor:
    if weight is not None:
        check_weight(weight, row.shape[0], "query")
        row = row * weight
    return reduce_rows(row, taking_part, reduction)


def similarity_distillation(
    student: Float[Tensor, "q k"],
    teacher: Shaped[Tensor, "q k"],
    *,
    temperature: float = 0.05,
    mask: Bool[Tensor, "q k"] | None = None,
    weight: Float[Tensor, " q"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """Divergence of the student's softmax over candidates from the teacher's.

    Row loss: KL(P || Q),  P = softmax(teacher / t),  Q = softmax(student / t),  over the row's
    candidates: its positive, the rest of the batch, hard negatives. Only scores are compared, so
    widths may differ: for embeddings pass ``normalize(q) @ normalize(k).T`` of each model. An
    offset of a row's scores does not matter.

    Args:
        student: scores of each query's candidates; half precision is computed in float32.
        teacher: its scores of the same candidates; a constant.
        temperature: > 0, in units of the scores. At 0.01 the teacher is all but one-hot and adds
            nothing to labels; 0.05 was best for cosines.
        mask: True where a candidate is real, for both sides; what stands elsewhere never matters.
            None: all.
        weight: importance of each query, >= 0.
        reduction: "mean" divides by the queries that have a candidate.

    Returns:
        A scalar in float32 or wider, or (q,) for "none"; queries without a candidate, and empty
        batches, give 0. One candidate has nothing to teach and gives 0, too.

    Raises:
        ValueError: if shapes differ or ``temperature`` is not > 0.
        TypeError: if ``student`` is not floating or ``mask`` is not bool.

    Source: Zhao et al. 2025, KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A
    Versatile Embedding Model, the contrastive distillation.
    Differs: no factor t^2 (sentence-transformers' DistillKLDivLoss has one).
    """
    check_positive("similarity_distillation", "temperature", temperature, _SCORES_HINT)
    check_floating("student", student)
    check_same_shape("One score per query and candidate.", student=student, teacher=teacher)
    check_ndim("student", student, "q k")
    wide = accumulation_dtype(student.dtype)
    mask = _real(mask, student, "candidate")
    lowest = torch.finfo(wide).min / 2
    log_p, log_q = (
        (scores.to(wide) / temperature).masked_fill(~mask, lowest).log_softmax(dim=1)
        for scores in (teacher.detach(), student)
    )
    row = (log_p.exp() * (log_p - log_q)).masked_fill(~mask, 0.0).sum(dim=1)
    return _weighted(row, mask.any(dim=1), weight, reduction)


class SimilarityDistillationLoss(nn.Module):
    """:func:`similarity_distillation` with its settings; mask and weights come with each call.

    Args:
        temperature: > 0, in units of the scores.
        reduction: "mean", "sum" or "none".

    >>> teacher, student = torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[0.7, 0.6, 0.2]])
    >>> SimilarityDistillationLoss(temperature=0.05)(student, teacher)
    tensor(0.1246)
    """

    def __init__(self, temperature: float = 0.05, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("SimilarityDistillationLoss", "temperature", temperature, _SCORES_HINT)
        check_choice("SimilarityDistillationLoss", "reduction", reduction, _REDUCTIONS)
        self.temperature, self.reduction = temperature, reduction

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of scores (q, k) against the teacher's (q, k)."""
        return similarity_distillation(
            student,
            teacher,
            temperature=self.temperature,
            mask=mask,
            weight=weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"temperature={self.temperature:g}, reduction={self.reduction!r}"


def margin_mse(
    positive: Float[Tensor, " b"],
    negative: Float[Tensor, "b h"],
    teacher_margin: Shaped[Tensor, "b h"],
    *,
    mask: Bool[Tensor, "b h"] | None = None,
    weight: Float[Tensor, " b"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Squared error of margins:  mean over negatives j of ((s_p - s_j) - (t_p - t_j))^2.

    How far the positive is above each negative is learned; how high both are is left free, so
    teacher and student may score on different offsets (not scales).

    Args:
        positive: the student's score of each query and its positive.
        negative: its scores of the query's own negatives.
        teacher_margin: ``teacher_positive[:, None] - teacher_negative``; a constant.
        mask: True where a negative is real. None: all.
        weight: importance of each query, >= 0.
        reduction: "mean" divides by the queries that have a negative.

    Returns:
        A scalar in float32 or wider, or (b,) for "none"; queries without a negative, and empty
        batches, give 0.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if scores are not floating or ``mask`` is not bool.

    Source: Hofstätter et al. 2020, Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation, the Margin-MSE loss.
    """
    check_floating("positive", positive)
    check_floating("negative", negative)
    check_same_shape(
        "One margin per negative: teacher_positive[:, None] - teacher_negative.",
        negative=negative,
        teacher_margin=teacher_margin,
    )
    if positive.ndim != 1 or negative.ndim != 2 or positive.shape[0] != negative.shape[0]:
        raise ValueError(
            "margin_mse: expected positive (b,) and negative (b, h), got "
            f"{tuple(positive.shape)} and {tuple(negative.shape)}. One negative: negative[:, None]."
        )
    wide = accumulation_dtype(negative.dtype)
    gap = positive.to(wide)[:, None] - negative.to(wide) - teacher_margin.detach().to(wide)
    mask = _real(mask, gap, "negative")
    count = mask.sum(dim=1)
    row = gap.masked_fill(~mask, 0.0).square().sum(dim=1) / count.clamp(min=1)
    return _weighted(row, count > 0, weight, reduction)


class MarginMSELoss(nn.Module):
    """:func:`margin_mse` with its setting; mask and weights come with each call.

    Args:
        reduction: "mean", "sum" or "none".

    >>> MarginMSELoss()(torch.tensor([3.0]), torch.tensor([[1.0]]), torch.tensor([[4.0]]))
    tensor(4.)
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("MarginMSELoss", "reduction", reduction, _REDUCTIONS)
        self.reduction = reduction

    def forward(
        self,
        positive: Tensor,
        negative: Tensor,
        teacher_margin: Tensor,
        *,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of scores (b,) and (b, h) against the teacher's margins (b, h)."""
        return margin_mse(
            positive,
            negative,
            teacher_margin,
            mask=mask,
            weight=weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"reduction={self.reduction!r}"
