"""Numbers per row that need a matrix of rows against everything, a block of rows at a time."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def map_row_blocks(
    block: Callable[..., Tensor],
    rows: Sequence[Tensor],
    shared: Sequence[Tensor],
    *,
    columns: int,
    entries: int,
) -> Tensor:
    """``block`` of the first rows, of the next ones, ...; what it gives of each row, joined.

    What a block builds lives while it is computed, in forward and again in backward; what stays
    between is linear in the rows. No graph is kept per block: thousands of small pieces between
    large ones would keep the allocator from giving the large ones out again, and the process would
    grow with rows x columns although no tensor does.

    Args:
        block: takes slices of ``rows``, then ``shared``, and gives (r, ...). Where it closes over
            a tensor that learns, and in a compiled graph, each block is a checkpoint instead.
        rows: tensors of equally many rows, at least one row.
        shared: what every block sees whole.
        columns: of the matrix that a block builds.
        entries: of that matrix, at most, as long as one row fits.
    """
    step = max(1, entries // max(columns, 1))
    if torch.compiler.is_compiling() or _learns(block, rows, shared):
        pieces = zip(*(torch.split(tensor, step) for tensor in rows), strict=True)
        return torch.cat([_recomputed(block, *piece, *shared) for piece in pieces])
    mapped: Tensor = _Blocks.apply(block, len(rows), step, *rows, *shared)  # type: ignore[no-untyped-call]
    return mapped


def _learns(block: Callable[..., Tensor], rows: Sequence[Tensor], shared: Sequence[Tensor]) -> bool:
    """Whether a block needs gradients of what is not handed to it, seen on one row."""
    if not torch.is_grad_enabled():
        return False
    return block(*(t[:1].detach() for t in rows), *(t.detach() for t in shared)).requires_grad


def _recomputed(block: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    part: Tensor = checkpoint(block, *tensors, use_reentrant=False, preserve_rng_state=False)
    return part


def _autocast(state: tuple[str, torch.dtype, bool] | None) -> AbstractContextManager[Any]:
    """Autocast as it was in forward; nothing on a device that has none."""
    return nullcontext() if state is None else torch.autocast(state[0], state[1], state[2])


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Callable[..., Tensor], split: int, step: int, *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        kind = tensors[0].device.type
        ctx.autocast = None
        if torch.amp.is_autocast_available(kind):
            ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.block, ctx.split, ctx.step = block, split, step
        rows, shared = tensors[:split], tensors[split:]
        out: Tensor | None = None
        for start in range(0, rows[0].shape[0], step):
            piece = slice(start, start + step)
            part = block(*(tensor[piece] for tensor in rows), *shared)
            if out is None:
                out = part.new_empty(rows[0].shape[0], *part.shape[1:])
            out[piece] = part
        assert out is not None  # there is at least one row
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, split, step = ctx.saved_tensors, ctx.split, ctx.step
        needed = [i for i in range(len(tensors)) if ctx.needs_input_grad[3 + i]]
        if torch.is_grad_enabled():  # a derivative of this one is wanted: with all its graph
            pieces = zip(*(torch.split(t, step) for t in tensors[:split]), strict=True)
            whole = torch.cat([ctx.block(*piece, *tensors[split:]) for piece in pieces])
            learned = [tensors[i] for i in needed]
            of = torch.autograd.grad(whole, learned, gradient, create_graph=True, allow_unused=True)
            found = dict(zip(needed, of, strict=True))
            return None, None, None, *(found.get(i) for i in range(len(tensors)))
        total = {i: torch.zeros_like(tensors[i]) for i in needed}
        for start in range(0, tensors[0].shape[0], step):
            piece = slice(start, start + step)
            taken = [t[piece] if i < split else t for i, t in enumerate(tensors)]
            taken = [t.detach().requires_grad_(i in total) for i, t in enumerate(taken)]
            with torch.enable_grad(), _autocast(ctx.autocast):
                part = ctx.block(*taken)
            learned = [taken[i] for i in needed]
            of = torch.autograd.grad(part, learned, gradient[piece], allow_unused=True)
            for i, of_input in zip(needed, of, strict=True):
                if of_input is not None:
                    (total[i][piece] if i < split else total[i]).add_(of_input)
        return None, None, None, *(total.get(i) for i in range(len(tensors)))
