"""Unit-length rows, the step before every cosine similarity."""

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_floating
from embedkit.ops.masked import accumulation_dtype

SHORTEST = 1e-12  # a row below this length has no direction worth trusting


def largest_entry(x: Tensor) -> Tensor:
    """max |x| of every row, (..., 1): many times faster than the infinity norm."""
    return torch.maximum(x.amax(dim=-1, keepdim=True), x.amin(dim=-1, keepdim=True).neg())


def normalize(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """Scale every row to Euclidean length 1:  x / ||x||.

    Lengths are taken in float32 or wider, after each row is divided by its own largest entry, so
    rows of 1e30 or 1e-11 neither overflow nor lose digits. The result has the dtype of ``x``: to
    keep the wide result of half-precision rows, pass them wide (``normalize(x.float())``).

    Args:
        x: rows of any scale; any number of leading axes, also none.

    Returns:
        Rows of length 1. A row shorter than 1e-12, the zero vector above all, gives zeros and has
        a zero gradient. A row that holds NaN or infinity gives NaN, and spoils no other row.

    Raises:
        TypeError: if ``x`` does not hold floating-point numbers.
        ValueError: if ``x`` has no axis.

    Differs: ``torch.nn.functional.normalize`` divides by max(||x||, 1e-12), so that a zero vector
    has a gradient of 1e12; it overflows on large rows and rounds half precision twice.

    >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    check_floating("x", x)
    if x.ndim == 0:
        raise ValueError("x: expected rows on the last axis, got a tensor without axes")
    if x.shape[-1] == 0:
        return x.clone()
    wide = x.to(accumulation_dtype(x.dtype))
    largest = largest_entry(wide.detach())
    # x / ||x|| does not depend on the scale of x, so a detached divisor changes no derivative.
    scaled = wide / largest.masked_fill(largest == 0, 1.0)
    squared = scaled.square().sum(dim=-1, keepdim=True)
    short = squared.detach().sqrt() * largest < SHORTEST
    unit: Tensor = scaled / squared.masked_fill(short, 1.0).sqrt()
    unit = unit.masked_fill(short, 0.0)
    return unit.to(x.dtype)
