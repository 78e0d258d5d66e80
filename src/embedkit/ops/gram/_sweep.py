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

from embedkit.ops.gram._problem import Gram, Problem, Result, empty_result
from embedkit.ops.gram._unit import UnitRows


def sweep(
    gram: Gram,
    row_weight: Tensor,
    key_weight: Tensor | None,
    with_grad: bool,
    row_logsumexp: Tensor | None = None,
) -> Result:
    """Potentials of all rows, of keys where they have weights, and the weighted sum's gradient.

    Where these keys are only some of those that compete, ``row_logsumexp`` (w, q) is that of all.
    """
    p = Problem(gram)  # first: what normalising needs for a moment is gone before gradients exist
    out = empty_result(gram, key_weight is not None, with_grad)
    if key_weight is not None:
        out.keys.copy_(_key_logsumexp(p))
    lse = out.keys.clone()
    if not len(gram.key) and not gram.sigmoid:
        out.rows.copy_(out.rows.new_full((), -math.inf) if gram.extra is None else gram.extra)
        if with_grad and gram.extra is not None:
            out.extra.copy_(row_weight)
    last = len(p.widths) - 1
    block = p.buffer()
    scratch = p.buffer() if last else block
    kept = [p.buffer() for _ in range(last)] if with_grad else []
    key_products = torch.zeros_like(p.key.factor)
    for rows in p.blocks():
        size = rows.stop - rows.start
        query = p.query(rows)
        products = torch.zeros_like(query.factor)
        same, keep = p.masks(rows)
        for index in range(last + 1):
            p.add_slice(block[:size], query, index)
            logits = p.logits(block[:size], query, index, scratch[:size])
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
            given = None if row_logsumexp is None else row_logsumexp[index, rows]
            factor = _potential(p, logits, weights, share, index, rows, keep, out, given)
            out.positive[index, rows] = gram.row_positive[rows] * positive
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
                _factor_products(p, logits, weights, products[index], key_products[index])
                weights.mul_(query.factor[index, :, None])
        if with_grad:
            _embedding_gradients(p, block[:size], kept, query, out.query[rows], out.key)
            out.scale.add_(query.to_given(out.query[rows], products).sum())
    if with_grad:
        out.scale.div_(gram.scale)
        p.key.to_given(out.key, key_products)
    return out


def _key_logsumexp(p: Problem) -> Tensor:
    """Logsumexp over rows for every width and key, 0 where nothing competes: (w, k)."""
    total = p.gram.key.new_full((len(p.widths), len(p.gram.key)), -math.inf)
    gram, other = p.buffer(), p.buffer()
    for rows in p.blocks():
        size = rows.stop - rows.start
        _, keep = p.masks(rows)
        query = p.query(rows)
        for index in range(len(p.widths)):
            p.add_slice(gram[:size], query, index)
            logits = p.logits(gram[:size], query, index, other[:size])
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
    given: Tensor | None,
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
    out.rows[index, rows] = value
    value = value if given is None else given
    return (share * (highest - value).exp()).masked_fill(value == -math.inf, 0.0)


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


def _factor_products(
    p: Problem, logits: Tensor, weights: Tensor, of_rows: Tensor, of_keys: Tensor
) -> None:
    """Gradients of a narrower width's factors, times the factor; overwrites ``logits``."""
    if p.bias is not None:
        logits.sub_(p.bias)
    logits.mul_(weights)
    of_rows.copy_(logits.sum(dim=1))
    of_keys.add_(logits.sum(dim=0))


def _embedding_gradients(
    p: Problem,
    weights: Tensor,
    kept: list[Tensor],
    query: UnitRows,
    of_query: Tensor,
    of_key: Tensor,
) -> None:
    """From the widest width to the narrowest: one running sum, one slice product per segment."""
    for index, columns in reversed(list(enumerate(query.columns))):
        if index < len(kept):
            narrower = kept[index][: weights.shape[0]]
            if p.factors:
                weights.addcmul_(narrower, p.key.factor[index])
            else:
                weights.add_(narrower)
        of_query[:, columns] = weights @ p.key.parts[index]
        of_key[:, columns].addmm_(weights.mT, query.parts[index])
