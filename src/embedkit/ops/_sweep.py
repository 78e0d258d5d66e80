"""One pass over a Gram matrix in blocks of rows: its logsumexp or softplus, and their gradient.

These functions run inside the opaque operator of :mod:`embedkit.ops.gram`, below autograd, on plain
tensors. Each block of rows sees all keys, so its normaliser is known at once and the gradient is
made in the same pass: three matrix products in all, as many as the dense form.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from embedkit.ops._problem import Problem, Result, empty_result


def key_logsumexp(p: Problem) -> Tensor:
    """Logsumexp over rows for every width and key, -inf where a key has no row: (w, k)."""
    total = p.buffer().new_full((len(p.widths), p.key.shape[0]), -math.inf)
    gram, other = p.buffer(), p.buffer()
    for start in p.starts():
        rows = slice(start, min(start + p.step, p.query.shape[0]))
        size = rows.stop - start
        keep = p.keep(start, rows.stop)
        for index in range(len(p.widths)):
            p.add_slice(gram[:size], rows, index)
            logits = p.logits(gram[:size], rows, index, other[:size])
            p.sink(logits, start, keep)
            total[index] = torch.logaddexp(total[index], logits.logsumexp(dim=0))
    return total.masked_fill_(total < p.bottom / 2, -math.inf)


def sweep(p: Problem, row_weight: Tensor, key_weight: Tensor | None, with_grad: bool) -> Result:
    """Potentials of all rows, of keys where they have weights, and the weighted sum's gradient."""
    out = empty_result(p, key_weight is not None, with_grad)
    if key_weight is not None:
        value = key_logsumexp(p)
        key_weight = key_weight.masked_fill(value == -math.inf, 0.0)
        out.keys.copy_(value.masked_fill_(value == -math.inf, 0.0))
    if not p.key.shape[0] and p.extra is not None:
        out.rows.copy_(p.extra)
        if with_grad:
            out.extra.copy_(row_weight)
    last = len(p.widths) - 1
    gram = p.buffer()
    other = p.buffer() if last or key_weight is not None else gram
    kept = [p.buffer() for _ in range(last)] if with_grad else [other] * last
    for start in p.starts():
        rows = slice(start, min(start + p.step, p.query.shape[0]))
        size = rows.stop - start
        keep = p.keep(start, rows.stop)
        for index in range(last + 1):
            p.add_slice(gram[:size], rows, index)
            logits = p.logits(gram[:size], rows, index, other[:size])
            weights = logits if index == last else kept[index][:size]
            if not p.safe:
                p.sink(logits, start, keep)
            from_keys = None
            if key_weight is not None and with_grad:
                from_keys = torch.sub(logits, out.keys[index]).exp_().mul_(key_weight[index])
                p.silence(from_keys, start, keep)
            factor = _potential(p, logits, weights, row_weight, index, rows, keep, out)
            if not with_grad:
                continue
            if from_keys is not None:
                weights.mul_(factor[:, None]).add_(from_keys)
                factor = torch.ones_like(factor)
            if p.bias is not None:
                out.bias.add_((weights.sum(dim=1) * factor).sum())
            if index < last:
                _factor_gradients(p, logits, weights, factor, index, rows, out)
            elif last:
                weights.mul_(factor[:, None])
        if with_grad:
            _embedding_gradients(p, gram[:size], kept, rows, factor, out)
    if with_grad and p.row_factor is not None and p.key_factor is not None:
        out.row_factor.div_(p.row_factor).masked_fill_(p.row_factor == 0, 0.0)
        out.key_factor.div_(p.key_factor).masked_fill_(p.key_factor == 0, 0.0)
    return out


def _potential(
    p: Problem,
    logits: Tensor,
    weights: Tensor,
    row_weight: Tensor,
    index: int,
    rows: slice,
    keep: Tensor | None,
    out: Result,
) -> Tensor:
    """Write a block's potentials; turn ``weights`` into its gradient up to the returned factor."""
    share = row_weight[index, rows]
    if p.sigmoid:
        # threshold 40: beyond it softplus(x) - x < 5e-18, below float64's resolution of x.
        value = softplus(logits, threshold=40.0)
        p.silence(value, rows.start, keep)
        out.rows[index, rows] = value.sum(dim=1)
        torch.sigmoid(logits, out=weights)
        p.silence(weights, rows.start, keep)
        return share
    highest = share.new_zeros(share.shape)
    if p.safe:
        torch.exp(logits, out=weights)
    else:
        highest = logits.amax(dim=1)
        torch.sub(logits, highest[:, None], out=weights).exp_()
    p.silence(weights, rows.start, keep)
    total = weights.sum(dim=1)
    value = total.log().add_(highest).masked_fill_(total == 0, -math.inf)
    if p.extra is not None:
        extra = p.extra[index, rows]
        value = torch.logaddexp(value, extra)
        if out.extra.numel():
            out.extra[index, rows] = share * (extra - value).exp()
    nothing = value == -math.inf
    value = value.masked_fill(nothing, 0.0)
    out.rows[index, rows] = value
    return (share * (highest - value).exp()).masked_fill(nothing, 0.0)


def _factor_gradients(
    p: Problem,
    logits: Tensor,
    weights: Tensor,
    factor: Tensor,
    index: int,
    rows: slice,
    out: Result,
) -> None:
    """Gradients of a narrower width's norms; ``weights`` then lacks but the key factor."""
    if p.row_factor is None or p.key_factor is None:
        weights.mul_(factor[:, None])
        return
    if p.bias is not None:
        logits.sub_(p.bias)
    logits.mul_(weights)
    out.row_factor[index, rows] = logits.sum(dim=1) * factor
    out.key_factor[index].add_(factor @ logits)
    weights.mul_((factor * p.row_factor[index, rows])[:, None])


def _embedding_gradients(
    p: Problem, weights: Tensor, kept: list[Tensor], rows: slice, factor: Tensor, out: Result
) -> None:
    """From the widest width to the narrowest: one running sum, one slice product per segment."""
    size = weights.shape[0]
    if len(p.widths) == 1:
        # The factor of a row goes to the narrow side of both products instead of to every entry.
        out.query[rows] = (weights @ p.key).mul_(factor[:, None])
        out.key.addmm_(weights.mT, p.query[rows] * factor[:, None])
        return
    for index in reversed(range(len(p.widths))):
        if index < len(p.widths) - 1 and p.key_factor is not None:
            weights.addcmul_(kept[index][:size], p.key_factor[index])
        elif index < len(p.widths) - 1:
            weights.add_(kept[index][:size])
        columns = p.columns(index)
        out.query[rows, columns] = weights @ p.key[:, columns]
        out.key[:, columns].addmm_(weights.mT, p.query[rows, columns])
