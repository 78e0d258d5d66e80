"""All-pairs distance on the ball as one opaque operator with a gradient of its own."""

# ruff: noqa: ARG001 (the signatures of an operator, its shape rule and its gradient must agree)

import torch
from torch import Tensor

from embedkit.geometry._pairs import (
    doubtful,
    extended,
    row_blocks,
    squared_distances,
    transformable,
)

_NEAREST = 2.0**-96  # s times a distance; pairs below count as equal, since its inverse overflows


@torch.library.custom_op("embedkit::poincare_pairs", mutates_args=())
def poincare_pairs(
    x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, c: Tensor, like: Tensor
) -> Tensor:
    """(n, m)  (2/s) asinh sqrt(c |x-y|^2 / (of_x of_y))  of wide rows, in the dtype of ``like``."""
    out = like.new_empty(x.shape[0], y.shape[0])
    row, column = (c.sqrt() * of_x.rsqrt()).to(out.dtype), of_y.rsqrt().to(out.dtype)
    scale = (2 / c.sqrt()).to(out.dtype)
    left, right = extended(x, y)
    for block in row_blocks(out):
        squared = squared_distances(x[block], y, left[block], right, doubtful(like.dtype))
        piece = out[block].copy_(squared.sqrt_())
        piece.mul_(row[block, None]).mul_(column).asinh_().mul_(scale)
    return out


@poincare_pairs.register_fake
def _(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, c: Tensor, like: Tensor) -> Tensor:
    return like.new_empty(x.shape[0], y.shape[0])


@torch.library.custom_op("embedkit::poincare_pair_gradients", mutates_args=())
def poincare_pair_gradients(
    grad: Tensor, out: Tensor, x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of rows, of the factors 1 - c|x|^2 and of c, from the distances d themselves.

    With z = s d:  dd / d|x-y|^2 = (2c/s) / (of_x of_y sinh z),  and  dd / dlog q = tanh(z/2) / s,
    from one exponential,  p = e^z - 1:  sinh z = p (p+2) / (2 (p+1)),  tanh(z/2) = p / (p+2).
    Products run in the wide dtype, since those of a near-duplicate nearly cancel.
    """
    root = c.sqrt()
    row, column = (8 * root / of_x).to(out.dtype), (1 / of_y).to(out.dtype)
    to_x, to_y = torch.empty_like(x), torch.zeros_like(y)
    sum_x, sum_y = torch.empty_like(of_x), torch.zeros_like(of_y)
    weight_y, to_c = torch.zeros_like(of_y), torch.zeros_like(c)
    right = (
        torch.cat([y, torch.ones_like(y[:, :1])], dim=1)
        if y.shape[1]
        else y.new_ones(y.shape[0], 1)
    )
    for block in row_blocks(out):
        g, d = grad[block], out[block]
        p = (d * root.to(d.dtype)).expm1_()
        share = (p + 2).reciprocal_()
        tanh = share.mul(p).mul_(g)
        weight = share.div_(p).masked_fill_(p < _NEAREST, 0.0).mul_(p.add_(1)).mul_(g)
        weight.mul_(column).mul_(row[block, None])
        sum_x[block] = tanh.sum(1, dtype=of_x.dtype)
        sum_y += tanh.sum(0, dtype=of_y.dtype)
        to_c -= (g * d).sum(dtype=c.dtype)
        weight = weight.to(x.dtype)
        product = weight @ right
        to_x[block] = x[block] * product[:, -1:] - product[:, :-1]
        to_y.addmm_(weight.mT, x[block], alpha=-1)
        weight_y += weight.sum(0)
    to_y += y * weight_y[:, None]
    to_c = to_c / (2 * c) + sum_x.sum() / (root * c)
    return to_x, to_y, -sum_x / (root * of_x), -sum_y / (root * of_y), to_c


@poincare_pair_gradients.register_fake
def _(
    grad: Tensor, out: Tensor, x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(t) for t in (x, y, of_x, of_y, c))  # type: ignore[return-value]


_gradients = transformable(poincare_pair_gradients)


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(output, *inputs[:-1])


def _backward(ctx, gradient):  # type: ignore[no-untyped-def]
    return (*_gradients(gradient, *ctx.saved_tensors), None)


poincare_distances = transformable(poincare_pairs, _setup, _backward)
