"""How far rows have collapsed onto one direction: the smoothness of graph networks."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_floating,
    check_ndim,
)
from embedkit.ops import normalize

_ENTRIES = 2**22  # of a block of distances


@dataclass(frozen=True)
class Smoothness:
    """How far apart the directions of rows lie, in [0, 1]: 0 where all are one direction."""

    graph: float
    """The mean over nodes."""
    standard_error: float
    """Of ``graph``, from drawing nodes; 0.0 where all were taken."""
    node: Tensor = field(repr=False)
    """One number per node of ``rows``, float64."""
    rows: Tensor = field(repr=False)
    """The nodes that were measured: all, or those drawn."""


@torch.no_grad()
def smoothness(
    x: Float[Tensor, "n d"],
    *,
    mode: Literal["mean", "mean_square"] = "mean",
    sample: int | None = None,
    generator: torch.Generator | None = None,
) -> Smoothness:
    """Smoothness metric value (SMV): the mean distance between the directions of two nodes.

    D(x_i, x_j) = 1/2 || x_i / ||x_i|| - x_j / ||x_j|| ||  =  sqrt((1 - cos) / 2),

    SMV_i = 1 / (n - 1) sum_(j != i) D(x_i, x_j),  SMV = mean_i SMV_i.  Equal directions give 0,
    opposite ones 1, orthogonal ones 0.707. **Smaller is smoother**, that is more collapsed; it does
    not say how well labels are told apart. Only directions count.

    Time is O(n^2 d), in blocks: memory is linear in n. 20,000 nodes take some seconds; for more,
    draw nodes by ``sample``, or take the squares.

    Args:
        x: one row per node. A zero row has distance 1/2 to every row that is not zero, and 0 to
            another zero row.
        mode: "mean" is the above; "mean_square" the mean of D^2 in its place, exact in O(n d) by
            sums over all nodes. Its root is an upper bound of "mean".
        sample: measure this many nodes, drawn without replacement, against all others; None: all.
        generator: of the draw.

    Returns:
        A :class:`Smoothness`, computed in float64; 0.0 for fewer than two nodes.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for NaN or infinity, another mode, or a sample below 2.

    Source: Liu et al. 2020, Towards Deeper Graph Neural Networks, eq. 3-5.
    Differs: the mean of squares and its closed form, and the sample, are ours.

    >>> smoothness(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])).graph
    0.471404520791...
    """
    check_ndim("x", x, "n d")
    check_floating("x", x)
    check_finite("smoothness", "x", x)
    check_choice("smoothness", "mode", mode, ("mean", "mean_square"))
    n = x.shape[0]
    rows = torch.arange(n, device=x.device)
    if sample is not None:
        check_at_least("smoothness", "sample", sample, 2, "One node has no standard error.")
        if sample < n:
            rows = torch.randperm(n, generator=generator)[:sample].to(x.device)
    unit = normalize(x.double())
    if n < 2:
        return Smoothness(0.0, 0.0, unit.new_zeros(n), rows)
    length = unit.square().sum(dim=1)  # 1, or 0 for a zero row
    if mode == "mean_square":
        total = n * length[rows] + length.sum() - 2 * unit[rows] @ unit.sum(dim=0)
        node = (total / 4).clamp(min=0) / (n - 1)
    else:
        parts = []
        for some in torch.split(rows, max(1, _ENTRIES // n)):
            squared = (unit[some] @ unit.T).mul_(-2).add_(length)
            squared.add_(length[some, None]).clamp_(min=0)
            squared[torch.arange(len(some), device=x.device), some] = 0.0
            parts.append(squared.sqrt_().sum(dim=1) / (2 * (n - 1)))
        node = torch.cat(parts)
    error = float(node.std()) * ((1 - len(rows) / n) / len(rows)) ** 0.5
    return Smoothness(float(node.mean()), error, node, rows)
