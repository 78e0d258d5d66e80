"""Cross-entropy of one classification by every nested width."""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_floating, check_integer, check_ndim, check_rows
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses._targets import IGNORED, explained_classes
from embedkit.ops import accumulation_dtype


def _check_smoothing(owner: str, label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"{owner}: label_smoothing must be from 0 to 1, got {label_smoothing:g}. 0.1 is usual."
        )


def matryoshka_cross_entropy(
    logits: Float[Tensor, "g b c"],
    target: Int[Tensor, " b"],
    *,
    weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Sum over widths of the cross-entropy of one target:  sum_m w_m CE(logits_m, y).

    Args:
        logits: of every width, as :class:`embedkit.heads.MatryoshkaClassifier` gives them; half
            precision is computed in float32.
        target: class of each row; -100 leaves the row out.
        weights: factor of each width; None: 1.
        label_smoothing: share of the target spread evenly over all classes.
        reduction: "mean" divides by the rows that have a class.

    Returns:
        A scalar, or (b,) for "none", in float32 or wider. Without a row that has a class it is 0.

    Raises:
        ValueError: if shapes or the number of weights do not fit, or a setting is out of range.
        TypeError: if logits are not floating or targets not integers.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, eq. 1.

    >>> import torch
    >>> matryoshka_cross_entropy(torch.zeros(3, 2, 10), torch.tensor([4, 7]))
    tensor(6.9078)
    """
    check_floating("logits", logits)
    check_ndim("logits", logits, "g b c")
    check_integer("target", target)
    check_ndim("target", target, "b")
    check_rows("target", target, logits.shape[1], "It needs one class for each row of the batch.")
    _check_smoothing("matryoshka_cross_entropy", label_smoothing)
    if weights is not None and len(weights) != logits.shape[0]:
        raise ValueError(
            f"matryoshka_cross_entropy: expected {logits.shape[0]} weights, one per width, "
            f"got {len(weights)}"
        )
    real = target != IGNORED
    # A row left out may hold anything, NaN too, and gets no gradient.
    wide = logits.to(accumulation_dtype(logits.dtype)).masked_fill(~real[:, None], 0.0)
    place = target.long().masked_fill(~real, 0)
    with explained_classes("matryoshka_cross_entropy", "target", place, logits.shape[-1]):
        each = F.cross_entropy(
            rearrange(wide, "g b c -> (g b) c"),
            repeat(place, "b -> (g b)", g=logits.shape[0]),
            label_smoothing=label_smoothing,
            reduction="none",
        )
    each = rearrange(each, "(g b) -> g b", b=target.shape[0], g=logits.shape[0])
    if weights is not None:
        each = each * each.new_tensor(weights)[:, None]
    return reduce_rows(each.sum(dim=0), real, reduction)


class MatryoshkaCrossEntropyLoss(nn.Module):
    """:func:`matryoshka_cross_entropy` with its settings.

    Args:
        weights: factor of each width; None: 1.
        label_smoothing: share of the target spread evenly over all classes; 0.1 in the paper's
            recipe for ImageNet.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> loss = MatryoshkaCrossEntropyLoss(weights=[1.0, 0.5, 0.5])
    >>> loss(torch.zeros(3, 2, 10), torch.tensor([4, 7]))
    tensor(4.6052)
    """

    def __init__(
        self,
        weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check_smoothing("MatryoshkaCrossEntropyLoss", label_smoothing)
        self.weights = None if weights is None else [float(weight) for weight in weights]
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (g, b, c) against classes (b,)."""
        return matryoshka_cross_entropy(
            logits,
            target,
            weights=self.weights,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"weights={self.weights}, label_smoothing={self.label_smoothing:g}, "
            f"reduction={self.reduction!r}"
        )
