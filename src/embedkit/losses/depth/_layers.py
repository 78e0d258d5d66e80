"""The arguments of a loss layer by layer: a list for what changes with depth, the rest as it is."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from embedkit._checks import check_choice

Weighting = Literal["uniform", "linear", "log"]


def check_weighting(owner: str, weighting: Weighting | Sequence[float]) -> None:
    """Raise unless ``weighting`` is a name of one, or numbers >= 0."""
    if isinstance(weighting, str):
        check_choice(owner, "layer_weighting", weighting, ("uniform", "linear", "log"))
    elif any(weight < 0 for weight in weighting):
        raise ValueError(f"{owner}: layer_weighting must be >= 0, got {list(weighting)}")


def check_states(owner: str, states: Sequence[Tensor]) -> None:
    """Raise unless there are states, floating, of one shape (b, d)."""
    if not states:
        raise ValueError(f"{owner}: expected the states of at least one layer, got none")
    for n, state in enumerate(states, 1):
        if not state.is_floating_point():
            raise TypeError(
                f"{owner}: expected floating-point states, got {state.dtype} after layer {n}"
            )
        if state.ndim != 2:
            raise ValueError(
                f"{owner}: expected one pooled state (b, d) per layer, got shape "
                f"{tuple(state.shape)} after layer {n}. Pool the tokens of every layer first."
            )
        if state.shape != states[0].shape:
            raise ValueError(
                f"{owner}: expected pooled states (b, d) of one shape, got "
                f"{tuple(states[0].shape)} after layer 1 and {tuple(state.shape)} after layer {n}"
            )


class Layers:
    """What a wrapper was called with: lists hold one entry for each layer, first to last."""

    def __init__(self, owner: str, tensors: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if not tensors or not isinstance(tensors[0], list | tuple):
            got = type(tensors[0]).__name__ if tensors else "nothing"
            raise TypeError(
                f"{owner}: expected a list of pooled states, one (b, d) per layer, for each "
                f"argument that has layers, the first one included; got {got}"
            )
        self.count = len(tensors[0])
        self.tensors, self.named = tensors, dict(named)
        layered = [v for v in (*tensors, *named.values()) if isinstance(v, list | tuple)]
        if any(len(value) != self.count for value in layered):
            raise ValueError(
                f"{owner}: every list needs one entry per layer, got lists of "
                f"{', '.join(str(len(value)) for value in layered)}. Stack what has no layers."
            )
        if any(not isinstance(entry, Tensor) for value in layered for entry in value):
            raise TypeError(
                f"{owner}: lists hold one tensor per layer; make a tensor of ids, labels and "
                "weights, which all layers share"
            )
        check_states(owner, tensors[0])
        self.width: int = tensors[0][0].shape[-1]
        self._layered = layered

    def at(self, n: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments of the loss after layer n, which counts from 1."""

        def one(value: Any) -> Any:
            return value[n - 1] if isinstance(value, list | tuple) else value

        return tuple(map(one, self.tensors)), {name: one(v) for name, v in self.named.items()}

    def states(self) -> list[Tensor]:
        """For each layer the rows of all arguments that have layers, (r, d)."""
        aligned = [v for v in self._layered if v[0].ndim > 1 and v[0].shape[-1] == self.width]
        return [
            torch.cat([rearrange(value[n], "... d -> (...) d") for value in aligned])
            for n in range(self.count)
        ]
