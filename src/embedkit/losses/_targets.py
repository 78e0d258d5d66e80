"""Targets that are numbers of classes: the mark of a row without one, and errors that say which."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

IGNORED = -100  # torch's own mark of a row without a class


@contextmanager
def explained_classes(owner: str, name: str, target: Tensor, classes: int) -> Iterator[None]:
    """Say which targets are out of range where an operation failed."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        low, high = int(target.min()), int(target.max())
        if low >= 0 and high < classes:
            raise
        raise ValueError(
            f"{owner}: {name} must be in 0 to {classes - 1}, one number per class, or {IGNORED} "
            f"for rows to leave out; got {low} to {high}"
        ) from error
