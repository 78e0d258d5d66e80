"""Triplet loss over every valid triplet of a batch, without making one triplet."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import check_choice, check_floating, check_integer, check_ndim, check_rows
from embedkit.losses.classes.triplet import Count
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops.distances import block_distances

_ENTRIES = 2**20  # of a block of distances


def batch_all_triplet_loss(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    margin: float = 0.2,
    unit: bool = True,
    count: Count = "active",
) -> Float[Tensor, ""]:
    """Mean of  max(0, d_ap - d_an + margin)  over all triplets (anchor, positive, negative).

    For each anchor negatives are sorted; how many lie within a positive's reach, and the sum of
    their distances, are then two look-ups in a prefix sum. Anchors are taken in blocks, and the
    gradient is made in the same pass: O(b^2 log b) time, memory linear in b, nothing of b^3.

    Args:
        embeddings: rows; d is their squared distance, of rows of length 1 unless ``unit=False``.
        labels: integers; equal labels match.
        margin: in units of the squared distance, >= 0.
        unit: scale rows to length 1 first.
        count: what the mean divides by: the "active" triplets, whose loss is > 0, or "all". With
            "all" the mean fades as training goes well.

    Returns:
        A scalar, in float32 or wider; 0 where there is no (active) triplet.

    Raises:
        ValueError: if there is not one label per row, or ``margin`` is below 0.
        TypeError: if embeddings are not floating or labels not integers.
        RuntimeError: on a second derivative.

    Source: Hermans et al. 2017, In Defense of the Triplet Loss for Person Re-Identification, eq. 6
    (batch all).
    Differs: all triplets of the batch are summed by sorting, not enumerated.
    """
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "b d")
    check_integer("labels", labels, "Labels say by equality who matches; number the classes.")
    check_rows("labels", labels, embeddings.shape[0], "One label per row.")
    check_choice("batch_all_triplet_loss", "count", count, ("all", "active"))
    if margin < 0:
        raise ValueError(
            f"batch_all_triplet_loss: margin must be >= 0, got {margin}. FaceNet takes 0.2."
        )
    x = embeddings.to(accumulation_dtype(embeddings.dtype))
    x = normalize(x) if unit else x
    with_grad = torch.is_grad_enabled() and x.requires_grad
    total, active, every, _ = torch.ops.embedkit.batch_all(x, labels.long(), margin, with_grad)
    number = active if count == "active" else every
    loss: Tensor = total / number.clamp(min=1)
    return loss


def _batch_all(
    x: Tensor, labels: Tensor, margin: float, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum over triplets, number of active and of all triplets, gradient of the sum."""
    total, active, every = (x.new_zeros((), dtype=torch.float64) for _ in range(3))
    gradient = torch.zeros_like(x) if with_grad else x.new_zeros(0)
    squared = x.square().sum(dim=1)
    step = max(1, _ENTRIES // max(len(x), 1))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        distance = block_distances(x[rows], x, squared)
        negative = labels[rows, None] != labels
        positive = ~negative
        positive.diagonal(start).fill_(False)
        reach = distance + margin
        far = distance.masked_fill(positive, torch.inf)
        far.diagonal(start).fill_(torch.inf)
        far = far.sort(dim=1).values
        sums = far.masked_fill(far == torch.inf, 0.0).double().cumsum(dim=1)
        within = torch.searchsorted(far, reach).mul_(positive)  # negatives closer than the reach
        below = sums.gather(1, (within - 1).clamp(min=0)).masked_fill(within == 0, 0.0)
        total += (within * reach - below).sum()
        active += within.sum()
        every += (positive.sum(dim=1) * negative.sum(dim=1)).sum()
        if with_grad:
            near = reach.masked_fill(~positive, torch.inf).sort(dim=1).values
            beaten = torch.searchsorted(near, distance, right=True)
            pushing = positive.sum(dim=1, keepdim=True) - beaten  # positives that reach beyond it
            weight = within - pushing.mul_(negative)
            weight = 2.0 * weight.to(x.dtype)
            gradient[rows].addcmul_(weight.sum(dim=1, keepdim=True), x[rows])
            gradient[rows].sub_(weight @ x)
            gradient.addcmul_(weight.sum(dim=0)[:, None], x)
            gradient.sub_(weight.mT @ x[rows])
    return total.to(x.dtype), active.to(x.dtype), every.to(x.dtype), gradient


def _fake(
    x: Tensor, labels: Tensor, margin: float, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del labels, margin
    gradient = torch.empty_like(x) if with_grad else x.new_empty(0)
    return x.new_empty(()), x.new_empty(()), x.new_empty(()), gradient


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    del inputs
    ctx.save_for_backward(output[3])
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
    if any(other is not None for other in others):
        raise RuntimeError(
            "embedkit: second derivatives of batch_all_triplet_loss are not defined. Take "
            "triplet_loss over triplets of your own."
        )
    (gradient,) = ctx.saved_tensors
    return None if grad is None else grad * gradient, None, None, None


_NAME = "embedkit::batch_all"
torch.library.define(
    _NAME,
    "(Tensor x, Tensor labels, float margin, bool with_grad) -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl(_NAME, "default", _batch_all)
torch.library.register_fake(_NAME, _fake)
torch.library.register_autograd(_NAME, _backward, setup_context=_save)
