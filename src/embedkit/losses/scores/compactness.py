"""The loss of provable training: raise the bound of every node's margin."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_ndim,
    check_same_shape,
    check_weight,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype


def pot_loss(
    compactness: Float[Tensor, " n"],
    other: Float[Tensor, " n"] | None = None,
    *,
    weight: Float[Tensor, " n"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*n"]:
    """Binary cross-entropy that every node's margin has a positive lower bound.

    Row loss: softplus(-q_v), or the mean of both directions' where ``other`` is given. It is added
    to a contrastive loss as  (1 - k) contrast + k pot,  with k of 0.2 to 0.5 for the compactness
    "source_weights" and of 0.02 to 0.1 for the sound ones.

    Args:
        compactness: of :func:`embedkit.graph.node_compactness`, view 1 against view 2.
        other: the same of view 2 against view 1.
        weight: importance of each node, >= 0.
        reduction: "mean" divides by the number of nodes.

    Returns:
        A scalar, or (n,) for "none", in float32 or wider; 0 for no node.

    Raises:
        ValueError: if shapes differ or ``reduction`` is another.
        TypeError: if numbers are not floating.

    Source: Yu et al. 2023, Provable Training for Graph Contrastive Learning, sec. 4.3 (L_POT).

    >>> pot_loss(torch.tensor([0.0, 2.0]))
    tensor(0.4100)
    """
    check_floating("compactness", compactness)
    check_ndim("compactness", compactness, "n")
    check_weight(weight, compactness.shape[0], "node")
    row = F.softplus(-compactness.to(accumulation_dtype(compactness.dtype)))
    if other is not None:
        check_floating("other", other)
        check_same_shape("Both directions of the same nodes.", compactness=compactness, other=other)
        row = (row + F.softplus(-other.to(row.dtype))) / 2
    taking_part = torch.ones_like(row, dtype=torch.bool)
    return reduce_rows(row if weight is None else row * weight, taking_part, reduction)


class POTLoss(nn.Module):
    """:func:`pot_loss` with its setting.

    Args:
        reduction: "mean", "sum" or "none".

    >>> POTLoss()(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 2.0]))
    tensor(0.4100)
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("POTLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.reduction = reduction

    def forward(
        self, compactness: Tensor, other: Tensor | None = None, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of the compactness (n,) of one direction, or of both."""
        return pot_loss(compactness, other, weight=weight, reduction=self.reduction)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"reduction={self.reduction!r}"
