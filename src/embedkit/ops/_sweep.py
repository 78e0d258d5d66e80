"""One pass over a Gram matrix in blocks of rows: contrastive potentials and their gradient.

These functions run inside the opaque operator of :mod:`embedkit.ops.gram`, below autograd, on plain
tensors. Each block of rows sees all keys, so its normaliser is known at once and the gradient is
made in the same pass: three matrix products in all, as many as the dense form.
"""

import math

import torch
from einops import einsum
from torch import Tensor
from torch.nn.functional import softplus

from embedkit.ops._problem import Gram, Problem, Result, empty_result


def sweep(gram: Gram, row_weight: Tensor, key_weight: Tensor | None, with_grad: bool) -> Result:
    """Potentials of all rows, of keys where they have weights, and the weighted sum's gradient."""
    p = Problem(gram)  # first: what normalising needs for a moment is gone before gradients exist
    out = empty_result(gram, key_weight is not None, with_grad)
    if key_weight is not None:
        out.keys.copy_(_key_logsumexp(p))
    lse = out.keys.clone()
    if not p.key.shape[0] and gram.extra is not None:
        out.rows.copy_(gram.extra)
        if with_grad:
            out.extra.copy_(row_weight)
    last = len(p.widths) - 1
    block, scratch = p.buffer(), p.buffer() if last else p.query
    kept = [p.buffer() for _ in range(last)] if with_grad else []
    factors = torch.zeros_like(p.row_factor), torch.zeros_like(p.key_factor)
    for rows in p.blocks():
        size = rows.stop - rows.start
        same, keep = p.masks(rows)
        for index in range(last + 1):
            p.add_slice(block[:size], rows, index)
            logits = p.logits(block[:size], rows, index, scratch[:size])
            weights = kept[index][:size] if with_grad and index < last else logits
            positive = _positives(p, logits, same, rows, out.keys[index] if len(lse) else None)
            from_keys = None
            if key_weight is not None and with_grad:
                from_keys = logits.clone()
                if not p.safe:
                    p.sink(from_keys, rows, keep)
                from_keys.sub_(lse[index]).exp_().mul_(key_weight[index])
                p.silence(from_keys, rows, keep)
            share = row_weight[index, rows]
            factor = _potential(p, logits, weights, share, index, rows, keep, out)
            out.rows[index, rows] -= gram.row_positive[rows] * positive
            if not with_grad:
                continue
            weights.mul_(factor[:, None])
            if from_keys is not None:
                weights.add_(from_keys)
            pull = share * gram.row_positive[rows]
            _pull_positives(p, weights, pull, key_weight, same, index, rows)
            if p.bias is not None:
                out.bias.add_(weights.sum())
            if index < last and p.factors:
                _factor_gradients(p, logits, weights, index, rows, factors)
        if with_grad:
            _embedding_gradients(p, block[:size], kept, rows, out)
    if with_grad:
        _finish(p, factors, out)
    return out


def _key_logsumexp(p: Problem) -> Tensor:
    """Logsumexp over rows for every width and key, 0 where nothing competes: (w, k)."""
    total = p.key.new_full((len(p.widths), p.key.shape[0]), -math.inf)
    gram, other = p.buffer(), p.buffer()
    for rows in p.blocks():
        size = rows.stop - rows.start
        _, keep = p.masks(rows)
        for index in range(len(p.widths)):
            p.add_slice(gram[:size], rows, index)
            logits = p.logits(gram[:size], rows, index, other[:size])
            p.sink(logits, rows, keep)
            total[index] = torch.logaddexp(total[index], logits.logsumexp(dim=0))
    return total.masked_fill_(total < p.bottom / 2, 0.0)


def _positives(
    p: Problem, logits: Tensor, same: Tensor | None, rows: slice, keys: Tensor | None
) -> Tensor:
    """Sum of each row's positive logits; takes those of keys off their potentials."""
    key_positive = p.gram.key_positive
    if p.gram.own or same is None:
        own = logits.diagonal(rows.start)
        if keys is not None and key_positive is not None:
            place = slice(rows.start, rows.start + own.shape[0])
            keys[place] -= key_positive[place] * own
        total = logits.new_zeros(logits.shape[0])
        total[: own.shape[0]] = own
        return total
    if keys is not None and key_positive is not None:
        keys -= key_positive * (logits * same).sum(dim=0)
    return einsum(logits, same, "q k, q k -> q")


def _potential(
    p: Problem,
    logits: Tensor,
    weights: Tensor,
    share: Tensor,
    index: int,
    rows: slice,
    keep: Tensor | None,
    out: Result,
) -> Tensor:
    """Write potentials; turn ``weights`` into their gradient up to the returned factor."""
    if p.gram.sigmoid:
        # threshold 40: beyond it softplus(x) - x < 5e-18, below float64's resolution of x.
        value = softplus(logits, threshold=40.0)
        p.silence(value, rows, keep)
        out.rows[index, rows] = value.sum(dim=1)
        torch.sigmoid(logits, out=weights)
        p.silence(weights, rows, keep)
        return share
    highest = share.new_zeros(share.shape)
    if p.safe:
        torch.exp(logits, out=weights)
    else:
        if weights is not logits:
            weights.copy_(logits)
        p.sink(weights, rows, keep)
        highest = weights.amax(dim=1)
        weights.sub_(highest[:, None]).exp_()
    p.silence(weights, rows, keep)
    total = weights.sum(dim=1)
    value = total.log().add_(highest).masked_fill_(total == 0, -math.inf)
    if p.gram.extra is not None:
        extra = p.gram.extra[index, rows]
        value = torch.logaddexp(value, extra)
        if out.extra.numel():
            out.extra[index, rows] = share * (extra - value).exp()
    nothing = value == -math.inf
    value = value.masked_fill(nothing, 0.0)
    out.rows[index, rows] = value
    return (share * (highest - value).exp()).masked_fill(nothing, 0.0)


def _pull_positives(
    p: Problem,
    weights: Tensor,
    pull: Tensor,
    key_weight: Tensor | None,
    same: Tensor | None,
    index: int,
    rows: slice,
) -> None:
    """Take the gradient of the positive logits off ``weights``."""
    key_pull = None
    if key_weight is not None and p.gram.key_positive is not None:
        key_pull = key_weight[index] * p.gram.key_positive
    if p.gram.own or same is None:
        own = weights.diagonal(rows.start)
        own -= pull[: own.shape[0]]
        if key_pull is not None:
            own -= key_pull[rows.start : rows.start + own.shape[0]]
        return
    weights.sub_(same * pull[:, None])
    if key_pull is not None:
        weights.sub_(same * key_pull)


def _factor_gradients(
    p: Problem,
    logits: Tensor,
    weights: Tensor,
    index: int,
    rows: slice,
    factors: tuple[Tensor, Tensor],
) -> None:
    """Gradients, times the factor, of a narrower width's factors; takes the row factor in."""
    if p.bias is not None:
        logits.sub_(p.bias)
    logits.mul_(weights)
    factors[0][index, rows] = logits.sum(dim=1)
    factors[1][index].add_(logits.sum(dim=0))
    weights.mul_(p.row_factor[index, rows, None])


def _embedding_gradients(
    p: Problem, weights: Tensor, kept: list[Tensor], rows: slice, out: Result
) -> None:
    """From the widest width to the narrowest: one running sum, one slice product per segment."""
    for index in reversed(range(len(p.widths))):
        if index < len(p.widths) - 1:
            narrower = kept[index][: weights.shape[0]]
            if p.factors:
                weights.addcmul_(narrower, p.key_factor[index])
            else:
                weights.add_(narrower)
        columns = p.columns(index)
        out.query[rows, columns] = weights @ p.key[:, columns]
        out.key[:, columns].addmm_(weights.mT, p.query[rows, columns])


def _finish(p: Problem, factors: tuple[Tensor, Tensor], out: Result) -> None:
    """From scaled unit rows back to the rows and the scale that came in, in place."""
    out.scale.copy_(torch.dot(out.query.flatten(), p.query.flatten()) / p.gram.scale)
    out.query.mul_(p.gram.scale)
    if not p.gram.cosine:
        return
    p.query.div_(p.gram.scale)
    sides = (
        (out.query, p.query, p.gram.query, p.row_factor, factors[0]),
        (out.key, p.key, p.gram.key, p.key_factor, factors[1]),
    )
    for gradient, unit, given, factor, products in sides:
        # A prefix length l = 1 / factor gives d factor / d prefix = - factor^3 prefix.
        for index in range(len(p.widths) - 1):
            width = p.widths[index]
            share = products[index] * factor[index].square()
            gradient[:, :width].addcmul_(unit[:, :width], share[:, None], value=-1.0)
        along = einsum(unit, gradient, "n d, n d -> n")
        gradient.addcmul_(unit, along[:, None], value=-1.0)
        length = einsum(unit, given, "n d, n d -> n")
        gradient.mul_(torch.where(length == 0, 0.0, 1.0 / length)[:, None])
