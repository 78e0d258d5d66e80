"""State dicts, and files that hold one: opened without being read, compared by name."""

import importlib
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

Checkpoint = Mapping[str, Any] | str | os.PathLike[str]
"""A state dict, or the path of a file that holds one."""

_SHOWN = 5  # names of one kind in an error
_WRAPPERS = ("module.", "_orig_mod.")


class Entry(NamedTuple):
    """What a state dict says of one name."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def averaged(self) -> bool:
        """Whether it holds real or complex numbers; counters, ids and flags are copied."""
        return self.dtype.is_floating_point or self.dtype.is_complex

    def __str__(self) -> str:
        return f"{self.shape} {str(self.dtype).removeprefix('torch.')}"


Layout = dict[str, Entry]


def checkpoint_list(owner: str, checkpoints: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """The checkpoints under the names that errors use."""
    if isinstance(checkpoints, str | os.PathLike | Mapping):
        raise TypeError(
            f"{owner}: checkpoints must be a list, got one {type(checkpoints).__name__}. "
            "Put state dicts or paths in a list, also a single one."
        )
    found = {_title(f"checkpoint {i}", value): value for i, value in enumerate(checkpoints)}
    if not found:
        raise ValueError(f"{owner}: expected one checkpoint or more, got an empty list")
    return found


def _title(place: str, checkpoint: Checkpoint) -> str:
    if isinstance(checkpoint, str | os.PathLike):
        return f"{place} ({Path(checkpoint).name})"
    return place


def open_checkpoint(owner: str, title: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """The state dict. A file is mapped into memory: what is never looked at is never read, and
    what was is given back when the last of its tensors goes."""
    if isinstance(checkpoint, str | os.PathLike):
        state = _map_file(owner, title, Path(checkpoint))
    else:
        state = checkpoint
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{owner}: {title} must be a state dict or the path of one, got "
            f"{type(state).__name__}. Of a module pass module.state_dict()."
        )
    for name, value in state.items():
        if not (isinstance(value, Tensor) or _is_extra_state(name)):
            raise TypeError(
                f"{owner}: {title} must hold tensors by name, got {type(value).__name__} under "
                f"{name!r}. If the weights are one part of it, pass that part."
            )
    return state if isinstance(state, dict) else dict(state)


def _map_file(owner: str, title: str, path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            load_file = importlib.import_module("safetensors.torch").load_file
        except ImportError as error:
            raise ImportError(
                f"{owner}: {title} needs the package safetensors. Install it, or give files of "
                "torch.save."
            ) from error
        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{owner}: {title} is no file of torch.save that holds tensors alone. Save "
            "module.state_dict(), in torch's own zip format; a .safetensors file does as well."
        ) from error


def _is_extra_state(name: object) -> bool:
    """Whether a module put it there through ``get_extra_state``: any object, never averaged."""
    return str(name).rpartition(".")[2] == "_extra_state"


def read_layout(state: Mapping[str, Any]) -> Layout:
    """Shape and type by name, of all but extra states."""
    return {
        name: Entry(tuple(value.shape), value.dtype)
        for name, value in state.items()
        if not _is_extra_state(name)
    }


def check_alike(owner: str, checkpoints: Mapping[str, Checkpoint]) -> Layout:
    """The layout that all share, else an error with every name that differs."""
    layout: Layout = {}
    reference, complaints = "", []
    for title, checkpoint in checkpoints.items():
        found = read_layout(open_checkpoint(owner, title, checkpoint))
        if not reference:
            reference, layout = title, found
            continue
        for verb, names in (
            ("lacks", [name for name in layout if name not in found]),
            ("also has", [name for name in found if name not in layout]),
        ):
            if names:
                complaints.append(f"{title} {verb} {_shorten([repr(name) for name in names])}")
        different = [
            f"{name!r} {found[name]}, not {entry}"
            for name, entry in layout.items()
            if name in found and found[name] != entry
        ]
        if different:
            complaints.append(f"{title} has {_shorten(different)}")
    if complaints:
        said = "; ".join(complaints)
        raise ValueError(
            f"{owner}: expected names, shapes and types as in {reference}, got: {said}. "
            + (
                f"Names with {' or '.join(_WRAPPERS)} come from a wrapper: use the state dict of "
                "the model inside."
                if any(f"'{wrapper}" in said for wrapper in _WRAPPERS)
                else "Only checkpoints of one architecture can be averaged."
            )
        )
    return layout


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
