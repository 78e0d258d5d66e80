"""The centroid of weighted points of the hyperboloid, from sums in which nothing cancels."""

from collections.abc import Callable

import torch
from torch import Tensor

from embedkit.geometry._hyperboloid import time_of
from embedkit.geometry._scalars import dot, length
from embedkit.ops import segment_mean

Map = Callable[[Tensor], Tensor]


def centroid(space: Tensor, weight: Tensor, c: Tensor, total: Map, spread: Map) -> Tensor:
    """Space part of  m / (s sqrt(-<m, m>_L)),  m = sum_i w_i p_i,  s = sqrt(c); 0 without weight.

    ``total`` sums over the points of each set, up to a factor, and ``spread`` gives every point
    what belongs to its set. -<m, m>_L = time^2 - |space|^2 has no digits left far out. With a unit
    vector e, here the direction of m, and of each point  h = time + <space, e>  and y, its part
    across e over h (both are its place in the upper half-space, e being at infinity), it is

        (sum w h) (sum w / (c h) + sum w h |y - Y|^2),  Y = sum w h y / sum w h.

    That holds for every e, so none of its gradient goes through e.
    """
    middle = total(weight * space)
    size = length(middle.detach())
    e = spread(middle.detach() / size.masked_fill(size == 0, 1.0))
    time, along = time_of(space, c), dot(space, e)
    across = space - along * e
    behind = along < 0
    ahead = (time - along).masked_fill(~behind, 1.0)
    height = torch.where(behind, (1 / c + dot(across, across)) / ahead, time + along)
    whole, sideways, count = total(weight * height), total(weight * across), total(weight)
    none = count <= 0
    apart = across / height - spread(sideways / whole.masked_fill(none, 1.0))
    scatter = total(weight / (c * height) + weight * height * dot(apart, apart))
    least = (count.square() / c).detach().masked_fill(none, 1.0)
    return middle / (c * (whole * scatter).clamp_min(least)).sqrt()


def centroid_of_set(space: Tensor, weight: Tensor, c: Tensor) -> Tensor:
    """:func:`centroid` of points (..., n, d) with weights (..., n, 1)."""
    return centroid(space, weight, c, lambda t: t.sum(dim=-2), lambda t: t[..., None, :])


def centroid_of_segments(
    space: Tensor, weight: Tensor, c: Tensor, ids: Tensor, num_segments: int
) -> Tensor:
    """:func:`centroid` of the points (n, d) of each segment, with weights (n, 1)."""
    index = ids.long()
    return centroid(
        space, weight, c, lambda t: segment_mean(t, ids, num_segments), lambda t: t[index]
    )
