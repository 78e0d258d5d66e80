"""Weighted logsumexp of an all-pairs similarity matrix that is never stored.

The opaque operators ``embedkit::gram_sum`` and ``embedkit::gram_rows`` carry every pairwise loss of
this library. Memory grows linearly with rows and keys, forward and backward.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit.ops._problem import DROP, KEEP, Problem, empty_result
from embedkit.ops._sweep import sweep

__all__ = ["DROP", "KEEP", "Gram"]

_SECOND = (
    "embedkit: second derivatives through the blockwise contrastive engine are not defined. "
    "Compute the similarity matrix and use the *_from_similarity form of the loss instead."
)


class Gram(NamedTuple):
    """Logits <q_i, k_j> of all pairs, described by what they are made of.

    Attributes:
        query: (q, d) rows, already divided by norm and temperature where that is wanted.
        key: (k, d) rows.
        widths: increasing prefix widths; one Gram matrix each, all for the price of the last.
        row_factor: (w - 1, q) multiplies the logits of all widths but the last; None: 1.
        key_factor: (w - 1, k) likewise.
        extra: (w, q) logit that joins each row's logsumexp; None: nothing.
        bias: 0-d, added to every logit; None: nothing.
        query_ids: (q,) integers; with ``key_ids``, pairs of equal ids are left out.
        key_ids: (k,) integers.
        diagonal: 0, KEEP (pair (i, i) takes part whatever the ids) or DROP (it never does).
        bound: no logit is larger in size than this; infinity where that is not known.
        sigmoid: sum of softplus over the keys in place of the logsumexp.
    """

    query: Tensor
    key: Tensor
    widths: list[int]
    row_factor: Tensor | None = None
    key_factor: Tensor | None = None
    extra: Tensor | None = None
    bias: Tensor | None = None
    query_ids: Tensor | None = None
    key_ids: Tensor | None = None
    diagonal: int = 0
    bound: float = float("inf")
    sigmoid: bool = False

    def rows(self) -> Float[Tensor, "w q"]:
        """Potential of every width and row; a row without a single entry has 0.

        Backward sweeps once more, so nothing of size q x k is kept.
        """
        rows: Tensor = _gram_rows(*self)
        return rows

    def weighted_sum(
        self, row_weight: Float[Tensor, "w q"], key_weight: Float[Tensor, "w k"] | None = None
    ) -> Float[Tensor, ""]:
        """Sum of weight times potential over rows, and over keys where ``key_weight`` is given.

        The gradient is made in the forward sweep; backward only scales it. Under ``no_grad`` it is
        not made at all.
        """
        tensors = [t for t in (*self, row_weight, key_weight) if isinstance(t, Tensor)]
        with_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        total: Tensor = _gram_sum(*self, row_weight, key_weight, with_grad)[0]
        return total


_GRAM = (
    "Tensor query, Tensor key, int[] widths, Tensor? row_factor, Tensor? key_factor, "
    "Tensor? extra, Tensor? bias, Tensor? query_ids, Tensor? key_ids, int diagonal, float bound, "
    "bool sigmoid"
)
_SUM, _ROWS = "embedkit::gram_sum", "embedkit::gram_rows"
torch.library.define(
    _SUM,
    f"({_GRAM}, Tensor row_weight, Tensor? key_weight, bool with_grad) -> (Tensor value, "
    "Tensor rows, Tensor keys, Tensor grad_query, Tensor grad_key, Tensor grad_row_factor, "
    "Tensor grad_key_factor, Tensor grad_extra, Tensor grad_bias)",
)
torch.library.define(_ROWS, f"({_GRAM}) -> Tensor")
_gram_sum = torch.ops.embedkit.gram_sum
_gram_rows = torch.ops.embedkit.gram_rows


def _sum(*args: Any) -> tuple[Tensor, ...]:
    *gram, row_weight, key_weight, with_grad = args
    with torch.autocast(row_weight.device.type, enabled=False):
        r = sweep(Problem(*gram), row_weight, key_weight, with_grad)
        value = (row_weight * r.rows).sum()
        if key_weight is not None:
            value = value + (key_weight * r.keys).sum()
    return (value, *r)


def _fake_sum(*args: Any) -> tuple[Tensor, ...]:
    *gram, row_weight, key_weight, with_grad = args
    result = empty_result(Gram(*gram), key_weight is not None, with_grad)
    return (row_weight.new_empty(()), *result)


def _rows(*args: Any) -> Tensor:
    problem = Problem(*args)
    with torch.autocast(problem.query.device.type, enabled=False):
        weight = empty_result(problem, with_keys=False, with_grad=False).rows
        return sweep(problem, weight, None, with_grad=False).rows


def _fake_rows(*args: Any) -> Tensor:
    return empty_result(Gram(*args), with_keys=False, with_grad=False).rows


_TENSORS = (0, 1, 3, 4, 5, 6)  # places of the differentiable tensors in Gram
_IDS = (7, 8)


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.present = [inputs[place] is not None for place in _TENSORS]
    ctx.save_for_backward(*output[1:])


def _backward_sum(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> tuple[Any, ...]:
    if any(other is not None for other in others):
        raise RuntimeError(_SECOND)
    if grad is None:
        return (None,) * 15
    rows, keys, *gradients = (grad * saved for saved in ctx.saved_tensors)
    return (
        *_arrange(gradients, ctx.present),
        rows,
        keys if keys.numel() else None,
        None,
    )


def _arrange(gradients: list[Tensor], present: list[bool]) -> list[Tensor | None]:
    """Put the gradients of the differentiable tensors in the places of Gram's fields."""
    places: list[Tensor | None] = [None] * 12
    for place, gradient, wanted in zip(_TENSORS, gradients, present, strict=True):
        if wanted:
            places[place] = gradient
    return places


def _save_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    tensors = [inputs[place] for place in (*_TENSORS, *_IDS)]
    ctx.options = [None if isinstance(x, Tensor) else x for x in inputs]
    ctx.save_for_backward(*tensors)


def _backward_rows(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    gram = list(ctx.options)
    for place, tensor in zip((*_TENSORS, *_IDS), ctx.saved_tensors, strict=True):
        gram[place] = tensor
    gradients = _gram_sum(*gram, grad, None, True)[3:]
    present = [gram[place] is not None for place in _TENSORS]
    return tuple(_arrange(list(gradients), present))


torch.library.impl(_SUM, "default", _sum)
torch.library.impl(_ROWS, "default", _rows)
torch.library.register_fake(_SUM, _fake_sum)
torch.library.register_fake(_ROWS, _fake_rows)
torch.library.register_autograd(_SUM, _backward_sum, setup_context=_save_sum)
torch.library.register_autograd(_ROWS, _backward_rows, setup_context=_save_rows)
