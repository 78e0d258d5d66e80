"""All-pairs distance from directions and radii, at any radius: one opaque operator."""

# ruff: noqa: ARG001 (the signatures of an operator, its shape rule and its gradient must agree)

import math

import torch
from torch import Tensor

from embedkit.geometry._pairs import (
    doubtful,
    extended,
    row_blocks,
    squared_distances,
    transformable,
)

_MOST = 80.0  # of a logarithm of a gradient: finite in float32, like all that is made of it


def _log_sinh(x: Tensor) -> Tensor:
    """log |sinh x|, minus infinity at 0."""
    size = x.abs()
    return size + (-torch.expm1(-2 * size)).log() - math.log(2)


def _unit(x: Tensor) -> Tensor:
    size = x.norm(dim=1, keepdim=True)
    unit: Tensor = x / size.masked_fill(size == 0, 1.0)
    return unit


def _log_per_length(x: Tensor, a: Tensor, limit: Tensor) -> Tensor:
    """log(sinh(a) / |x|) of every row; ``limit`` is what the ratio is at 0."""
    size = x.norm(dim=1)
    zero = size == 0
    return torch.where(zero, limit.log(), _log_sinh(a) - size.masked_fill(zero, 1.0).log())


def _haversine(u: Tensor, v: Tensor, left: Tensor, right: Tensor, share: float) -> Tensor:
    """(b, m)  sin^2(t / 2) of the angles between unit rows."""
    return squared_distances(u, v, left, right, share).div_(4)


@torch.library.custom_op("embedkit::haversine_pairs", mutates_args=())
def haversine_pairs(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, limit: Tensor, like: Tensor
) -> Tensor:
    """(n, m)  asinh sqrt( sinh^2((a-b)/2) + sinh(a) sinh(b) sin^2(t/2) ),  t the angle of rows.

    Twice this is s times the distance. In logarithms, so that no radius overflows. Only the
    directions of ``x`` and ``y`` count; how sinh(a) / |x| behaves at 0, ``limit``, is needed for
    the gradient there.
    """
    out = like.new_empty(x.shape[0], y.shape[0])
    u, v = _unit(x), _unit(y)
    left, right = extended(u, v)
    log_a, log_b = _log_sinh(a), _log_sinh(b)
    for block in row_blocks(out):
        angle = _haversine(u[block], v, left[block], right, doubtful(like.dtype))
        across = angle.log_().add_(log_a[block, None]).add_(log_b)
        log_q = torch.logaddexp(2 * _log_sinh((a[block, None] - b) / 2), across)
        near = log_q.clamp(max=60).div_(2).exp_().asinh_()
        out[block] = torch.where(log_q < 50, near, log_q / 2 + math.log(2))
    return out


@haversine_pairs.register_fake
def _(x: Tensor, y: Tensor, a: Tensor, b: Tensor, limit: Tensor, like: Tensor) -> Tensor:
    return like.new_empty(x.shape[0], y.shape[0])


@torch.library.custom_op("embedkit::haversine_pair_gradients", mutates_args=())
def haversine_pair_gradients(
    grad: Tensor, out: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, limit: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the directions of rows and of their radii.

    With r = asinh sqrt(q):  dr / dq = 1 / sinh(2r),  dq/da = sinh(a-b)/2 + cosh(a) sinh(b) h,
    dq/dh = sinh(a) sinh(b),  h = sin^2(t/2).
    """
    to_x, to_y = torch.empty_like(x), torch.zeros_like(y)
    to_a, to_b = torch.empty_like(a), torch.zeros_like(b)
    of_v = torch.zeros_like(b)
    u, v = _unit(x), _unit(y)
    left, right = extended(u, v)
    log_a, log_b = _log_sinh(a), _log_sinh(b)
    per_x, per_y = _log_per_length(x, a, limit), _log_per_length(y, b, limit)
    coth_a, coth_b = (t.tanh().reciprocal().masked_fill(t == 0, 0.0) for t in (a, b))
    for block in row_blocks(out):
        g, r = grad[block].to(x.dtype), out[block].to(x.dtype)
        slope = -_log_sinh(2 * r).masked_fill_(r == 0, torch.inf)  # log dr/dq; nothing at 0
        angle = _haversine(u[block], v, left[block], right, doubtful(out.dtype))
        gone = a[block, None] - b
        # both are 1/2 at most; rounding of radii of 1e17 and more could make them anything
        radial = (_log_sinh(gone) + slope - math.log(2)).clamp_(max=0).exp() * gone.sign() * g
        turn = (log_a[block, None] + log_b + slope + angle.log()).clamp_(max=0).exp() * g
        to_a[block] = (radial + turn * coth_a[block, None]).sum(1)
        to_b += (turn * coth_b - radial).sum(0)
        cosine = 1 - 2 * angle
        weight = (per_x[block, None] + log_b + slope).clamp(max=_MOST).exp() * g / 2
        to_x[block] = u[block] * (weight * cosine).sum(1, keepdim=True) - weight @ v
        weight = (log_a[block, None] + per_y + slope).clamp(max=_MOST).exp() * g / 2
        to_y.addmm_(weight.mT, u[block], alpha=-1)
        of_v += (weight * cosine).sum(0)
    return to_x, to_y + v * of_v[:, None], to_a, to_b


@haversine_pair_gradients.register_fake
def _(
    grad: Tensor, out: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, limit: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y), torch.empty_like(a), torch.empty_like(b)


_gradients = transformable(haversine_pair_gradients)


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(output, *inputs[:-1])


def _backward(ctx, gradient):  # type: ignore[no-untyped-def]
    return (*_gradients(gradient, *ctx.saved_tensors), None, None)


haversine_distances = transformable(haversine_pairs, _setup, _backward)
