"""Contrastive potentials of an all-pairs similarity matrix that is never stored.

The opaque operators ``embedkit::gram_sum`` and ``embedkit::gram_rows`` carry every pairwise loss of
this library. Memory grows linearly with rows and keys, forward and backward.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit.ops.gram._problem import Gram, Result, empty_result
from embedkit.ops.gram._sweep import sweep

_SECOND = (
    "embedkit: second derivatives through the blockwise contrastive engine are not defined. "
    "Compute the similarity matrix and use the *_from_similarity form of the loss instead."
)


def gram_rows(gram: Gram) -> Float[Tensor, "w q"]:
    """Potential of every width and row; nothing competing and no positive gives 0.

    Backward sweeps once more, so nothing of size q x k is kept.
    """
    rows: Tensor = torch.ops.embedkit.gram_rows(*gram)
    return rows


def gram_sum(
    gram: Gram, row_weight: Float[Tensor, "w q"], key_weight: Float[Tensor, "w k"] | None = None
) -> Float[Tensor, ""]:
    """Sum of weight times potential over rows, and over keys where ``key_weight`` is given.

    The gradient is made in the forward sweep; backward only scales it. Under ``no_grad`` it is not
    made at all.
    """
    tensors = [t for t in (*gram, row_weight, key_weight) if isinstance(t, Tensor)]
    with_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    total: Tensor = torch.ops.embedkit.gram_sum(*gram, row_weight, key_weight, with_grad)[0]
    return total


_GRAM = (
    "Tensor query, Tensor key, int[] widths, Tensor scale, Tensor? extra, Tensor? bias, "
    "Tensor? query_ids, Tensor? key_ids, Tensor row_positive, Tensor? key_positive, bool cosine, "
    "bool own, bool same_rows, bool decoupled, bool sigmoid, float bound"
)
_FIELDS = len(Gram._fields)
_LEARNED = (0, 1, 3, 4, 5)  # places of the differentiable tensors in Gram
_SUM, _ROWS = "embedkit::gram_sum", "embedkit::gram_rows"
torch.library.define(
    _SUM,
    f"({_GRAM}, Tensor row_weight, Tensor? key_weight, bool with_grad) -> (Tensor value, "
    "Tensor rows, Tensor keys, Tensor grad_query, Tensor grad_key, Tensor grad_scale, "
    "Tensor grad_extra, Tensor grad_bias)",
)
torch.library.define(_ROWS, f"({_GRAM}) -> Tensor")


def potentials(result: Result) -> Tensor:
    """Of rows: logsumexp, 0 where nothing competes, minus the positives."""
    return result.rows.masked_fill(result.rows == -math.inf, 0.0) - result.positive


def _sum(*args: Any) -> tuple[Tensor, ...]:
    *gram, row_weight, key_weight, with_grad = args
    with torch.autocast(row_weight.device.type, enabled=False):
        r = sweep(Gram(*gram), row_weight, key_weight, with_grad)
        rows = potentials(r)
        value = (row_weight * rows).sum()
        if key_weight is not None:
            value = value + (key_weight * r.keys).sum()
    return (value, rows, *r[1:-1])


def _fake_sum(*args: Any) -> tuple[Tensor, ...]:
    *gram, row_weight, key_weight, with_grad = args
    result = empty_result(Gram(*gram), key_weight is not None, with_grad)
    return (row_weight.new_empty(()), *result[:-1])


def _rows(*args: Any) -> Tensor:
    gram = Gram(*args)
    with torch.autocast(gram.query.device.type, enabled=False):
        weight = empty_result(gram, with_keys=False, with_grad=False).rows
        return potentials(sweep(gram, weight, None, with_grad=False))


def _fake_rows(*args: Any) -> Tensor:
    return empty_result(Gram(*args), with_keys=False, with_grad=False).rows


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.present = [inputs[place] is not None for place in _LEARNED]
    ctx.save_for_backward(*output[1:])


def _backward_sum(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
    if any(other is not None for other in others):
        raise RuntimeError(_SECOND)
    if grad is None:
        return (None,) * (_FIELDS + 3)
    rows, keys, *gradients = (grad * saved for saved in ctx.saved_tensors)
    return (*_arrange(gradients, ctx.present), rows, keys if keys.numel() else None, None)


def _arrange(gradients: list[Tensor], present: list[bool]) -> list[Tensor | None]:
    """Put the gradients of the differentiable tensors in the places of Gram's fields."""
    places: list[Tensor | None] = [None] * _FIELDS
    for place, gradient, wanted in zip(_LEARNED, gradients, present, strict=True):
        places[place] = gradient if wanted else None
    return places


def _save_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.places = [place for place, x in enumerate(inputs) if isinstance(x, Tensor)]
    ctx.options = [None if isinstance(x, Tensor) else x for x in inputs]
    ctx.save_for_backward(*(inputs[place] for place in ctx.places))


def _backward_rows(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    gram = list(ctx.options)
    for place, tensor in zip(ctx.places, ctx.saved_tensors, strict=True):
        gram[place] = tensor
    gradients = torch.ops.embedkit.gram_sum(*gram, grad, None, True)[3:]
    present = [gram[place] is not None for place in _LEARNED]
    return tuple(_arrange(list(gradients), present))


torch.library.impl(_SUM, "default", _sum)
torch.library.impl(_ROWS, "default", _rows)
torch.library.register_fake(_SUM, _fake_sum)
torch.library.register_fake(_ROWS, _fake_rows)
torch.library.register_autograd(_SUM, _backward_sum, setup_context=_save_sum)
torch.library.register_autograd(_ROWS, _backward_rows, setup_context=_save_rows)
