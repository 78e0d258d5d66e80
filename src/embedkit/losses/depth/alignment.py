"""Pull one embedding towards another that is held fixed."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_ndim,
    check_positive,
    check_same_shape,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype

_HINT = "It divides the coordinates; 0.3 and 1 are usual."


def check_alignment(
    owner: str, kl_weight: float, kl_temperature: float, temperature_name: str = "kl_temperature"
) -> None:
    """Raise unless the temperature is > 0 and the weight >= 0."""
    check_positive(owner, temperature_name, kl_temperature, _HINT)
    if not kl_weight >= 0:
        raise ValueError(f"{owner}: kl_weight must be >= 0, got {kl_weight:g}")


def _check(owner: str, temperature: float, kl_weight: float, mse_weight: float, how: str) -> None:
    check_alignment(owner, kl_weight, temperature, "temperature")
    if not mse_weight >= 0:
        raise ValueError(f"{owner}: mse_weight must be >= 0, got {mse_weight:g}")
    check_choice(owner, "reduction", how, ("mean", "sum", "none"))


def embedding_alignment(
    student: Float[Tensor, "b d"],
    teacher: Float[Tensor, "b d"],
    *,
    temperature: float = 1.0,
    kl_weight: float = 1.0,
    mse_weight: float = 0.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Divergence of two embeddings' softmax over coordinates, and their squared distance.

    Row loss:  kl_weight t KL(softmax(y / t) || softmax(x / t)) + mse_weight mean_j (x_j - y_j)^2,
    with student x and teacher y. The embeddings are not normalised. A constant added to all
    coordinates of a row changes its KL not at all.

    Args:
        student: embeddings to train; half precision is computed in float32.
        teacher: embeddings of the same shape; a constant.
        temperature: t > 0, in units of the coordinates.
        kl_weight: factor of the divergence, >= 0.
        mse_weight: factor of the mean squared difference, >= 0.
        reduction: "mean" or "sum" over rows, or "none".

    Returns:
        A scalar, or (b,) for "none", in float32 or wider. 0 where both agree, and for an empty
        batch; non-finite input gives a non-finite loss.

    Raises:
        ValueError: if shapes differ, ``temperature`` is not > 0 or a weight is negative.
        TypeError: if embeddings are not floating.

    Source: Li et al. 2024, 2D Matryoshka Sentence Embeddings, the alignment of layers; Li et al.
    2025, ESE: Espresso Sentence Embeddings, learn-to-compress (both terms).
    Differs: the teacher is always a constant, which the released code of both left out; the
    divergence is scaled by t, as in their later code, not by t^2.
    """
    _check("embedding_alignment", temperature, kl_weight, mse_weight, reduction)
    for name, x in (("student", student), ("teacher", teacher)):
        check_floating(name, x)
        check_ndim(name, x, "b d")
    hint = "Cut both to one width."
    check_same_shape(hint, student=student, teacher=teacher)
    x = student.to(accumulation_dtype(student.dtype))
    y = teacher.detach().to(x.dtype)
    row = x.sum(dim=1) * 0.0  # keeps the graph, and what is not finite
    if kl_weight:
        wanted, given = ((z / temperature).log_softmax(dim=1) for z in (y, x))
        row = row + kl_weight * temperature * F.kl_div(
            given, wanted, reduction="none", log_target=True
        ).sum(dim=1)
    if mse_weight:
        row = row + mse_weight * (x - y).square().mean(dim=1)
    taking_part = torch.ones_like(row, dtype=torch.bool)
    return reduce_rows(row, taking_part, reduction)


class EmbeddingAlignmentLoss(nn.Module):
    """:func:`embedding_alignment` with its settings.

    Args:
        temperature: > 0, in units of the coordinates.
        kl_weight: factor of the divergence.
        mse_weight: factor of the mean squared difference.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> student = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
    >>> teacher = torch.tensor([[2.0, 0.0, -2.0], [0.0, 1.0, 0.0]])
    >>> EmbeddingAlignmentLoss()(student, teacher)
    tensor(0.1021)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        kl_weight: float = 1.0,
        mse_weight: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check("EmbeddingAlignmentLoss", temperature, kl_weight, mse_weight, reduction)
        self.temperature, self.reduction = temperature, reduction
        self.kl_weight, self.mse_weight = kl_weight, mse_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of embeddings (b, d) against those of a teacher (b, d)."""
        return embedding_alignment(
            student,
            teacher,
            temperature=self.temperature,
            kl_weight=self.kl_weight,
            mse_weight=self.mse_weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"temperature={self.temperature:g}, kl_weight={self.kl_weight:g}, "
            f"mse_weight={self.mse_weight:g}, reduction={self.reduction!r}"
        )
