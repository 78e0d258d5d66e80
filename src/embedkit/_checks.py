"""Checks of arguments: each raises an error that says who, what was expected, what arrived and
what to do. They look at shapes and types only, so they cost nothing and never synchronise;
``check_finite`` alone reads values, for searches and measurements and never in a forward."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def _advice(hint: str) -> str:
    return f". {hint}" if hint else ""


def check_tensor(name: str, tensor: object) -> None:
    """Raise unless ``tensor`` is one, and not a list or an array."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name}: expected a tensor, got {type(tensor).__name__}. Use torch.as_tensor({name})."
        )


def check_last_dim(name: str, tensor: Tensor, size: int, hint: str = "") -> None:
    """Raise unless the last axis of ``tensor`` has ``size`` entries."""
    if tensor.ndim == 0 or tensor.shape[-1] != size:
        raise ValueError(
            f"{name}: expected last axis of size {size}, got shape {tuple(tensor.shape)}"
            + _advice(hint)
        )


def check_ndim(name: str, tensor: Tensor, axes: str) -> None:
    """Raise unless ``tensor`` has as many axes as ``axes`` names, e.g. ``"b n d"``."""
    check_tensor(name, tensor)
    if tensor.ndim != len(axes.split()):
        raise ValueError(
            f"{name}: expected {len(axes.split())} axes ({', '.join(axes.split())}), "
            f"got shape {tuple(tensor.shape)}"
        )


def check_same_shape(hint: str = "", **tensors: Tensor) -> None:
    """Raise unless all tensors have one shape."""
    if len({t.shape for t in tensors.values()}) > 1:
        got = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(
            f"{' and '.join(tensors)}: expected equal shapes, got {got}{_advice(hint)}"
        )


def check_rows(name: str, tensor: Tensor, rows: int, hint: str = "") -> None:
    """Raise unless the first axis of ``tensor`` has ``rows`` entries."""
    if tensor.ndim == 0 or tensor.shape[0] != rows:
        raise ValueError(
            f"{name}: expected {rows} rows, got shape {tuple(tensor.shape)}{_advice(hint)}"
        )


def check_weight(weight: Tensor | None, rows: int, per: str) -> None:
    """Raise unless ``weight`` is None or holds one number for each of ``rows``."""
    if weight is None:
        return
    check_tensor("weight", weight)
    if weight.shape != (rows,):
        raise ValueError(
            f"weight: expected shape ({rows},), one number >= 0 per {per}, "
            f"got {tuple(weight.shape)}"
        )


def check_floating(name: str, tensor: Tensor, hint: str = "") -> None:
    """Raise unless ``tensor`` holds floating-point numbers."""
    check_tensor(name, tensor)
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name}: expected a floating-point tensor, got {tensor.dtype}{_advice(hint)}"
        )


def check_integer(name: str, tensor: Tensor, hint: str = "") -> None:
    """Raise unless ``tensor`` holds integers (bool is not one)."""
    check_tensor(name, tensor)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name}: expected integers, got {tensor.dtype}{_advice(hint)}")


def check_mask(mask: Tensor | None, tokens: Tensor, owner: str = "tokens", name: str = "") -> None:
    """Raise unless ``mask`` is a bool tensor with the leading axes of ``tokens``.

    ``owner`` is the name of the tokens; the mask of any but "tokens" is called ``{owner}_mask``
    unless it has a ``name`` of its own.
    """
    if mask is None:
        return
    name = name or ("mask" if owner == "tokens" else f"{owner}_mask")
    check_tensor(name, mask)
    if mask.dtype != torch.bool:
        raise TypeError(
            f"{name}: expected bool (True is real, False is padding), got {mask.dtype}. "
            "Use mask.bool() for a 0/1 mask."
        )
    if mask.shape != tokens.shape[:-1]:
        raise ValueError(
            f"{name}: expected shape {tuple(tokens.shape[:-1])}, the leading axes of {owner} "
            f"{tuple(tokens.shape)}, got {tuple(mask.shape)}"
        )


def check_tokens(tokens: Tensor, mask: Tensor | None, offsets: Tensor | None = None) -> None:
    """Raise unless tokens are (b, n, d) with a bool mask (b, n) or None, or packed, (t, d)."""
    check_floating("tokens", tokens, "Pass token vectors; look ids up in a table first.")
    if offsets is None:
        check_ndim("tokens", tokens, "b n d")
        check_mask(mask, tokens)
        return
    check_ndim("tokens", tokens, "t d")
    if mask is not None:
        raise ValueError("mask: packed tokens have no padding, so pass mask or offsets, not both")


def check_positive(owner: str, name: str, value: int | float, hint: str = "") -> None:
    """Raise unless ``value`` is a finite number above zero."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{owner}: {name} must be > 0, got {value:g}{_advice(hint)}")


def check_at_least(owner: str, name: str, value: int, least: int, hint: str = "") -> None:
    """Raise unless the integer ``value`` is ``least`` or more."""
    if value < least:
        raise ValueError(f"{owner}: {name} must be >= {least}, got {value}{_advice(hint)}")


def check_choice(owner: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(choices)}, got {value!r}")


def check_widths(owner: str, dims: Sequence[int]) -> None:
    """Raise unless ``dims`` is a non-empty strictly increasing list of positive widths."""
    widths = list(dims)
    if not widths or widths[0] < 1 or any(a >= b for a, b in pairwise(widths)):
        raise ValueError(
            f"{owner}: dims must be positive, different and in increasing order, got {widths}. "
            "Halving widths such as [64, 128, 256] are usual."
        )


def check_list(owner: str, name: str, value: object, example: str) -> None:
    """Raise unless ``value`` is a sequence, which a number that stands for one is not."""
    if not isinstance(value, Sequence):
        raise TypeError(f"{owner}: {name} must list widths, got {value!r}. {example}")


def check_finite(owner: str, name: str, rows: Tensor) -> None:
    """Raise if a row of ``rows`` (one axis or more) holds NaN or infinity."""
    if rows.numel() == 0:
        return
    low, high = torch.aminmax(rows.detach())
    if not (low.isfinite() & high.isfinite()):
        bad = (~rows.isfinite()).flatten(1).any(1) if rows.ndim > 1 else ~rows.isfinite()
        raise ValueError(
            f"{owner}: {name} must be finite, got NaN or infinity in {int(bad.sum())} of "
            f"{rows.shape[0]} rows, first in row {int(bad.nonzero()[0])}. "
            "Find what made them, or leave those rows out."
        )
