"""How per-row losses become the number that is returned: the same for every loss."""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import check_choice

Reduction = Literal["mean", "sum", "none"]


def row_shares(
    taking_part: Bool[Tensor, " q"], reduction: Reduction, like: Float[Tensor, "..."]
) -> Float[Tensor, " q"]:
    """The factor of each row's loss: 1 / n among the n rows that take part ("mean"), or 1; else 0.

    Without any row that takes part all factors are 0, so the loss is 0 with a connected graph.
    """
    check_choice("reduction", "value", reduction, ("mean", "sum", "none"))
    share = taking_part.to(like.dtype)
    return share / share.sum().clamp(min=1) if reduction == "mean" else share


def reduce_rows(
    row: Float[Tensor, " q"], taking_part: Bool[Tensor, " q"], reduction: Reduction
) -> Float[Tensor, "*q"]:
    """Mean or sum of the rows that take part, or (q,) with 0 elsewhere for "none"."""
    rows = row * row_shares(taking_part, reduction, row)
    return rows if reduction == "none" else rows.sum()
