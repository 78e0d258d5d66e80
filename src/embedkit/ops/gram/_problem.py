"""What a sweep over a Gram matrix works on, block by block, and what it gives back."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from embedkit.ops.gram._unit import UnitRows

# Rows of a block at most, and entries of all its buffers: on a CPU tall enough for products
# at full speed and small enough for its cache, on a GPU large enough to fill the chip.
BLOCK_ROWS = {"cpu": 512}
BLOCK_ENTRIES = {"cpu": 2**24, "cuda": 2**27}
LEAST_ROWS = 8
# While no |logit| exceeds this, exp neither overflows nor loses a row: no maximum is subtracted.
SAFE_EXPONENT = 40.0


class Gram(NamedTuple):
    """Logits scale * similarity + bias of all pairs, and who competes with whom.

    The potential of a row at one width is the logsumexp (or sum of softplus) of its logits over the
    keys that compete, minus ``row_positive`` times the sum of its positive logits.

    Attributes:
        query: (q, d) rows, d the last of ``widths``.
        key: (k, d) rows.
        widths: increasing prefix widths; one Gram matrix each, all for the price of the last.
        scale: 0-d, multiplies the similarities.
        extra: (w, q) logit that joins each row's logsumexp; None: nothing.
        bias: 0-d, added to every logit; None: nothing.
        query_ids: (q,) integers; equal ids match. None: nothing matches by id.
        key_ids: (k,) integers.
        row_positive: (q,) weight of each of a row's positive logits.
        key_positive: (k,) the same for keys, where potentials of keys are wanted.
        cosine: similarity is the cosine of each prefix, else the inner product.
        own: row i's one positive is key i; matches by id don't compete. False: all matches by id.
        same_rows: query and key are the same rows; no row meets itself.
        decoupled: positives don't compete.
        sigmoid: softplus in place of the logsumexp.
        bound: no logit is larger in size than this; infinity where that is not known.
    """

    query: Tensor
    key: Tensor
    widths: list[int]
    scale: Tensor
    extra: Tensor | None
    bias: Tensor | None
    query_ids: Tensor | None
    key_ids: Tensor | None
    row_positive: Tensor
    key_positive: Tensor | None = None
    cosine: bool = True
    own: bool = True
    same_rows: bool = False
    decoupled: bool = False
    sigmoid: bool = False
    bound: float = float("inf")


class Problem:
    """Keys of unit length (for cosine), masks and blocks.

    Logit at width w: row_factor key_factor <query[:w], key[:w]> + bias, with the scale inside
    the query and without factors at the last width and for dot products.
    """

    def __init__(self, gram: Gram) -> None:
        self.gram = gram
        self.widths = gram.widths
        self.bias = gram.bias
        self.key = UnitRows(gram.key, gram.widths, gram.cosine)
        self.factors = gram.cosine and len(self.widths) > 1
        self.step = self._step()
        bound = gram.bound
        if math.isinf(bound) and gram.query.device.type == "cpu":
            bound = float(gram.scale.abs())
            if not gram.cosine:  # Cauchy-Schwarz
                for side in (gram.query, gram.key):
                    bound *= float(torch.linalg.vector_norm(side, dim=1).amax()) if len(side) else 0
        self.safe = bound <= SAFE_EXPONENT
        self.bottom = torch.finfo(gram.query.dtype).min / 4
        self.drops_diagonal = gram.same_rows or (gram.own and gram.decoupled)

    def _step(self) -> int:
        """Rows of a block: a multiple of 32, unless only a few fit."""
        device, several = self.gram.query.device.type, len(self.widths) > 1
        entries = BLOCK_ENTRIES.get(device, 2**24) // (len(self.widths) + several)
        tallest = BLOCK_ROWS.get(device, 2**16) // (1 + several)
        step = min(tallest, entries // max(len(self.gram.key), 1))
        step = step // 32 * 32 if step > 32 else max(step, LEAST_ROWS)
        return max(1, min(step, len(self.gram.query)))

    def query(self, rows: slice) -> UnitRows:
        """The rows of one block, scaled."""
        gram = self.gram
        return UnitRows(gram.query[rows], gram.widths, gram.cosine, gram.scale)

    def blocks(self) -> list[slice]:
        """The rows, a block at a time; nothing where there is no key."""
        rows = len(self.gram.query) if len(self.gram.key) else 0
        return [slice(start, min(start + self.step, rows)) for start in range(0, rows, self.step)]

    def buffer(self) -> Tensor:
        """Room for one block, its rows along the inner axis."""
        return self.gram.query.new_empty(len(self.gram.key), self.step).mT

    def masks(self, rows: slice) -> tuple[Tensor | None, Tensor | None]:
        """Which entries match by id, and which compete where not all do; 1.0 or 0.0.

        Numbers and not bools: multiplying is many times faster than filling through a mask.
        """
        if self.gram.query_ids is None or self.gram.key_ids is None:
            return None, None
        same = (
            (self.gram.key_ids[:, None] == self.gram.query_ids[rows]).to(self.gram.query.dtype).mT
        )
        if self.gram.same_rows:
            same.diagonal(rows.start).zero_()
        if not (self.gram.own or self.gram.decoupled):
            return same, None
        keep = 1.0 - same
        if self.gram.own:
            keep.diagonal(rows.start).fill_(0.0 if self.gram.decoupled else 1.0)
        return same, keep

    def silence(self, weights: Tensor, rows: slice, keep: Tensor | None) -> None:
        """Set to 0 what does not compete."""
        if keep is not None:
            weights.mul_(keep)
        elif self.drops_diagonal:
            weights.diagonal(rows.start).zero_()

    def sink(self, logits: Tensor, rows: slice, keep: Tensor | None) -> None:
        """Lower what does not compete below every logit, by a finite amount."""
        if keep is not None:
            logits.add_(keep.sub(1.0).mul_(-self.bottom))
        elif self.drops_diagonal:
            logits.diagonal(rows.start).fill_(self.bottom)

    def add_slice(self, gram: Tensor, query: UnitRows, index: int) -> None:
        """Turn the Gram matrix of the previous width into the one of width ``index``."""
        left, right = query.parts[index], self.key.parts[index].mT
        if index == 0:
            torch.mm(left, right, out=gram)
        else:
            gram.addmm_(left, right)

    def logits(self, gram: Tensor, query: UnitRows, index: int, out: Tensor) -> Tensor:
        """Logits of one width; in place of ``gram`` at the last one, else in ``out``."""
        if index < len(self.widths) - 1 and self.factors:
            gram = torch.mul(gram, self.key.factor[index], out=out)
            gram.mul_(query.factor[index, :, None])
        elif index < len(self.widths) - 1:
            gram = out.copy_(gram)
        return gram if self.bias is None else gram.add_(self.bias)


class Result(NamedTuple):
    """Potentials (w, q) and (w, k), and the gradients of their weighted sum.

    Rows hold the logsumexp (or sum of softplus) alone, -inf where nothing competes; ``positive`` is
    the weighted sum of positive logits that a potential takes off.
    """

    rows: Tensor
    keys: Tensor
    query: Tensor
    key: Tensor
    scale: Tensor
    extra: Tensor
    bias: Tensor
    positive: Tensor


def empty_result(gram: Gram, with_keys: bool, with_grad: bool) -> Result:
    """Zeros of the shapes of all results; (0,) for what is not asked for."""
    count, rows, keys = len(gram.widths), gram.query.shape[0], gram.key.shape[0]

    def zeros(wanted: bool, *shape: int) -> Tensor:
        return gram.query.new_zeros(shape if wanted else (0,))

    return Result(
        rows=zeros(True, count, rows),
        keys=zeros(with_keys, count, keys),
        query=zeros(with_grad, *gram.query.shape),
        key=zeros(with_grad, *gram.key.shape),
        scale=zeros(with_grad),
        extra=zeros(with_grad and gram.extra is not None, count, rows),
        bias=zeros(with_grad and gram.bias is not None),
        positive=zeros(True, count, rows),
    )
