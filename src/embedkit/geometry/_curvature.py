"""Curvature, arguments and precision, shared by the Poincaré ball and the hyperboloid."""

from typing import Any

import torch
from torch import Tensor

from embedkit._checks import check_floating, check_last_dim, check_positive
from embedkit.ops import accumulation_dtype

# How far below the ball's radius points are kept, relative to it: a few units of the last place,
# so that rounding a point to its dtype leaves it inside.
MARGIN = {
    torch.float64: 1e-13,
    torch.float32: 1e-5,
    torch.float16: 2.0**-9,
    torch.bfloat16: 2.0**-7,
}


def edge_margin(dtype: torch.dtype) -> float:
    """1 - sqrt(c) |x| of the outermost points of a dtype."""
    return MARGIN.get(dtype, 0.5)


class _Widen(torch.autograd.Function):
    """float16 to float64; a gradient too large for float16 becomes its largest number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.double()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        del ctx
        return narrow(grad, torch.float16)


def wide(x: Tensor) -> Tensor:
    """float64, in which the factor 1 - c |x|^2 of float32 points is exact to the last digit."""
    if x.device.type == "mps":
        return x.float()
    if x.dtype == torch.float16:
        widened: Tensor = _Widen.apply(x)  # type: ignore[no-untyped-call]
        return widened
    return x.double()


def wide_and_plain(x: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`wide`, and float32 at least for matrix products; float16 is widened once for both.

    So gradients of both meet before they are cut to what float16 holds, and their sum stays finite.
    """
    w = wide(x)
    return w, (w if x.dtype == torch.float16 else x).to(accumulation_dtype(x.dtype))


def transforming() -> bool:
    """Whether torch.func (vmap, grad) transforms what runs now, outside compiled graphs."""
    if torch.compiler.is_compiling():
        return False
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def readable(x: Tensor) -> bool:
    """Whether values may be looked at: on a CPU, outside compiled graphs and transforms."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not transforming()


def narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Back in ``dtype``, the largest number of which stands for larger ones."""
    top = torch.finfo(dtype).max
    return x if x.dtype == dtype else x.clamp(-top, top).to(dtype)


def curvature_of(owner: str, curvature: float | Tensor, like: Tensor) -> Tensor:
    """``curvature`` as a wide 0-d tensor beside ``like``; a tensor keeps its gradient."""
    hint = "It is c of a space of curvature -c, a ball of radius 1/sqrt(c); try 1.0."
    if not isinstance(curvature, Tensor):
        if not torch.compiler.is_compiling():
            check_positive(owner, "curvature", curvature, hint)
        kind = torch.float32 if like.device.type == "mps" else torch.float64
        # A product, since torch.full would compile one graph for each number.
        return torch.ones((), dtype=kind, device=like.device) * curvature
    check_floating("curvature", curvature)
    if curvature.ndim:
        raise ValueError(
            f"{owner}: curvature must be one number or a 0-d tensor, got shape "
            f"{tuple(curvature.shape)}. Points of different curvatures are in different spaces: "
            "call once for each."
        )
    if readable(curvature):
        check_positive(owner, "curvature", float(curvature.detach()), hint)
    return wide(curvature).to(like.device)


def check_vectors(
    hint: str = "Points and vectors of one space have one width.", **x: Tensor
) -> None:
    """Raise unless all are floating, of one dtype and one width, the size of their last axis."""
    (first, one), *others = x.items()
    for name, vector in x.items():
        check_floating(name, vector)
        if vector.ndim == 0:
            raise ValueError(f"{name}: expected vectors on the last axis, got a 0-d tensor")
    for name, other in others:
        check_last_dim(name, other, one.shape[-1], hint)
        if other.dtype != one.dtype:
            raise TypeError(
                f"{name}: expected the dtype of {first}, {one.dtype}, got {other.dtype}. "
                f"Use {name}.to({first}.dtype)."
            )


def check_parameters(owner: str, x: Tensor, **parameters: Tensor | None) -> None:
    """Raise unless parameters are floating, and of the dtype of ``x`` but under autocast."""
    for name, parameter in parameters.items():
        if parameter is None:
            continue
        check_floating(name, parameter)
        if parameter.dtype != x.dtype and not _under_autocast(x):
            raise TypeError(
                f"{owner}: expected {name} of the dtype of the points, {x.dtype}, got "
                f"{parameter.dtype}. Use module.to(points.dtype), or points.to({name}.dtype)."
            )


def _under_autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def check_matrices(**x: Tensor) -> None:
    """Raise unless all are rows, (n, d), of one dtype and width."""
    check_vectors("", **x)
    for name, rows in x.items():
        if rows.ndim != 2:
            raise ValueError(
                f"{name}: expected 2 axes (n, d), got shape {tuple(rows.shape)}. For one distance "
                "per pair of equal rank use distance."
            )


def per_point(value: float | Tensor) -> float | Tensor:
    """A number, or one number per point with an axis more, ready to scale vectors."""
    return wide(value)[..., None] if isinstance(value, Tensor) and value.ndim else value


def point_weights(
    owner: str, weight: Tensor | None, x: Tensor, mask: Tensor | None = None
) -> Tensor:
    """(*b, n, 1) wide weights, 0 where the mask is False; what stands there is not looked at."""
    if weight is None:
        weight = torch.ones_like(x[..., 0])
    check_floating("weight", weight)
    if weight.ndim == 0 or weight.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"weight: expected shape {tuple(x.shape[:-1])}, one number >= 0 per point, got "
            f"{tuple(weight.shape)}"
        )
    if mask is not None:
        weight = torch.where(mask, weight, 0.0)
    if readable(weight) and (weight.detach() < 0).any():
        raise ValueError(
            f"{owner}: weights must be >= 0, got {float(weight.detach().min()):g}. A point pushed "
            "away has no place in a mean; subtract with mobius_add."
        )
    return wide(weight)[..., None]
