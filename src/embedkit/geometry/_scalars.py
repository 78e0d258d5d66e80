"""Functions of a squared length that are smooth at 0, where length itself is not."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def dot(x: Tensor, y: Tensor) -> Tensor:
    """(..., 1) dot products."""
    return (x * y).sum(dim=-1, keepdim=True)


def length(x: Tensor) -> Tensor:
    """(..., 1) lengths; the zero vector has gradient 0."""
    squared = dot(x, x)
    zero = squared == 0
    return squared.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def shortened(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | float]:
    """Wide vectors made from ``dtype``, shorter where squares would overflow, and by what factor.

    That is float64 alone: squares of all others are numbers of the wide dtype. The factor counts
    as a constant, so gradients are right for what depends on directions only.
    """
    if dtype != torch.float64:
        return x, 1.0
    size = x.detach().abs().clamp(max=1e290).sum(dim=-1, keepdim=True)
    factor = (1e130 / size).clamp(max=1.0)
    return x * factor, factor


def _even(q: Tensor, function: Callable[[Tensor], Tensor], series: Sequence[float]) -> Tensor:
    """function(sqrt(q)) / sqrt(q), below 1e-4 by its Taylor series in q."""
    small = q < 1e-4
    root = q.masked_fill(small, 0.25).sqrt()
    low = q.masked_fill(~small, 0.0)
    value = torch.full_like(low, series[-1])
    for coefficient in reversed(series[:-1]):
        value = value * low + coefficient
    return torch.where(small, value, function(root) / root)


def tanhc(q: Tensor) -> Tensor:
    """tanh(sqrt(q)) / sqrt(q)."""
    return _even(q, torch.tanh, [1.0, -1 / 3, 2 / 15, -17 / 315, 62 / 2835])


def atanhc(q: Tensor) -> Tensor:
    """artanh(sqrt(q)) / sqrt(q), for q < 1."""
    return _even(q, torch.atanh, [1.0, 1 / 3, 1 / 5, 1 / 7, 1 / 9])


def asinhc(q: Tensor) -> Tensor:
    """asinh(sqrt(q)) / sqrt(q)."""
    return _even(q, torch.asinh, [1.0, -1 / 6, 3 / 40, -5 / 112, 35 / 1152])


def sinhc(q: Tensor) -> Tensor:
    """sinh(sqrt(q)) / sqrt(q)."""
    return _even(q, torch.sinh, [1.0, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880])


def asinh_root(q: Tensor) -> Tensor:
    """asinh(sqrt(q)), with gradient 0 at 0: how far apart two points are, from their offset."""
    zero = q <= 0
    return q.masked_fill(zero, 1.0).sqrt().asinh().masked_fill(zero, 0.0)
