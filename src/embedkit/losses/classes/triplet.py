"""Triplet losses: positives closer than negatives, by a margin."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import softplus

from embedkit._checks import (
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_weight,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops.distances import pair_distances

Count = Literal["all", "active"]


def triplet_loss(
    embeddings: Float[Tensor, "b d"],
    triplets: Int[Tensor, "t 3"],
    *,
    margin: float = 0.2,
    soft: bool = False,
    swap: bool = False,
    unit: bool = True,
    count: Count = "all",
    reference: Float[Tensor, "n d"] | None = None,
    weight: Float[Tensor, " t"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*t"]:
    """How far positives are from being closer than negatives:  max(0, d_ap - d_an + margin).

    d is the squared Euclidean distance, of rows of length 1 unless ``unit=False``. Distances come
    from differences of the rows in question, a block of triplets at a time: near duplicates lose
    no digits, and what is kept for backward is the rows and the indices.

    Args:
        embeddings: anchors, and without a ``reference`` also positives and negatives.
        triplets: row indices (anchor, positive, negative), e.g. from
            :func:`embedkit.mining.semihard_triplets`.
        margin: in units of the squared distance, >= 0; unit rows are 0 to 4 apart.
        soft: softplus(d_ap - d_an) in place of the hinge; the margin is not used.
        swap: the negative's distance is the smaller one of d_an and d_pn.
        unit: scale rows to length 1 first; a zero row stays zero.
        count: what the mean divides by: "all" triplets, or the "active" ones, whose loss is > 0.
        reference: rows that the second and third column mean; see the miners.
        weight: factor of each triplet, >= 0.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or (t,) for "none", in float32 or wider; 0 without triplets.

    Raises:
        ValueError: if shapes or widths do not fit, or ``margin`` is below 0.
        TypeError: if embeddings are not floating or triplets not integers.
        IndexError: if a triplet names a row that is not there (on a GPU the device reports that).

    Source: Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition and Clustering,
    eq. 1-3; Hermans et al. 2017, In Defense of the Triplet Loss for Person Re-Identification, sec.
    2 (soft margin); Balntas et al. 2016, Learning local feature descriptors with triplets and
    shallow convolutional neural networks, the anchor swap.
    """
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "b d")
    check_integer("triplets", triplets, "Rows (anchor, positive, negative) by number.")
    if triplets.ndim != 2 or triplets.shape[1] != 3:
        raise ValueError(
            f"triplets: expected shape (t, 3), rows (anchor, positive, negative), got "
            f"{tuple(triplets.shape)}. The miners in embedkit.mining give it."
        )
    check_choice("triplet_loss", "count", count, ("all", "active"))
    if margin < 0:
        raise ValueError(f"triplet_loss: margin must be >= 0, got {margin}. FaceNet takes 0.2.")
    wide = accumulation_dtype(embeddings.dtype)
    x = embeddings.to(wide)
    x = normalize(x) if unit else x
    y = x
    if reference is not None:
        check_ndim("reference", reference, "n d")
        check_last_dim("reference", reference, embeddings.shape[1], "One space for both.")
        y = reference.to(wide)
        y = normalize(y) if unit else y
    anchor, positive, negative = triplets.long().unbind(dim=1)
    try:
        near, far = pair_distances(x, y, anchor, positive), pair_distances(x, y, anchor, negative)
    except IndexError as error:
        raise IndexError(
            f"triplets: expected anchors in 0 to {len(x) - 1}, positives and negatives in 0 to "
            f"{len(y) - 1}, got {triplets.min()} to {triplets.max()}. Were they mined on another "
            "batch, or with a reference?"
        ) from error
    if swap:
        far = torch.minimum(far, pair_distances(y, y, positive, negative))
    row = softplus(near - far) if soft else (near - far + margin).relu()
    # Triplets may leave out a row that holds NaN, or all of them: it is seen nevertheless.
    spoilt = (x * 0.0).sum() if y is x else (x * 0.0).sum() + (y * 0.0).sum()
    row = row + spoilt
    part = row.detach() > 0 if count == "active" else torch.ones_like(row, dtype=torch.bool)
    if weight is not None:
        check_weight(weight, len(triplets), "triplet")
        row = row * weight
    loss = reduce_rows(row, part, reduction)
    return loss if reduction == "none" else loss + spoilt


class TripletLoss(nn.Module):
    """:func:`triplet_loss` with its settings; triplets and reference come with each call.

    Args:
        margin: in units of the squared distance, >= 0.
        soft: softplus in place of the hinge.
        swap: the negative's distance is the smaller one of d_an and d_pn.
        unit: scale rows to length 1 first.
        count: what the mean divides by, "all" triplets or the "active" ones.
        reduction: "mean", "sum" or "none".

    >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    >>> TripletLoss(margin=0.5)(embeddings, torch.tensor([[0, 1, 2]]))
    tensor(0.1000)
    """

    def __init__(
        self,
        margin: float = 0.2,
        *,
        soft: bool = False,
        swap: bool = False,
        unit: bool = True,
        count: Count = "all",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_choice("TripletLoss", "count", count, ("all", "active"))
        check_choice("TripletLoss", "reduction", reduction, ("mean", "sum", "none"))
        if margin < 0:
            raise ValueError(f"TripletLoss: margin must be >= 0, got {margin}. FaceNet takes 0.2.")
        self.margin, self.soft, self.swap = margin, soft, swap
        self.unit, self.count, self.reduction = unit, count, reduction

    def forward(
        self,
        embeddings: Tensor,
        triplets: Tensor,
        *,
        reference: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings (b, d) and triplets (t, 3)."""
        return triplet_loss(
            embeddings,
            triplets,
            margin=self.margin,
            soft=self.soft,
            swap=self.swap,
            unit=self.unit,
            count=self.count,
            reference=reference,
            weight=weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"margin={self.margin:g}, soft={self.soft}, swap={self.swap}, unit={self.unit}, "
            f"count={self.count!r}, reduction={self.reduction!r}"
        )
