"""Entailment: the special lies in the cone behind the general."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_ndim,
    check_positive,
    check_same_shape,
    check_tensor,
)
from embedkit.geometry._curvature import check_vectors, wide
from embedkit.geometry.lorentz.cone import exterior_angle, half_aperture
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype


def entailment_cone(
    parent: Float[Tensor, "b d"],
    child: Float[Tensor, "b d"],
    positive: Bool[Tensor, " b"] | None = None,
    *,
    min_radius: float = 0.1,
    margin: float = 0.1,
    curvature: float | Tensor = 1.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """How far each child lies outside of its parent's cone, in radians.

    With  E = max(0, exterior angle - half aperture)  of a row, its loss is E where the child is
    one, and  max(0, margin - E)  where it is not. Cones narrow outwards: without negatives, or a
    contrastive loss beside it, all points drawn to the origin are a solution.

    Args:
        parent: general points of the hyperboloid, (b, 1 + d), time first.
        child: special ones, row by row, of the same dtype.
        positive: False for rows that are no pair of parent and child; None: all are.
        min_radius: K > 0; at space parts up to 2K / sqrt(c) a cone is as wide as can be.
        margin: > 0, in radians; how far outside others must be.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.
        reduction: "mean" divides by b.

    Returns:
        A scalar, or (b,) for "none", in float32 or wider; an empty batch gives 0.

    Raises:
        ValueError: if shapes differ, or ``min_radius``, ``margin`` or the curvature is not > 0.
        TypeError: if points are not floating, or of two dtypes, or ``positive`` is not bool.

    Source: Desai et al. 2023, Hyperbolic Image-Text Representations (MERU), eq. 8; Ganea et al.
    2018, Hyperbolic Entailment Cones for Learning Hierarchical Embeddings, eq. 32-33 (negatives).
    """
    check_floating("parent", parent)
    check_ndim("parent", parent, "b d")
    check_floating("child", child)
    check_same_shape("Row by row.", parent=parent, child=child)
    check_vectors(parent=parent, child=child)
    _check_settings("entailment_cone", min_radius, margin)
    if positive is not None:
        check_tensor("positive", positive)
        if positive.dtype != torch.bool:
            raise TypeError(f"positive: expected bool (True is a pair), got {positive.dtype}")
        if positive.shape != parent.shape[:1]:
            raise ValueError(
                f"positive: expected shape ({parent.shape[0]},), one entry per row, got "
                f"{tuple(positive.shape)}"
            )
    kind = accumulation_dtype(parent.dtype)
    # widened once, so that gradients of both angles meet before they are cut to float16
    parent, child = wide(parent), wide(child)
    angle = exterior_angle(parent, child, curvature=curvature)
    opening = half_aperture(parent, min_radius=min_radius, curvature=curvature)
    outside = (angle - opening).relu().to(kind)
    row = outside if positive is None else outside.where(positive, (margin - outside).relu())
    return reduce_rows(row, torch.ones_like(row, dtype=torch.bool), reduction)


def _check_settings(owner: str, min_radius: float, margin: float) -> None:
    check_positive(owner, "min_radius", min_radius, "Try 0.1.")
    check_positive(owner, "margin", margin, "It is an angle; try 0.1.")


class EntailmentConeLoss(nn.Module):
    """:func:`entailment_cone` with its settings; points and curvature come with each call.

    >>> parent, child = torch.tensor([[1.4142, 1.0, 0.0]]), torch.tensor([[1.4142, 0.0, 1.0]])
    >>> EntailmentConeLoss()(parent, child)
    tensor(2.3248)
    """

    def __init__(
        self, min_radius: float = 0.1, margin: float = 0.1, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        _check_settings("EntailmentConeLoss", min_radius, margin)
        check_choice("EntailmentConeLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.min_radius, self.margin, self.reduction = min_radius, margin, reduction

    def forward(
        self,
        parent: Tensor,
        child: Tensor,
        positive: Tensor | None = None,
        *,
        curvature: float | Tensor = 1.0,
    ) -> Tensor:
        """The loss of parents (b, 1 + d) and children, row by row."""
        return entailment_cone(
            parent,
            child,
            positive,
            min_radius=self.min_radius,
            margin=self.margin,
            curvature=curvature,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"min_radius={self.min_radius}, margin={self.margin}, reduction={self.reduction!r}"
