"""Sums of checkpoints, a portion of the names at a time, in float64."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit.surgery._checkpoints import Checkpoint, Entry, Layout, open_checkpoint

_PORTIONS = 16  # that a model is taken in
_LEAST = 2**20  # entries of a portion, so that small models are taken whole

Piece = tuple[str, slice]
"""A name, and a part of its flattened tensor."""


def portions(layout: Layout) -> Iterator[list[Piece]]:
    """Cut what is averaged into parts of equal size, of which one at a time is in memory."""
    sizes = {
        name: torch.Size(entry.shape).numel() for name, entry in layout.items() if entry.averaged
    }
    limit = max(_LEAST, -(-sum(sizes.values()) // _PORTIONS))
    portion: list[Piece] = []
    room = limit
    for name, size in sizes.items():
        start = 0
        while start < size:
            stop = min(start + room, size)
            portion.append((name, slice(start, stop)))
            start, room = stop, room - (stop - start)
            if not room:
                yield portion
                portion, room = [], limit
    if portion:
        yield portion


def _wide_piece(tensor: Tensor, part: slice) -> Tensor:
    """A part of a flattened tensor, in float64 or complex128."""
    return tensor.detach().reshape(-1)[part].to(_wide(tensor.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def running(layout: Layout) -> Layout:
    """The layout of a sum that is kept for the whole model: float32, where entries are narrower."""
    return {
        name: Entry(entry.shape, torch.float32)
        if entry.dtype.is_floating_point and entry.dtype != torch.float64
        else entry
        for name, entry in layout.items()
    }


@torch.no_grad()
def weighted_sum(
    owner: str,
    sources: Mapping[str, Checkpoint],
    shares: Mapping[str, Sequence[float]],
    layout: Layout,
) -> dict[str, Any]:
    """The sources times their shares, by name, in the types of ``layout``; the rest is the first's.

    For each portion every file is opened, added and closed, so that little of it is ever mapped.
    """
    first = open_checkpoint(owner, *next(iter(sources.items())))
    result: OrderedDict[str, Any] = OrderedDict()
    for name, value in first.items():
        if name in layout and layout[name].averaged:
            shape, dtype = layout[name]
            result[name] = torch.empty(shape, dtype=dtype, device=value.device)
        else:
            result[name] = value.detach().clone() if isinstance(value, Tensor) else value
    if hasattr(first, "_metadata"):  # the versions of the modules
        vars(result)["_metadata"] = first._metadata
    del first
    for portion in portions(layout):
        sums = {}
        for name, part in portion:
            wide, device = _wide(layout[name].dtype), result[name].device
            sums[name] = torch.zeros(part.stop - part.start, dtype=wide, device=device)
        for place, (title, source) in enumerate(sources.items()):
            state = open_checkpoint(owner, title, source)
            for name, part in portion:
                if share := shares[name][place]:
                    total = sums[name]
                    total.add_(_wide_piece(state[name], part).to(total.device), alpha=share)
            del state
        for name, part in portion:
            result[name].view(-1)[part].copy_(sums[name])
    return result


@torch.no_grad()
def distances(
    owner: str, base: Checkpoint, sources: Mapping[str, Checkpoint], layout: Layout
) -> dict[str, Float[Tensor, " c"]]:
    """How far each source is from ``base``, by name: the norm of the difference."""
    squares = {name: torch.zeros(len(sources), dtype=torch.float64) for name in layout}
    for portion in portions(layout):
        start = open_checkpoint(owner, "base", base)
        for place, (title, source) in enumerate(sources.items()):
            state = open_checkpoint(owner, title, source)
            for name, part in portion:
                squares[name][place] += _distance(start[name], state[name], part).square().cpu()
            del state
        del start
    return {name: square.sqrt() for name, square in squares.items()}


def _distance(start: Tensor, end: Tensor, part: slice) -> Float[Tensor, ""]:
    here, there = _wide_piece(end, part), _wide_piece(start, part).to(end.device)
    # Equal infinities, as in a stored attention mask, have not moved.
    moved: Tensor = torch.linalg.vector_norm((here - there).masked_fill_(here == there, 0))
    return moved


@torch.no_grad()
def add_to(total: dict[str, Any], state: Mapping[str, Any], layout: Layout) -> None:
    """Add a checkpoint to a running sum, in place."""
    for name, entry in layout.items():
        if entry.averaged:
            total[name].add_(state[name].to(total[name]))
