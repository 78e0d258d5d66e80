"""Classify among very many fixed prototypes; no matrix of all logits is stored."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
    check_weight,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses._targets import IGNORED, explained_classes
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision


def _check_prototypes(owner: str, prototypes: Tensor, chunk_size: int) -> None:
    check_floating("prototypes", prototypes)
    check_ndim("prototypes", prototypes, "e d")
    check_at_least(owner, "the number of prototypes", prototypes.shape[0], 1)
    check_at_least(owner, "chunk_size", chunk_size, 1)
    if prototypes.requires_grad:
        raise ValueError(
            f"{owner}: prototypes must be frozen, got a tensor that requires grad. Pass "
            "prototypes.detach(), made once per round; for class vectors that learn use "
            "torch.nn.functional.cross_entropy or embedkit.losses.arc_face."
        )


def prototype_cross_entropy(
    embeddings: Float[Tensor, "b d"],
    prototypes: Float[Tensor, "e d"],
    target: Int[Tensor, " b"],
    *,
    weight: Float[Tensor, " b"] | None = None,
    chunk_size: int = 8192,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Cross-entropy of finding each row's prototype among e fixed ones, by inner product.

    Row loss:  logsumexp_j <h, c_j> - <h, c_target>.  Prototypes are read once, ``chunk_size`` of
    them at a time, with a running logsumexp; the gradient,  sum_j softmax_j c_j - c_target,  comes
    out of the same sweep. That takes two matrix products, as many as the dense form, and keeps
    (b, d) for backward. Nothing is normalised, and there is no temperature: scale prototypes or
    rows where the logits need it.

    Args:
        embeddings: rows h; half precision is computed in float32.
        prototypes: fixed vectors, in any floating dtype: they are widened a chunk at a time, so
            bfloat16 halves what a large table takes.
        target: the prototype of each row, 0 to e - 1; -100 leaves the row out.
        weight: importance of each row, >= 0, e.g. one over the number of its prototype's
            descriptions; it scales the row, the mean still divides by the number of rows.
        chunk_size: prototypes of one step; it changes time and memory, not the result.
        reduction: "mean" divides by the rows that have a target, "sum" or "none".

    Returns:
        A scalar, or (b,) for "none", in float32 or wider. Rows left out and empty batches give 0;
        non-finite input gives a non-finite loss.

    Raises:
        ValueError: if shapes do not fit, there is no prototype, prototypes require grad, or a
            target is out of range (on a GPU the device reports that).
        TypeError: if vectors are not floating or targets not integers.
        RuntimeError: on a second derivative.

    Source: Liu 2024, DefSent+: Improving sentence embeddings of language models by projecting
    definition sentences into a quasi-isotropic or isotropic vector space of unlimited dictionary
    entries, the training objective.

    >>> entries = torch.tensor([[2.0, 1.0], [0.0, -1.0]])
    >>> rows = torch.tensor([[0.5, 0.5], [1.0, -1.0], [0.0, -2.0]])
    >>> prototype_cross_entropy(rows, entries, torch.tensor([0, 0, 1]))
    tensor(0.2794)
    """
    _check_prototypes("prototype_cross_entropy", prototypes, chunk_size)
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "b d")
    check_last_dim("embeddings", embeddings, prototypes.shape[1], "As wide as the prototypes.")
    check_integer("target", target, "Number the prototypes from 0.")
    check_ndim("target", target, "b")
    check_rows("target", target, embeddings.shape[0], "One prototype per row.")
    check_weight(weight, embeddings.shape[0], "row")
    wide = accumulation_dtype(torch.promote_types(embeddings.dtype, prototypes.dtype))
    taking_part = target != IGNORED
    place = target.long().masked_fill(~taking_part, 0)
    with_grad = torch.is_grad_enabled() and embeddings.requires_grad
    with explained_classes("prototype_cross_entropy", "target", place, len(prototypes)):
        row: Tensor = torch.ops.embedkit.frozen_cross_entropy(
            embeddings.to(wide), prototypes, place, chunk_size, with_grad
        )[0]
    # Where, not times: a row left out may hold anything.
    row = torch.where(taking_part, row, 0.0)
    return reduce_rows(row if weight is None else row * weight, taking_part, reduction)


def _sweep(
    rows: Tensor, prototypes: Tensor, target: Tensor, chunk_size: int, with_grad: bool
) -> tuple[Tensor, Tensor]:
    """Loss of each row, and the mean prototype under its softmax (no entry where not asked for)."""
    highest = rows.new_full((rows.shape[0],), torch.finfo(rows.dtype).min)
    total, own, expected = torch.zeros_like(highest), torch.zeros_like(highest), rows.new_zeros(0)
    if with_grad:
        expected = torch.zeros_like(rows)
    for start in range(0, prototypes.shape[0], chunk_size):
        chunk = prototypes[start : start + chunk_size].to(rows.dtype)
        logits = rows @ chunk.mT
        # Own logits out of the same product: only then is a certain row's loss exactly 0.
        at = target - start
        here = logits.gather(1, at.clamp(0, chunk.shape[0] - 1)[:, None])[:, 0]
        own = torch.where((at >= 0) & (at < chunk.shape[0]), here, own)
        higher = torch.maximum(highest, logits.amax(dim=1))
        weights = logits.sub_(higher[:, None]).exp_()
        shrink = (highest - higher).exp()
        total = total * shrink + weights.sum(dim=1)
        if with_grad:
            expected = torch.addmm(expected * shrink[:, None], weights, chunk)
        highest = higher
    if with_grad:
        expected = expected / total[:, None]
    return highest - own + total.log(), expected


_NAME = "embedkit::frozen_cross_entropy"
torch.library.define(
    _NAME,
    "(Tensor rows, Tensor prototypes, Tensor target, int chunk_size, bool with_grad) -> "
    "(Tensor loss, Tensor pull)",
)


def _run(
    rows: Tensor, prototypes: Tensor, target: Tensor, chunk_size: int, with_grad: bool
) -> tuple[Tensor, Tensor]:
    own = prototypes.index_select(0, target)  # first: it tells a target that is out of range
    with full_precision(rows):
        loss, pull = _sweep(rows, prototypes, target, chunk_size, with_grad)
    return loss, pull.sub_(own) if with_grad else pull


def _fake(
    rows: Tensor, prototypes: Tensor, target: Tensor, chunk_size: int, with_grad: bool
) -> tuple[Tensor, Tensor]:
    del prototypes, target, chunk_size
    return rows.new_empty(rows.shape[0]), rows.new_empty(rows.shape if with_grad else (0,))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    del inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor | None, again: Tensor | None) -> tuple[Tensor | None, ...]:
    if again is not None:
        raise RuntimeError(
            "prototype_cross_entropy: second derivatives are not defined. Use "
            "torch.nn.functional.cross_entropy(embeddings @ prototypes.T, target) instead."
        )
    if grad is None:
        return (None,) * 5
    (pull,) = ctx.saved_tensors
    # A gradient of 0 is that of a row left out, which may have met infinity.
    return torch.where(grad[:, None] == 0, 0.0, grad[:, None] * pull), None, None, None, None


torch.library.impl(_NAME, "default", _run)
torch.library.register_fake(_NAME, _fake)
torch.library.register_autograd(_NAME, _backward, setup_context=_save)


class PrototypeCrossEntropyLoss(nn.Module):
    """:func:`prototype_cross_entropy` with its prototypes, which are a buffer and never learn.

    Build a new one for each round of targets. A buffer is part of ``state_dict`` and moves with
    the Module; keep it out of what DistributedDataParallel wraps, which would send it at each step.

    Args:
        prototypes: (e, d), detached from whatever made it, e.g. by
            :func:`embedkit.heads.entry_embeddings`.
        chunk_size: prototypes of one step.
        reduction: "mean", "sum" or "none".

    >>> loss = PrototypeCrossEntropyLoss(torch.eye(3))
    >>> loss(torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([0]))
    tensor(0.0002)
    >>> list(loss.parameters())
    []
    """

    prototypes: Tensor

    def __init__(
        self, prototypes: Tensor, chunk_size: int = 8192, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        _check_prototypes("PrototypeCrossEntropyLoss", prototypes, chunk_size)
        check_choice("PrototypeCrossEntropyLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.register_buffer("prototypes", prototypes)
        self.chunk_size, self.reduction = chunk_size, reduction

    def forward(
        self, embeddings: Tensor, target: Tensor, *, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of rows (b, d) that belong to prototypes (b,)."""
        return prototype_cross_entropy(
            embeddings,
            self.prototypes,
            target,
            weight=weight,
            chunk_size=self.chunk_size,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Sizes and settings."""
        entries, dim = self.prototypes.shape
        return (
            f"{entries} prototypes, dim={dim}, chunk_size={self.chunk_size}, "
            f"reduction={self.reduction!r}"
        )
