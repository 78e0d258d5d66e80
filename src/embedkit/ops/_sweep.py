"""One pass over a Gram matrix in blocks of rows: its logsumexp or softplus, and their gradient.

These functions run inside the opaque operator of :mod:`embedkit.ops.gram`, below autograd, on plain
tensors. Each block of rows sees all keys, so its normaliser is known at once and the gradient is
made in the same pass: three matrix products in all, as many as the dense form.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import softplus

# Entries of a block, all widths together: on a CPU tall enough for products at full speed and small
# enough for its cache, on a GPU large enough to fill the chip.
BLOCK_ENTRIES = {"cpu": 2**21, "cuda": 2**26}
LEAST_ROWS = 8
# While no |logit| exceeds this, exp neither overflows nor loses a row: no maximum is subtracted.
SAFE_EXPONENT = 40.0
KEEP, DROP = 1, 2


@dataclass
class Problem:
    """Logit of row i and key j at width w: row_factor key_factor <q_i[:w], k_j[:w]> + bias.

    The factors exist for all widths but the last, or are None (1). An entry is left out where the
    ids are equal, except that ``diagonal`` KEEP brings entry (i, i) back and DROP leaves it out.
    """

    query: Tensor
    key: Tensor
    widths: list[int]
    row_factor: Tensor | None
    key_factor: Tensor | None
    extra: Tensor | None
    bias: Tensor | None
    query_ids: Tensor | None
    key_ids: Tensor | None
    diagonal: int
    bound: float
    sigmoid: bool

    def __post_init__(self) -> None:
        rows, keys = self.query.shape[0], self.key.shape[0]
        entries = BLOCK_ENTRIES.get(self.query.device.type, 2**24) // len(self.widths)
        self.step = max(1, min(rows, max(LEAST_ROWS, entries // max(keys, 1))))
        if math.isinf(self.bound) and self.query.device.type == "cpu" and rows and keys:
            # Cauchy-Schwarz; the factors only normalise prefixes, so they never exceed it.
            longest = self.query.norm(dim=1).max() * self.key.norm(dim=1).max()
            self.bound = float(longest)
        self.safe = self.bound <= SAFE_EXPONENT

    def starts(self) -> range:
        return range(0, self.query.shape[0] if self.key.shape[0] else 0, self.step)

    def buffer(self) -> Tensor:
        return self.query.new_empty(self.step, self.key.shape[0])

    def left_out(self, start: int, stop: int) -> Tensor | None:
        """The block's mask of entries that don't compete, where ids decide it."""
        if self.query_ids is None or self.key_ids is None:
            return None
        mask = self.query_ids[start:stop, None] == self.key_ids
        if self.diagonal:
            mask.diagonal(start).fill_(self.diagonal == DROP)
        return mask

    def leave_out(self, block: Tensor, value: float, start: int, mask: Tensor | None) -> None:
        if mask is not None:
            block.masked_fill_(mask, value)
        elif self.diagonal == DROP:
            block.diagonal(start).fill_(value)

    def add_slice(self, gram: Tensor, rows: slice, index: int) -> None:
        """Turn the Gram matrix of the previous width into the one of width ``index``."""
        columns = self.columns(index)
        left, right = self.query[rows, columns], self.key[:, columns].mT
        if index == 0:
            torch.mm(left, right, out=gram)
        else:
            gram.addmm_(left, right)

    def columns(self, index: int) -> slice:
        return slice(self.widths[index - 1] if index else 0, self.widths[index])

    def logits(self, gram: Tensor, rows: slice, index: int, out: Tensor) -> Tensor:
        """Logits of one width; in place of ``gram`` at the last one, else in ``out``."""
        if index < len(self.widths) - 1:
            if self.row_factor is None or self.key_factor is None:
                gram = out.copy_(gram)
            else:
                gram = torch.mul(gram, self.key_factor[index], out=out)
                gram.mul_(self.row_factor[index, rows, None])
        return gram if self.bias is None else gram.add_(self.bias)


def key_logsumexp(p: Problem) -> Tensor:
    """Logsumexp over rows for every width and key, -inf where a key has no row: (w, k)."""
    total = p.buffer().new_full((len(p.widths), p.key.shape[0]), -math.inf)
    gram, other = p.buffer(), p.buffer()
    for start in p.starts():
        rows = slice(start, min(start + p.step, p.query.shape[0]))
        size = rows.stop - start
        mask = p.left_out(start, rows.stop)
        for index in range(len(p.widths)):
            p.add_slice(gram[:size], rows, index)
            logits = p.logits(gram[:size], rows, index, other[:size])
            p.leave_out(logits, -math.inf, start, mask)
            total[index] = torch.logaddexp(total[index], logits.logsumexp(dim=0))
    return total


@runtime_checkable
class Described(Protocol):
    """What the shapes of a result depend on: a Problem, or the Gram that it was made from."""

    @property
    def query(self) -> Tensor: ...
    @property
    def key(self) -> Tensor: ...
    @property
    def widths(self) -> list[int]: ...
    @property
    def row_factor(self) -> Tensor | None: ...
    @property
    def extra(self) -> Tensor | None: ...
    @property
    def bias(self) -> Tensor | None: ...


class Result(NamedTuple):
    """Potentials (w, q) and (w, k), and the gradients of their weighted sum."""

    rows: Tensor
    keys: Tensor
    query: Tensor
    key: Tensor
    row_factor: Tensor
    key_factor: Tensor
    extra: Tensor
    bias: Tensor


def empty_result(p: Described, with_keys: bool, with_grad: bool) -> Result:
    """Zeros of the shapes of all results; (0,) for what is not asked for."""
    count, rows, keys = len(p.widths), p.query.shape[0], p.key.shape[0]

    def zeros(wanted: bool, *shape: int) -> Tensor:
        return p.query.new_zeros(shape if wanted else (0,))

    factors = with_grad and p.row_factor is not None
    return Result(
        rows=zeros(True, count, rows),
        keys=zeros(with_keys, count, keys),
        query=zeros(with_grad, *p.query.shape),
        key=zeros(with_grad, *p.key.shape),
        row_factor=zeros(factors, count - 1, rows),
        key_factor=zeros(factors, count - 1, keys),
        extra=zeros(with_grad and p.extra is not None, count, rows),
        bias=zeros(with_grad and p.bias is not None),
    )


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
        mask = p.left_out(start, rows.stop)
        for index in range(last + 1):
            p.add_slice(gram[:size], rows, index)
            logits = p.logits(gram[:size], rows, index, other[:size])
            weights = logits if index == last else kept[index][:size]
            from_keys = None
            if key_weight is not None and with_grad:
                from_keys = torch.sub(logits, out.keys[index]).exp_().mul_(key_weight[index])
                p.leave_out(from_keys, 0.0, start, mask)
            factor = _potential(p, logits, weights, row_weight, index, rows, mask, out)
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
    mask: Tensor | None,
    out: Result,
) -> Tensor:
    """Write a block's potentials; turn ``weights`` into its gradient up to the returned factor."""
    share = row_weight[index, rows]
    if p.sigmoid:
        # threshold 40: beyond it softplus(x) - x < 5e-18, below float64's resolution of x.
        value = softplus(logits, threshold=40.0)
        p.leave_out(value, 0.0, rows.start, mask)
        out.rows[index, rows] = value.sum(dim=1)
        torch.sigmoid(logits, out=weights)
        p.leave_out(weights, 0.0, rows.start, mask)
        return share
    highest = share.new_zeros(share.shape)
    if p.safe:
        torch.exp(logits, out=weights)
    else:
        p.leave_out(logits, torch.finfo(logits.dtype).min, rows.start, mask)
        highest = logits.amax(dim=1)
        torch.sub(logits, highest[:, None], out=weights).exp_()
    p.leave_out(weights, 0.0, rows.start, mask)
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
    """Gradients of a narrower width's norms; leaves in ``weights`` the gradient of its Gram."""
    if p.row_factor is None or p.key_factor is None:
        weights.mul_(factor[:, None])
        return
    if p.bias is not None:
        logits.sub_(p.bias)
    logits.mul_(weights)
    out.row_factor[index, rows] = logits.sum(dim=1) * factor
    out.key_factor[index].add_(factor @ logits)
    weights.mul_((factor * p.row_factor[index, rows])[:, None]).mul_(p.key_factor[index])


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
        if index < len(p.widths) - 1:
            weights.add_(kept[index][:size])
        columns = p.columns(index)
        out.query[rows, columns] = weights @ p.key[:, columns]
        out.key[:, columns].addmm_(weights.mT, p.query[rows, columns])
