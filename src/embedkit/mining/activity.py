"""How much of a batch a loss can use."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from embedkit._checks import check_integer, check_ndim


class Activity(NamedTuple):
    """What takes part, as 0-d integer tensors."""

    rows: Int[Tensor, ""]
    """Rows with at least one match: those that "mean" divides by."""
    pairs: Int[Tensor, ""]
    """Ordered pairs (row, match)."""
    triplets: Int[Tensor, ""]
    """Triplets (row, match, other)."""


def count_active(
    labels: Int[Tensor, " b"], reference_labels: Int[Tensor, " n"] | None = None
) -> Activity:
    """Count the rows, pairs and triplets that labels make possible.

    All 0 means that the batch teaches nothing: no loss over labels has a term. Time and memory are
    those of a sort.

    Args:
        labels: integers; equal labels match.
        reference_labels: labels of the keys, prototypes or memory that rows meet. None: rows meet
            each other, and no row is its own match.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if labels have more than one axis.

    >>> print(*count_active(torch.tensor([0, 0, 0, 1, 1, 2])))
    tensor(5) tensor(8) tensor(26)
    """
    check_integer("labels", labels, "Labels say by equality who matches; number the classes.")
    check_ndim("labels", labels, "b")
    own = reference_labels is None
    if reference_labels is None:
        reference_labels = labels
    check_integer("reference_labels", reference_labels)
    check_ndim("reference_labels", reference_labels, "n")
    ordered, rows = reference_labels.long().sort().values, labels.long()
    same = torch.searchsorted(ordered, rows, right=True) - torch.searchsorted(ordered, rows)
    match = same - int(own)
    return Activity((match > 0).sum(), match.sum(), (match * (ordered.shape[0] - same)).sum())
