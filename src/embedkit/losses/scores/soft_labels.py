"""Learning from probabilities in place of class numbers."""

from jaxtyping import Float
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
_SCORES_HINT = "It divides the logits; 1 leaves them as they are."


def soft_label_cross_entropy(
    logits: Float[Tensor, "b c"],
    soft_labels: Float[Tensor, "b c"],
    *,
    temperature: float = 1.0,
    weight: Float[Tensor, " b"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Cross-entropy against probabilities:  row loss -sum_c p_c log softmax(s / t)_c.

    The probabilities may come from a teacher, ``(teacher / t).softmax(-1)``, from several
    annotators, or from labels that were mixed or propagated. Minus the entropy of the labels,
    which has no gradient, this is their divergence.

    Args:
        logits: the student's scores of each class; half precision is computed in float32.
        soft_labels: >= 0, rows that sum to 1; a constant. A row of zeros has no label and takes
            no part.
        temperature: > 0; it divides the logits, the labels are taken as they are.
        weight: importance of each row, >= 0.
        reduction: "mean" divides by the rows that have a label.

    Returns:
        A scalar in float32 or wider, or (b,) for "none"; rows without a label, and empty batches,
        give 0.

    Raises:
        ValueError: if shapes differ or ``temperature`` is not > 0.
        TypeError: if either is not floating.

    Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network, sec. 2.
    Differs: no factor t^2, which keeps gradients alike for different temperatures; multiply by it
    where this loss joins another.
    """
    check_positive("soft_label_cross_entropy", "temperature", temperature, _SCORES_HINT)
    check_floating("logits", logits)
    check_floating("soft_labels", soft_labels, "For class numbers use torch's cross_entropy.")
    check_same_shape(logits=logits, soft_labels=soft_labels)
    check_ndim("logits", logits, "b c")
    wide = accumulation_dtype(logits.dtype)
    labels = soft_labels.detach().to(wide)
    row = -(labels * (logits.to(wide) / temperature).log_softmax(dim=1)).sum(dim=1)
    if weight is not None:
        check_weight(weight, row.shape[0], "row")
        row = row * weight
    return reduce_rows(row, (labels != 0).any(dim=1), reduction)


class SoftLabelLoss(nn.Module):
    """:func:`soft_label_cross_entropy` with its settings; weights come with each call.

    Args:
        temperature: > 0; it divides the logits.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> SoftLabelLoss()(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]]))
    tensor(0.6931)
    """

    def __init__(self, temperature: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("SoftLabelLoss", "temperature", temperature, _SCORES_HINT)
        check_choice("SoftLabelLoss", "reduction", reduction, _REDUCTIONS)
        self.temperature, self.reduction = temperature, reduction

    def forward(
        self, logits: Tensor, soft_labels: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of logits (b, c) against probabilities (b, c)."""
        return soft_label_cross_entropy(
            logits,
            soft_labels,
            temperature=self.temperature,
            weight=weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"temperature={self.temperature:g}, reduction={self.reduction!r}"
