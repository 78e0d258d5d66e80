"""Squared distances of all pairs without cancellation, a block of rows at a time."""

# ruff: noqa: ARG001 (autograd names the arguments)

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from embedkit.geometry._curvature import transforming

_ENTRIES = 2**18  # pairs of a block on a CPU: what its cache holds; a GPU takes more


def row_blocks(pairs: Tensor) -> Iterator[slice]:
    """Slices of so many rows of (n, m) pairs that what is made for a block stays small."""
    rows, columns = pairs.shape
    entries = _ENTRIES if pairs.device.type == "cpu" else 2**26
    step = max(1, entries // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def doubtful(dtype: torch.dtype) -> float:
    """Below which share of the squared lengths a float64 Gram form has too few digits left.

    What is left has relative error 1e-15 over this share, in the squared distance.
    """
    return 1e-5 if dtype == torch.float64 else 1e-9


def extended(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rows whose plain product is the squared distance: [-2x, |x|^2, 1] and [y, 1, |y|^2]."""
    of_x, of_y = x.square().sum(1, keepdim=True), y.square().sum(1, keepdim=True)
    left = torch.cat([-2 * x, of_x, torch.ones_like(of_x)], dim=1)
    return left, torch.cat([y, torch.ones_like(of_y), of_y], dim=1)


def squared_distances(x: Tensor, y: Tensor, left: Tensor, right: Tensor, share: float) -> Tensor:
    """(b, m) squared distances of wide rows, >= 0: the Gram form, and differences where it fails.

    ``left`` and ``right`` are :func:`extended` of x and y. Pairs closer than ``share`` of 2 |x|^2
    are computed again one by one; where they are many, all of the block is.
    """
    squared = left @ right.mT
    if squared.numel() == 0:
        return squared
    least = 2 * share * left[:, -2]
    if (squared.amin(dim=1) < least).any():
        row, column = (squared < least[:, None]).nonzero(as_tuple=True)
        if row.shape[0] * 16 > squared.numel():
            return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
        squared[row, column] = (x[row] - y[column]).square_().sum(1)
    return squared.clamp_(min=0)


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Of an operator that has no gradient."""


def _once(ctx: Any, *gradients: Tensor) -> None:
    raise RuntimeError(
        "pairwise and tangent distances have one derivative, got a second backward through them. "
        "Use distance(x[:, None], y), which has all."
    )


def transformable(
    operator: Any, setup: Callable[..., None] = _keep_nothing, backward: Callable[..., Any] = _once
) -> Callable[..., Any]:
    """An operator and its gradient, under torch.compile and the transforms of torch.func alike.

    Transforms take no gradient that is registered with an operator, but that of a Function; what is
    batched by vmap runs one by one.
    """
    operator.register_autograd(backward, setup_context=setup)
    operator.register_vmap(_one_by_one(operator))
    methods = {
        "generate_vmap_rule": True,
        "forward": staticmethod(lambda *inputs: operator(*inputs)),
        "setup_context": staticmethod(setup),
        "backward": staticmethod(backward),
    }
    function: Any = type("Pairs", (torch.autograd.Function,), methods)

    def apply(*inputs: Any) -> Any:
        return (function.apply if transforming() else operator)(*inputs)

    return apply


def _one_by_one(operator: Any) -> Callable[..., Any]:
    def rule(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        results = []
        for i in range(info.batch_size):
            each = zip(inputs, in_dims, strict=True)
            results.append(operator(*(t if d is None else t.select(d, i) for t, d in each)))
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        outputs = tuple(torch.stack(each) for each in zip(*results, strict=True))
        return outputs, (0,) * len(outputs)

    return rule
