"""Batches cut into chunks of rows, and encoded chunks put together again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunks:
    """An input of :class:`GradientCache` that you have split yourself, one part per encoder call.

    For what can't be cut by rows (packed sequences, texts, graphs), or for chunks of equal cost
    rather than equal size. A part reaches the encoder as it is; the rows that come out are counted.

    >>> Chunks([["a cat", "a dog"], ["a very long text"]]).parts[1]
    ['a very long text']
    """

    parts: Sequence[Any]

    def __post_init__(self) -> None:
        if isinstance(self.parts, Tensor | Mapping | str) or len(self.parts) == 0:
            raise ValueError(
                "Chunks: expected a list with one part or more (a part may hold no rows), "
                f"got {type(self.parts).__name__}"
            )


def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors in nested mappings, lists and tuples, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors(value)


def change(tree: Any, by: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed; mappings become dicts."""
    if isinstance(tree, Tensor):
        return by(tree)
    if isinstance(tree, Mapping):
        return {key: change(value, by) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        items = [change(value, by) for value in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


def count_rows(name: str, tree: Any) -> int:
    """The number of rows that all tensors of ``tree`` have."""
    found = list(tensors(tree))
    if not found:
        raise TypeError(
            f"{name}: expected a tensor, or a dict, list or tuple of tensors, got "
            f"{type(tree).__name__} without one. Split other things yourself: Chunks([...])."
        )
    rows = {t.shape[0] if t.ndim else None for t in found}
    if len(rows) > 1 or None in rows:
        raise ValueError(
            f"{name}: expected tensors with as many rows each, got shapes "
            f"{', '.join(str(tuple(t.shape)) for t in found)}. Split what has no rows yourself: "
            "Chunks([...])."
        )
    return found[0].shape[0]


def split(name: str, tree: Any, chunk_size: int) -> list[Any]:
    """Chunks of at most ``chunk_size`` rows, at least one; views of the same memory."""
    if isinstance(tree, Chunks):
        return list(tree.parts)
    rows = count_rows(name, tree)

    def part(start: int) -> Any:
        return change(tree, lambda tensor: tensor[start : start + chunk_size])

    return [part(start) for start in range(0, max(rows, 1), chunk_size)]


def join(name: str, parts: Sequence[Any]) -> Any:
    """Encoded chunks as one: each tensor is its parts, concatenated."""
    columns = [list(tensors(part)) for part in parts]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(
            f"{name}: expected as many tensors from every chunk, got {[len(c) for c in columns]}"
        )
    whole = iter([torch.cat(column) for column in zip(*columns, strict=True)])
    return change(parts[0], lambda _: next(whole))
