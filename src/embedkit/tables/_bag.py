"""Bags of table rows, one vector per bag: the gather that the tables here end in."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import check_integer, check_ndim
from embedkit.ops import accumulation_dtype

Combiner = Literal["mean", "sum"]


def check_bag(name: str, ids: Tensor, offsets: Tensor) -> None:
    """Raise unless (ids, offsets) have the types and shapes of ragged bags."""
    check_integer(name, ids, "Ids number rows or categories: use .long() if they are whole.")
    check_integer(f"offsets of {name}", offsets)
    check_ndim(name, ids, "n")
    check_ndim(f"offsets of {name}", offsets, "b")
    if offsets.shape[0] == 0 and ids.shape[0] != 0:
        raise ValueError(
            f"{name}: expected one offset per bag, got {ids.shape[0]} ids and no offsets. "
            "Pass torch.tensor([0]) for one bag of all ids."
        )


def broken_offsets(offsets: Int[Tensor, " b"], num_ids: int) -> Bool[Tensor, ""]:
    """True unless the offsets start at 0, never decrease and end at most at ``num_ids``."""
    rising = offsets.cummax(0).values
    return (rising != offsets).any() | (offsets[:1] != 0).any() | (rising[-1:] > num_ids).any()


def combine_bags(
    ids: Int[Tensor, " n"],
    offsets: Int[Tensor, " b"],
    weight: Float[Tensor, "v d"],
    combiner: Combiner,
    sparse: bool = False,
) -> Float[Tensor, "b d"]:
    """Mean or sum of the rows of each bag; bag i holds ``ids[offsets[i]:offsets[i + 1]]``.

    Args:
        ids: int64 rows of ``weight``, bag after bag.
        offsets: int64, where each bag starts: the first is 0, none is below the one before.
        weight: the table.
        combiner: what becomes of the rows of one bag.
        sparse: the gradient of ``weight`` is a sparse tensor of the rows that were used.

    Returns:
        One vector per bag in the dtype of ``weight``, summed in float32 or wider; zeros for an
        empty bag.

    Raises:
        RuntimeError, IndexError: torch's own, if an id is no row or the offsets are broken: torch
            alone returns wrong bags for offsets that decrease. On a GPU it is a device assertion.
    """
    num_ids, size = ids.shape[0], weight.shape[0]
    ids = torch.where(broken_offsets(offsets, num_ids), size, ids)  # no row has number `size`
    offsets = offsets.cummax(0).values
    wide = accumulation_dtype(weight.dtype)
    if wide == weight.dtype:
        return F.embedding_bag(ids, weight, offsets, mode=combiner, sparse=sparse)
    rows = F.embedding(ids, weight, sparse=sparse).to(
        wide
    )  # embedding_bag adds half precision in half precision
    each = torch.arange(num_ids, device=ids.device)
    return F.embedding_bag(each, rows, offsets, mode=combiner).to(weight.dtype)


def explain_offsets(name: str, offsets: Tensor, num_ids: int, error: Exception) -> None:
    """After a failure: raise a ValueError from ``error`` if the offsets are broken."""
    if broken_offsets(offsets, num_ids):
        raise ValueError(
            f"{name}: offsets must start at 0, never decrease and stay within the {num_ids} ids, "
            f"got {offsets.tolist()}. Offset i is the number of ids in the bags before bag i."
        ) from error


def explain_ids(name: str, ids: Tensor, size: int, error: Exception) -> None:
    """After a failure: raise a ValueError from ``error`` if an id is no row of the table."""
    if ids.numel() and (ids.min() < 0 or ids.max() >= size):
        raise ValueError(
            f"{name}: expected ids from 0 to {size - 1}, the rows of the table, got "
            f"{ids.min().item()} to {ids.max().item()}. Build the table with more rows, or make "
            "the ids for a table of this size."
        ) from error
