"""What every operation on the ball needs: the factor 1 - c |x|^2 and the way back inside."""

import torch
from torch import Tensor

from embedkit.geometry._curvature import edge_margin, wide
from embedkit.geometry._scalars import atanhc, dot


def gap(x: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., 1)  1 - c |x|^2,  at least the eps of ``dtype`` for points on or beyond the edge."""
    return (1 - c * dot(x, x)).clamp(min=torch.finfo(dtype).eps)


def inside(x: Tensor, c: Tensor, dtype: torch.dtype, margin: float | None = None) -> Tensor:
    """``x`` pulled radially to at most (1 - margin) of the ball's radius, then in ``dtype``."""
    limit = (1 - (edge_margin(dtype) if margin is None else margin)) / c.sqrt()
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


def log0_factor(y: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """(..., 1)  artanh(s|y|) / (s|y|), s = sqrt(c), in which log0(y) = factor * y."""
    y = wide(y)
    return atanhc((c * dot(y, y)).clamp(max=1 - torch.finfo(dtype).eps))
