"""What a sweep over a Gram matrix is given, block by block, and what it gives back."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

# Entries of a block, all widths together: on a CPU tall enough for products at full speed and small
# enough for its cache, on a GPU large enough to fill the chip.
BLOCK_ENTRIES = {"cpu": 2**22, "cuda": 2**26}
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
        self.bottom = torch.finfo(self.query.dtype).min / 4

    def starts(self) -> range:
        return range(0, self.query.shape[0] if self.key.shape[0] else 0, self.step)

    def buffer(self) -> Tensor:
        return self.query.new_empty(self.step, self.key.shape[0])

    def keep(self, start: int, stop: int) -> Tensor | None:
        """1 where an entry of the block competes, else 0, where ids decide it.

        A number and not a bool: multiplying is many times faster than filling through a mask.
        """
        if self.query_ids is None or self.key_ids is None:
            return None
        keep = (self.query_ids[start:stop, None] != self.key_ids).to(self.query.dtype)
        if self.diagonal:
            keep.diagonal(start).fill_(self.diagonal == KEEP)
        return keep

    def silence(self, weights: Tensor, start: int, keep: Tensor | None) -> None:
        """Set to 0 what does not compete."""
        if keep is not None:
            weights.mul_(keep)
        elif self.diagonal == DROP:
            weights.diagonal(start).zero_()

    def sink(self, logits: Tensor, start: int, keep: Tensor | None) -> None:
        """Lower what does not compete below every logit, by a finite amount."""
        if keep is not None:
            logits.add_(keep.sub(1.0).mul_(-self.bottom))
        elif self.diagonal == DROP:
            logits.diagonal(start).fill_(self.bottom)

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
