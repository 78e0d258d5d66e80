"""Ragged data: values one segment after the other, and where each segment starts."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from embedkit._checks import check_integer, check_ndim


def select_segments(
    values: Shaped[Tensor, " n"], offsets: Int[Tensor, " s"], index: Int[Tensor, " m"]
) -> tuple[Shaped[Tensor, " m_values"], Int[Tensor, " m"]]:
    """The segments ``index`` of ragged data, as ragged data: ``embedding_bag``'s own layout.

    Segment i is ``values[offsets[i]:offsets[i + 1]]``, the last one runs to the end. A segment may
    be empty, be taken several times, or not at all.

    Args:
        values: all segments, one after the other.
        offsets: where each segment starts; the first is 0, none is below the one before.
        index: which segments to take, in the order wanted.

    Returns:
        (values, offsets) of the segments taken. The number of values depends on the data, so this
        does not compile into a graph; run it where batches are made.

    Raises:
        TypeError: if ``offsets`` or ``index`` does not hold integers.
        ValueError: if a tensor has more than one axis.
        IndexError: if ``index`` names a segment that is not there.

    >>> select_segments(torch.tensor([5, 6, 7, 8]), torch.tensor([0, 1, 1]), torch.tensor([2, 0]))
    (tensor([6, 7, 8, 5]), tensor([0, 3]))
    """
    check_ndim("values", values, "n")
    check_ndim("offsets", offsets, "s")
    check_ndim("index", index, "m")
    check_integer("offsets", offsets)
    check_integer("index", index)
    ends = torch.cat([offsets[1:], offsets.new_full((1,), values.shape[0])])
    try:
        start, size = offsets[index], (ends - offsets)[index]
    except IndexError as error:
        raise IndexError(
            f"select_segments: index must name segments 0 to {len(offsets) - 1}, got "
            f"{int(index.min())} to {int(index.max())}"
        ) from error
    first = size.cumsum(0) - size
    place = torch.arange(int(size.sum()), device=values.device)
    return values[place + (start - first).repeat_interleave(size)], first
