"""Sums of Gaussian kernels over all pairs of rows, with their gradients, a block at a time."""

from typing import Any

import torch
from torch import Tensor

from embedkit.ops._precision import full_precision
from embedkit.ops.distances import block_distances

_ENTRIES = 2**20  # of one block of kernel values


def kernel_sum(x: Tensor, y: Tensor | None, rate: Tensor) -> Tensor:
    """Sum over all pairs of the mean over rates of exp(-rate |x - y|^2); y None: x with itself."""
    wanted = torch.is_grad_enabled() and (x.requires_grad or (y is not None and y.requires_grad))
    total: Tensor = torch.ops.embedkit.gaussian_kernel_sum(x, y, rate, wanted)[0]
    return total


def _forward(
    x: Tensor, y: Tensor | None, rate: Tensor, wanted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum and, where wanted, its gradients, a block of rows of x at a time."""
    other = x if y is None else y
    of_x, of_y = _gradients(x, y, wanted)
    total, squared = x.new_zeros(()), other.square().sum(dim=1)
    step = max(1, _ENTRIES // max(other.shape[0], 1))
    with full_precision(x):
        for start in range(0, x.shape[0], step):
            rows = x[start : start + step]
            distance = block_distances(rows, other, squared)
            if y is None:  # a row is at 0 from itself, whatever rounding says
                distance.diagonal(offset=start).zero_()
            slope = torch.zeros_like(distance) if wanted else None
            for one in rate.unbind():
                kernel = torch.exp(distance * -one)
                total += kernel.sum()
                if slope is not None:
                    slope.addcmul_(kernel, one, value=-2.0)
            if slope is None:
                continue
            of_x[start : start + step] = slope.sum(dim=1)[:, None] * rows - slope @ other
            if y is not None:
                of_y += slope.sum(dim=0)[:, None] * y - slope.mT @ rows
    count = max(rate.shape[0], 1)
    # Each pair of x with itself is met from both ends.
    return total / count, of_x * ((2 if y is None else 1) / count), of_y / count


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.within = inputs[1] is None
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    of_x, of_y = ctx.saved_tensors
    return grad * of_x, None if ctx.within else grad * of_y, None, None


def _gradients(x: Tensor, y: Tensor | None, wanted: bool) -> tuple[Tensor, Tensor]:
    """Zeros to add gradients to; empty where nobody wants them."""
    of_x = torch.zeros_like(x) if wanted else x.new_zeros(0)
    return of_x, torch.zeros_like(y) if wanted and y is not None else x.new_zeros(0)


def _fake(x: Tensor, y: Tensor | None, rate: Tensor, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    del rate
    return x.new_empty(()), *_gradients(x, y, wanted)


_NAME = "embedkit::gaussian_kernel_sum"
torch.library.define(
    _NAME, "(Tensor x, Tensor? y, Tensor rate, bool wanted) -> (Tensor, Tensor, Tensor)"
)
torch.library.impl(_NAME, "default", _forward)
torch.library.register_fake(_NAME, _fake)
torch.library.register_autograd(_NAME, _backward, setup_context=_save)
