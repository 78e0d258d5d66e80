"""What every operation on the ball needs: points, the factor 1 - c |x|^2, the way back inside."""

import torch
from torch import Tensor

from embedkit.geometry._curvature import edge_margin, wide
from embedkit.geometry._scalars import atanhc, dot, shortened, tanhc


def entry(x: Tensor, c: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(..., 1)  What brings points that came in as ``dtype`` into the ball, and c |x|^2 after it.

    1 for points inside; those outside go to where :func:`inside` ends, but are not rounded.
    """
    squared = c * dot(x, x)
    outside = squared >= 1
    limit = 1 - edge_margin(dtype)
    factor = limit / squared.masked_fill(~outside, 1.0).sqrt()
    return torch.where(outside, factor, 1.0), squared.masked_fill(outside, limit**2)


def points(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Wide points of the ball, and c |x|^2 (..., 1); those outside count as at the edge."""
    a, _ = shortened(wide(x), x.dtype)
    factor, squared = entry(a, c, x.dtype)
    return a * factor, squared


def points_and_gap(x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Wide points of the ball, and 1 - c |x|^2 (..., 1), at least the eps of their dtype."""
    a, squared = points(x, c)
    return a, floor(1 - squared, x.dtype)


def floor(gap: Tensor, dtype: torch.dtype) -> Tensor:
    """1 - c |x|^2, at least the eps of ``dtype``."""
    return gap.clamp(min=torch.finfo(dtype).eps)


def gap(x: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., 1)  1 - c |x|^2  of wide points that an operation made inside, at least the eps."""
    return floor(1 - c * dot(x, x), dtype)


def inside(x: Tensor, c: Tensor, dtype: torch.dtype, margin: float | None = None) -> Tensor:
    """``x`` pulled radially to at most (1 - margin) of the ball's radius, then in ``dtype``."""
    limit = (1 - (edge_margin(dtype) if margin is None else margin)) / c.sqrt()
    x, _ = shortened(x, dtype)
    squared = dot(x, x)
    outside = squared > limit.square()
    pulled = x * (limit / squared.masked_fill(~outside, 1.0).sqrt())
    return torch.where(outside, pulled, x).to(dtype)


def add(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor, c: Tensor) -> Tensor:
    """x (+) y from w = x + y, where nothing cancels near the edge:

    ((1 - c|x|^2) w + c |w|^2 x) / (c |w|^2 + (1 - c|x|^2)(1 - c|y|^2)).
    """
    w = x + y
    squared = c * dot(w, w)
    return (of_x * w + squared * x) / (squared + of_x * of_y)


def exp0(v: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """tanh(s|v|) v / (s|v|),  s = sqrt(c), of wide vectors made from ``dtype``; wide."""
    v, _ = shortened(v, dtype)
    return v * tanhc(c * dot(v, v))


def log0_factor(squared: Tensor, dtype: torch.dtype) -> Tensor:
    """artanh(s|y|) / (s|y|), in which log0(y) = factor * y, from c |y|^2."""
    return atanhc(squared.clamp(max=1 - torch.finfo(dtype).eps))


def log0(y: Tensor, c: Tensor) -> Tensor:
    """artanh(s|y|) y / (s|y|), s = sqrt(c), wide."""
    a, squared = points(y, c)
    return a * log0_factor(squared, y.dtype)
