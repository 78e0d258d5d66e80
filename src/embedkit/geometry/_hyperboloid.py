"""Points of the hyperboloid from their space part alone: time follows, and nothing cancels."""

import torch
from torch import Tensor

from embedkit.geometry._curvature import wide
from embedkit.geometry._scalars import asinhc, dot, shortened, sinhc

# The longest space part: its square, and that of what is made of it, is a number of the dtype.
REACH = {torch.float64: 1e70, torch.float16: 2.0**14}


def reach(dtype: torch.dtype) -> float:
    """Length at which space parts of a dtype end."""
    return REACH.get(dtype, 1e18)


def time_of(space: Tensor, c: Tensor) -> Tensor:
    """(..., 1)  sqrt(1/c + |space|^2)."""
    return (1 / c + dot(space, space)).sqrt()


def space_and_time(p: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Wide parts of points; the time that was stored is not looked at."""
    space = wide(p[..., 1:])
    return space, time_of(space, c)


def lift(space: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """Points in ``dtype``, time first; space parts that are too long are cut to their reach."""
    limit = reach(dtype)
    space, _ = shortened(space, dtype)
    squared = dot(space, space)
    outside = squared > limit**2
    pulled = space * (limit / squared.masked_fill(~outside, 1.0).sqrt())
    kept = torch.where(outside, pulled, space).to(dtype)
    return torch.cat([time_of(wide(kept), c).to(dtype), kept], dim=-1)


def remainder(x: Tensor, y: Tensor) -> Tensor:
    """(..., 1)  |x|^2 |y|^2 - <x,y>^2  from the part of x across y, >= 0."""
    squared = dot(y, y)
    across = x - y * (dot(x, y) / squared.masked_fill(squared == 0, 1.0))
    return dot(across, across) * squared


def squared_chord(p: Tensor, q: Tensor, p_time: Tensor, q_time: Tensor, c: Tensor) -> Tensor:
    """(..., 1)  <p-q, p-q>_L >= 0  of points given by space and time.

    For points on one side of the origin from their difference and sum,
    (4/c |p-q|^2 + |p-q|^2 |p+q|^2 - <p-q,p+q>^2) / ((p_0+q_0)^2 - |p-q|^2),  else from -<p,q>_L,
    where the terms of both have one sign.
    """
    offset, total = p - q, p + q
    squared, product = dot(offset, offset), dot(p, q)
    below = 2 / c + 2 * (p_time * q_time + product)
    same = product >= 0
    near = (4 / c * squared + remainder(offset, total)) / below.masked_fill(~same, 1.0)
    far = 2 * (p_time * q_time - product - 1 / c)
    return torch.where(same, near, far.clamp(min=0))


def path_weights(share: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of two points of the hyperboloid that add up to the one ``share`` of the way.

    sinh((1 - t) a) / sinh(a)  and  sinh(t a) / sinh(a)  for  ``squared`` = sinh^2(a / 2), a being s
    times their distance. Neither is negative for t from 0 to 1.
    """
    apart = 4 * squared * asinhc(squared).square()  # a^2
    left, whole = 1 - share, sinhc(apart)
    return left * sinhc(left.square() * apart) / whole, share * sinhc(
        share.square() * apart
    ) / whole
