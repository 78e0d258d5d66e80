"""What the losses on lists of predicted and wanted scores share."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from embedkit._checks import check_floating, check_ndim, check_same_shape
from embedkit.ops import accumulation_dtype

TEMPERATURE_HINT = "It divides the predicted scores; try 0.05 for cosine similarity."
_PAIRED = (
    "One wanted score per predicted one; for embeddings, predict the cosine of row i of one side "
    "and row i of the other."
)


def check_scores(
    pred: Shaped[Tensor, " n"], target: Shaped[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Shaped[Tensor, " n"]]:
    """The predictions in float32 or wider, and the targets as constants that can be compared."""
    check_floating("pred", pred)
    check_same_shape(_PAIRED, pred=pred, target=target)
    check_ndim("pred", pred, "n")
    target = target.detach()
    if target.is_floating_point() or target.dtype == torch.bool:
        target = target.to(accumulation_dtype(target.dtype))
    return pred.to(accumulation_dtype(pred.dtype)), target


def connected_zero(pred: Float[Tensor, "*n"], target: Shaped[Tensor, "*n"]) -> Float[Tensor, ""]:
    """0 with a connected graph and a zero gradient; NaN where an entry is not finite."""
    return (pred * 0).sum() + (target * 0).sum().to(pred.dtype)


def tells_apart(target: Shaped[Tensor, " n"]) -> Shaped[Tensor, ""]:
    """Whether two targets differ: a list of equal ones, of one or of none has no order."""
    if not target.shape[0]:
        return torch.zeros((), dtype=torch.bool, device=target.device)
    return target.amax() > target.amin()
