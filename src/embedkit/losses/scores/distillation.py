"""Learning to give the scores that a teacher gives, with labels or without."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_integer,
    check_rows,
    check_same_shape,
    check_weight,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype

Task = Literal["classes", "binary", "score"]
_TASKS = ("classes", "binary", "score")
_REDUCTIONS = ("mean", "sum", "none")
_MARGIN_HINT = (
    "A two-logit teacher of a one-logit student gives its margin: binary_margin(teacher)."
)


def _pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 or wider, (b, c), the teacher as a constant."""
    check_floating("student", student)
    check_same_shape(_MARGIN_HINT, student=student, teacher=teacher)
    if student.ndim not in (1, 2):
        raise ValueError(
            f"student: expected (b,) scores or (b, c) logits, got shape {tuple(student.shape)}"
        )
    wide = accumulation_dtype(student.dtype)
    columns = (-1, 1) if student.ndim == 1 else student.shape
    return student.to(wide).reshape(columns), teacher.detach().to(wide).reshape(columns)


def _everyone(row: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    if weight is not None:
        check_weight(weight, row.shape[0], "row")
        row = row * weight
    return reduce_rows(row, torch.ones_like(row, dtype=torch.bool), reduction)


def _check_alpha(owner: str, alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"{owner}: alpha must be in [0, 1], got {alpha:g}. It is the teacher's share of the "
            "loss; 0.5 is usual."
        )


def binary_margin(logits: Float[Tensor, "b two"]) -> Float[Tensor, " b"]:
    """The one logit that two logits amount to:  t_1 - t_0, for a student with one output.

    Check that both models mean the same by class 1.

    Raises:
        ValueError: if ``logits`` is not (b, 2).

    Source: Barkan et al. 2019, Scalable Attentive Sentence-Pair Modeling via Distilled Sentence
    Embedding, the released code for binary tasks.

    >>> binary_margin(torch.tensor([[-1.0, 2.0]]))
    tensor([3.])
    """
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise ValueError(f"binary_margin: expected (b, 2) logits, got shape {tuple(logits.shape)}")
    return logits[:, 1] - logits[:, 0]


def score_regression(
    student: Float[Tensor, "b *c"],
    teacher: Shaped[Tensor, "b *c"],
    *,
    weight: Float[Tensor, " b"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Squared error to a teacher's scores:  row loss ||s - t||^2, summed over classes.

    No labels are needed, so unlabelled pairs teach as well. Give logits, not probabilities, which
    hardly differ where the teacher is sure; and bring both to one scale (0-5 or 0-1). With large
    logits the square dominates other losses: divide both by the teacher's standard deviation.

    Args:
        student: scores (b,) or logits (b, c); half precision is computed in float32.
        teacher: the same shape; a constant.
        weight: importance of each row, >= 0.
        reduction: "mean" over rows, "sum", or "none".

    Returns:
        A scalar in float32 or wider, or (b,) for "none"; 0 for an empty batch.

    Raises:
        ValueError: if shapes differ, (b, 1) and (b,) included: broadcast, they would silently
            compare every row with every other.
        TypeError: if ``student`` is not floating.

    Source: Barkan et al. 2019, Scalable Attentive Sentence-Pair Modeling via Distilled Sentence
    Embedding, the logit loss.
    """
    s, t = _pair(student, teacher)
    return _everyone((s - t).square().sum(dim=1), weight, reduction)


def logit_distillation(
    student: Float[Tensor, "b *c"],
    teacher: Shaped[Tensor, "b *c"],
    target: Shaped[Tensor, " b"],
    *,
    task: Task = "classes",
    alpha: float = 0.5,
    weight: Float[Tensor, " b"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Learn from labels and from a teacher:  (1 - alpha) task(s, y) + alpha ||s - t||^2.

    Without labels (alpha = 1) this is :func:`score_regression`.

    Args:
        student: scores (b,) or logits (b, c); half precision is computed in float32.
        teacher: the same shape; a constant. Key it by example, not by position in an order that
            is shuffled later, and make it without dropout.
        target: one label per row.
        task: what labels mean. "classes": integers, cross-entropy; "binary": 0 or 1 against one
            logit per row; "score": numbers, squared error.
        alpha: the teacher's share, in [0, 1].
        weight: importance of each row, >= 0.
        reduction: "mean" over rows, "sum", or "none".

    Returns:
        A scalar in float32 or wider, or (b,) for "none"; 0 for an empty batch.

    Raises:
        ValueError: if shapes or the task do not fit, or ``alpha`` is outside [0, 1].
        TypeError: if ``student`` is not floating, or "classes" are not integers.

    Source: Barkan et al. 2019, Scalable Attentive Sentence-Pair Modeling via Distilled Sentence
    Embedding, the training objective.
    """
    _check_alpha("logit_distillation", alpha)
    check_choice("logit_distillation", "task", task, _TASKS)
    s, t = _pair(student, teacher)
    check_rows("target", target, s.shape[0], "One label per row.")
    if task != "classes" and s.shape[1] != 1:
        raise ValueError(
            f"logit_distillation: task={task!r} needs one logit per row, got shape "
            f"{tuple(student.shape)}. {_MARGIN_HINT}"
        )
    if task == "classes":
        check_integer("target", target, "Class numbers; for graded labels use task='score'.")
        labelled = F.cross_entropy(s, target.long(), reduction="none")
    elif task == "binary":
        labelled = F.binary_cross_entropy_with_logits(s[:, 0], target.to(s.dtype), reduction="none")
    else:
        labelled = (s[:, 0] - target.to(s.dtype)).square()
    row = (1 - alpha) * labelled + alpha * (s - t).square().sum(dim=1)
    return _everyone(row, weight, reduction)


class ScoreRegressionLoss(nn.Module):
    """:func:`score_regression` with its setting; weights come with each call.

    Args:
        reduction: "mean", "sum" or "none".

    >>> ScoreRegressionLoss()(torch.tensor([0.8, -1.5]), torch.tensor([2.1, -2.4]))
    tensor(1.2500)
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("ScoreRegressionLoss", "reduction", reduction, _REDUCTIONS)
        self.reduction = reduction

    def forward(self, student: Tensor, teacher: Tensor, *, weight: Tensor | None = None) -> Tensor:
        """The loss of scores (b,) or (b, c) against the teacher's."""
        return score_regression(student, teacher, weight=weight, reduction=self.reduction)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"reduction={self.reduction!r}"


class LogitDistillationLoss(nn.Module):
    """:func:`logit_distillation` with its settings; weights come with each call.

    Args:
        task: "classes", "binary" or "score".
        alpha: the teacher's share, in [0, 1].
        reduction: "mean", "sum" or "none".

    >>> loss = LogitDistillationLoss("binary")
    >>> loss(torch.tensor([0.8, -1.5]), torch.tensor([2.1, -2.4]), torch.tensor([1, 0]))
    tensor(0.7681)
    """

    def __init__(
        self, task: Task = "classes", alpha: float = 0.5, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_choice("LogitDistillationLoss", "task", task, _TASKS)
        _check_alpha("LogitDistillationLoss", alpha)
        check_choice("LogitDistillationLoss", "reduction", reduction, _REDUCTIONS)
        self.task, self.alpha, self.reduction = task, alpha, reduction

    def forward(
        self, student: Tensor, teacher: Tensor, target: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of scores (b,) or (b, c) against the teacher's and against labels (b,)."""
        return logit_distillation(
            student,
            teacher,
            target,
            task=self.task,
            alpha=self.alpha,
            weight=weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"task={self.task!r}, alpha={self.alpha:g}, reduction={self.reduction!r}"
