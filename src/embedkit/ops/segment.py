"""Segments: rows that belong together, by offsets (ragged data) or by an id per row."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from embedkit._checks import check_at_least, check_floating, check_integer, check_ndim, check_rows
from embedkit.ops.masked import accumulation_dtype


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


def segment_ids(offsets: Int[Tensor, " s_ends"], count: int) -> Int[Tensor, " n"]:
    """Which segment each of ``count`` entries belongs to.

    Segment i is entries ``offsets[i]`` up to, and without, ``offsets[i + 1]``: the layout of packed
    sequences (``cu_seqlens`` of attention kernels), which ends with the number of entries.

    Args:
        offsets: 0 first, ``count`` last, none below the one before.
        count: how many entries there are, said by the caller.

    Raises:
        TypeError: if ``offsets`` does not hold integers.
        ValueError: if ``offsets`` is empty, has more than one axis, or does not add up to
            ``count``; values are looked at on a CPU, outside compiled graphs.

    >>> segment_ids(torch.tensor([0, 2, 2, 5]), 5)
    tensor([0, 0, 2, 2, 2])
    """
    check_integer("offsets", offsets)
    check_ndim("offsets", offsets, "s")
    if not offsets.shape[0]:
        raise ValueError("offsets: expected 0, the ends of all segments, got no entry at all")
    if offsets.device.type == "cpu" and not torch.compiler.is_compiling():
        ends = offsets[0] == 0 and offsets[-1] == count
        if not ends or (offsets.diff() < 0).any():
            raise ValueError(
                f"offsets: expected 0 first, {count} last (the number of packed entries) and none "
                f"below the one before, got {_shown(offsets)}. From lengths: "
                "torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])."
            )
    entries = torch.arange(count, device=offsets.device)
    return torch.searchsorted(offsets.long(), entries, right=True) - 1


def _shown(offsets: Tensor) -> str:
    values = [str(v) for v in offsets.tolist()]
    return ", ".join(values if len(values) < 9 else [*values[:4], "...", *values[-2:]])


def segment_max(
    values: Float[Tensor, "n d"], ids: Int[Tensor, " n"], num_segments: int
) -> Float[Tensor, "s d"]:
    """Largest value of each segment and column; zeros for a segment without rows.

    Where several rows hold the maximum, they share the gradient in equal parts. Arguments and
    errors as in :func:`segment_mean`.

    >>> segment_max(torch.tensor([[1.0], [5.0], [3.0]]), torch.tensor([0, 2, 0]), 3)
    tensor([[3.],
            [0.],
            [5.]])
    """
    ids = _check_segments("segment_max", values, ids, num_segments)
    if not values.shape[1]:  # no column: torch's scatter refuses ids of rows without entries
        return values.sum(dim=0).expand(num_segments, 0)
    lowest = values.new_full((num_segments, values.shape[1]), -torch.inf)
    with _explained("segment_max", ids, num_segments):
        largest = lowest.scatter_reduce(0, ids[:, None].expand_as(values), values, "amax")
        size = torch.zeros_like(lowest[:, 0]).index_add(0, ids, torch.ones_like(values[:, 0]))
    return largest.masked_fill((size == 0)[:, None], 0.0)


def segment_softmax(
    scores: Float[Tensor, "n h"], ids: Int[Tensor, " n"], num_segments: int
) -> Float[Tensor, "n h"]:
    """Softmax of each column within each segment, in float32 or wider, in the dtype of ``scores``.

    Arguments and errors as in :func:`segment_mean`.

    >>> segment_softmax(torch.zeros(3, 1), torch.tensor([0, 2, 0]), 3)
    tensor([[0.5000],
            [1.0000],
            [0.5000]])
    """
    wide = scores.to(accumulation_dtype(scores.dtype))
    largest = segment_max(wide.detach(), ids, num_segments)
    ids = ids.long()
    weight = (wide - largest[ids]).exp()
    total = weight.new_zeros(num_segments, wide.shape[1]).index_add(0, ids, weight)
    return (weight / total[ids]).to(scores.dtype)


def segment_mean(
    values: Float[Tensor, "n d"], ids: Int[Tensor, " n"], num_segments: int
) -> Float[Tensor, "s d"]:
    """Average the rows of each segment:  mean over the rows i with ids_i = s of values_i.

    With class labels as ids this gives class prototypes. Rows may stand in any order. Sums run in
    float32 or wider, whatever comes in.

    Args:
        values: one row per entry.
        ids: the segment of each row, 0 to num_segments - 1.
        num_segments: how many there are, 0 or more; said by the caller, so that the shape of the
            result does not depend on the data.

    Returns:
        One row per segment in the dtype of ``values``; zeros for a segment without rows.

    Raises:
        ValueError: if there is not one id per row, or ``num_segments`` is below 0.
        TypeError: if ``values`` are not floating point or ``ids`` not integers.
        IndexError: if an id is outside the range.

    Source: Snell et al. 2017, Prototypical Networks for Few-shot Learning, eq. 1 (prototypes).

    >>> segment_mean(torch.tensor([[1.0], [5.0], [3.0]]), torch.tensor([0, 2, 0]), 3)
    tensor([[2.],
            [0.],
            [5.]])
    """
    ids = _check_segments("segment_mean", values, ids, num_segments)
    wide = values.to(accumulation_dtype(values.dtype))
    with _explained("segment_mean", ids, num_segments):
        total = wide.new_zeros(num_segments, values.shape[1]).index_add(0, ids, wide)
        size = wide.new_zeros(num_segments).index_add(0, ids, wide.new_ones(ids.shape[0]))
    return (total / size.clamp(min=1.0)[:, None]).to(values.dtype)


def _check_segments(owner: str, values: Tensor, ids: Tensor, num_segments: int) -> Tensor:
    check_floating("values", values)
    check_ndim("values", values, "n d")
    check_integer("ids", ids, "Number the segments from 0.")
    check_ndim("ids", ids, "n")
    check_rows("ids", ids, values.shape[0], "One id per row of values.")
    check_at_least(owner, "num_segments", num_segments, 0)
    return ids.long()


@contextmanager
def _explained(owner: str, ids: Tensor, num_segments: int) -> Iterator[None]:
    """Say which ids are out of range where an operation failed."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        raise IndexError(
            f"{owner}: ids must be 0 to {num_segments - 1}, one of {num_segments} segments, "
            f"got {int(ids.min())} to {int(ids.max())}. Number the classes of a batch from 0, "
            "e.g. with labels.unique(return_inverse=True)."
        ) from error
