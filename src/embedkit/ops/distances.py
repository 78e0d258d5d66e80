"""Squared Euclidean distances, by blocks of rows or for pairs of rows."""

from typing import Any

import torch
from torch import Tensor

_PAIRS = 2**20  # entries of the differences of a block of pairs


def block_distances(x: Tensor, y: Tensor, y_squared: Tensor) -> Tensor:
    """(n, m) squared distances of a block of rows to all, >= 0; ``y_squared`` is (m,) |y|^2."""
    distance = torch.addmm(y_squared, x, y.mT, alpha=-2.0)
    return distance.add_(x.square().sum(dim=1)[:, None]).clamp_(min=0.0)


def pair_distances(x: Tensor, y: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(t,) squared distance of row ``left`` of x and row ``right`` of y for every pair.

    From exact differences, a block of pairs at a time: what is kept for backward is x, y and the
    pairs. Differentiable in x and y once.
    """
    distance: Tensor = torch.ops.embedkit.pair_distances(x, y, left, right)
    return distance


def _blocks(left: Tensor, width: int) -> list[slice]:
    step = max(1, _PAIRS // max(width, 1))
    return [slice(start, start + step) for start in range(0, left.shape[0], step)]


def _forward(x: Tensor, y: Tensor, left: Tensor, right: Tensor) -> Tensor:
    out = x.new_empty(left.shape[0])
    for block in _blocks(left, x.shape[1]):
        difference = x.index_select(0, left[block]).sub_(y.index_select(0, right[block]))
        out[block] = difference.square_().sum(dim=1)
    return out


def _gradients(
    grad: Tensor, x: Tensor, y: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    of_x, of_y = torch.zeros_like(x), torch.zeros_like(y)
    for block in _blocks(left, x.shape[1]):
        difference = x.index_select(0, left[block]).sub_(y.index_select(0, right[block]))
        difference.mul_(2.0 * grad[block, None])
        of_x.index_add_(0, left[block], difference)
        of_y.index_add_(0, right[block], difference, alpha=-1.0)
    return of_x, of_y


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.embedkit.pair_distance_gradients(grad, *ctx.saved_tensors), None, None)


_NAMES = "embedkit::pair_distances", "embedkit::pair_distance_gradients"
torch.library.define(_NAMES[0], "(Tensor x, Tensor y, Tensor left, Tensor right) -> Tensor")
torch.library.define(
    _NAMES[1],
    "(Tensor grad, Tensor x, Tensor y, Tensor left, Tensor right) -> (Tensor, Tensor)",
)
torch.library.impl(_NAMES[0], "default", _forward)
torch.library.impl(_NAMES[1], "default", _gradients)


def _fake_forward(x: Tensor, y: Tensor, left: Tensor, right: Tensor) -> Tensor:
    del y, right
    return x.new_empty(left.shape[0])


def _fake_gradients(
    grad: Tensor, x: Tensor, y: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    del grad, left, right
    return torch.empty_like(x), torch.empty_like(y)


torch.library.register_fake(_NAMES[0], _fake_forward)
torch.library.register_fake(_NAMES[1], _fake_gradients)
torch.library.register_autograd(_NAMES[0], _backward, setup_context=_save)
