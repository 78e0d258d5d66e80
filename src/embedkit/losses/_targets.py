"""Targets that are numbers of classes: the mark of a row without one, and errors that say which."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

IGNORED = -100  # torch's own mark of a row without a class


@contextmanager
def explained_classes(
    owner: str, name: str, target: Tensor, classes: int, ignored: bool = True
) -> Iterator[None]:
    """Say which targets are out of range where an operation failed, or explained it in its words.

    ``ignored``: whether rows may be left out by a mark.
    """
    try:
        yield
    except (IndexError, RuntimeError, ValueError) as error:
        if not target.numel():
            raise
        low, high = int(target.min()), int(target.max())
        if low >= 0 and high < classes:
            raise
        mark = f", or {IGNORED} for rows to leave out" if ignored else ""
        raise ValueError(
            f"{owner}: {name} must be in 0 to {classes - 1}, one number per class{mark}; got {low} "
            f"to {high}"
        ) from error
