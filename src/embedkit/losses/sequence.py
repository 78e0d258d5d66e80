"""Cross-entropy of padded sequences, whose first pad is the end token."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from embedkit._checks import check_choice, check_floating, check_integer, check_mask
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses._targets import IGNORED, explained_classes
from embedkit.ops import accumulation_dtype


def sequence_cross_entropy(
    logits: Float[Tensor, "*b n v"],
    targets: Int[Tensor, "*b n"],
    pad_id: int,
    *,
    pad_is_end: bool = True,
    mask: Bool[Tensor, "*b"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """Cross-entropy of each token, the first pad after a sentence included, further pads not.

    Token loss: logsumexp_j(z_tj) - z_t,y(t),  over tokens t with  cumsum_t(y = pad) <= 1. Targets
    of -100 (labels of Hugging Face) don't count.

    Where one id serves as padding and as end of the text, as with GPT-2, ignoring the id would
    leave the end unlearned: the first pad is the end, and counts. Padding is on the right; a
    sequence that fills all n places has no end.

    Args:
        logits: at place t those of token t, i.e. of a decoder that has read the tokens before t.
        targets: token ids.
        pad_id: the id of padding.
        pad_is_end: False where the end has an id of its own, so all pads are left out.
        mask: False for whole sequences of padding, such as missing steps of a text. None: all real.
        reduction: "mean" divides by the number of tokens that count.

    Returns:
        A scalar, or the shape of ``targets`` for "none", in float32 or wider; 0 at tokens that
        don't count, whose logits may hold anything, and 0 with a connected graph if none does.

    Raises:
        ValueError: if shapes differ, ``pad_id`` is to be predicted and not in the vocabulary, or a
            target that counts is not; if padding stands left of tokens (looked at on a CPU,
            outside compiled graphs).
        TypeError: if ``logits`` is not floating, ``targets`` not integers or ``mask`` not bool.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, the reconstruction loss.

    >>> sequence_cross_entropy(torch.zeros(1, 4, 8), torch.tensor([[5, 7, 0, 0]]), 0)
    tensor(2.0794)
    """
    check_floating("logits", logits)
    check_integer("targets", targets, "They are token ids.")
    if logits.ndim < 2 or logits.shape[:-1] != targets.shape:
        raise ValueError(
            "sequence_cross_entropy: expected logits of shape (*targets, vocabulary), a place per "
            f"target token, got logits {tuple(logits.shape)}, targets {tuple(targets.shape)}. A "
            "decoder with a prefix gives one place more: drop the last, or give it one id less."
        )
    if pad_is_end and not 0 <= pad_id < logits.shape[-1]:
        raise ValueError(
            f"sequence_cross_entropy: pad_id={pad_id} is predicted as the end of a sentence, so it "
            f"must be one of {logits.shape[-1]} ids. With another end token pass pad_is_end=False."
        )
    padding = targets == pad_id
    real = targets != IGNORED
    counts = real & ((padding.cumsum(dim=-1) <= 1) if pad_is_end else ~padding)
    if pad_is_end and targets.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_side(real & ~padding, padding)
    if mask is not None:
        check_mask(mask, targets, "targets", "mask")
        counts = counts & rearrange(mask, "... -> ... 1")
    counts = counts.flatten()
    rows = rearrange(logits.to(accumulation_dtype(logits.dtype)), "... v -> (...) v")
    rows = rows.masked_fill(~rearrange(counts, "t -> t 1"), 0.0)
    ids = targets.flatten().long().masked_fill(~counts, 0)
    with explained_classes("sequence_cross_entropy", "targets", ids, rows.shape[-1]):
        each = F.cross_entropy(rows, ids, reduction="none")
    loss = reduce_rows(each, counts, reduction)
    return loss.reshape(targets.shape) if reduction == "none" else loss


def _check_side(token: Tensor, padding: Tensor) -> None:
    """Raise where a token follows padding: the sentence would end before it began."""
    late = (token & (padding.cumsum(dim=-1) > 0)).any(dim=-1).flatten().nonzero()
    if late.numel():
        raise ValueError(
            "sequence_cross_entropy: padding must be on the right, got tokens behind padding in "
            f"row {int(late[0])}, where the first pad would be the end. Pad on the right, or pass "
            "pad_is_end=False."
        )


class SequenceCrossEntropyLoss(nn.Module):
    """:func:`sequence_cross_entropy` with its settings.

    Args:
        pad_id: the id of padding.
        pad_is_end: whether the first pad is the end token, and counts.
        reduction: "mean", "sum" or "none".

    >>> SequenceCrossEntropyLoss(0)(torch.zeros(1, 4, 8), torch.tensor([[5, 7, 0, 0]]))
    tensor(2.0794)
    """

    def __init__(self, pad_id: int, pad_is_end: bool = True, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("SequenceCrossEntropyLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.pad_id, self.pad_is_end, self.reduction = pad_id, pad_is_end, reduction

    def forward(self, logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of (*b, n, v) logits for (*b, n) ids; ``mask`` is (*b)."""
        return sequence_cross_entropy(
            logits,
            targets,
            self.pad_id,
            pad_is_end=self.pad_is_end,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"pad_id={self.pad_id}, pad_is_end={self.pad_is_end}, reduction={self.reduction!r}"
