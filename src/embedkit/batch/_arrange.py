"""Rows in groups (classes, domains, equal ids), arranged in batches. NumPy, no loop over rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

MOST_ROWS = 2**31 - 1  # row numbers are int32: four bytes each

Ids = Int[Tensor, " n"] | Int[np.ndarray, " n"] | Sequence[int]
"""One integer per row of the data set: a tensor, an array or a list."""


class Groups(NamedTuple):
    """The rows of each group, one group after the other, in increasing order of their id."""

    rows: NDArray[np.int32]
    """(n,) int32: row numbers, sorted by group."""
    counts: NDArray[np.int32]
    """(g,) int32: how many rows each group has."""

    def starts(self) -> NDArray[np.int64]:
        """Where each group begins in ``rows``."""
        return np.cumsum(self.counts, dtype=np.int64) - self.counts

    def shuffled(self, rng: Generator) -> NDArray[np.int32]:
        """``rows``, in random order inside each group."""
        group = np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)
        return self.rows[shuffle_by(group, rng)]


def group_rows(owner: str, name: str, ids: Ids) -> Groups:
    """Find the rows of each id. ``owner`` and ``name`` are for the errors."""
    array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"{owner}: {name} must be one integer for each row of the data set, got shape "
            f"{array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{owner}: {name} must hold integers, got {array.dtype}. "
            f"np.unique({name}, return_inverse=True)[1] numbers any other values."
        )
    check_size(owner, array.size)
    rows = np.argsort(array, kind="stable").astype(np.int32)
    array = array[rows]
    start = np.flatnonzero(np.concatenate([[True], array[1:] != array[:-1]]))
    return Groups(rows, np.diff(start, append=array.size).astype(np.int32))


def check_size(owner: str, size: int) -> None:
    """Raise where row numbers would not fit into 32 bits."""
    if size > MOST_ROWS:
        raise ValueError(f"{owner}: expected at most {MOST_ROWS} rows, got {size}. Cut the data.")


def shuffle_by(group: NDArray[np.int32], rng: Generator) -> NDArray[np.int32]:
    """Positions of ``group`` (n,) in increasing order of its values, random where equal."""
    position: NDArray[np.int32] = rng.permutation(np.arange(group.size, dtype=np.int32))
    key = group[position].astype(np.int64)
    key <<= (bits := group.size.bit_length())
    key += np.arange(group.size, dtype=np.int32)
    key.sort()
    key &= (1 << bits) - 1
    return position[key]


def cut_passes(rows: NDArray[np.int32], size: int, count: int, rng: Generator) -> NDArray[np.int32]:
    """(count, size): shuffled rows, cut; shuffled anew when fewer than ``size`` are left."""
    per_pass = rows.size // size
    cut = np.empty((count, size), rows.dtype)
    for begin in range(0, count, per_pass):
        end = min(begin + per_pass, count)
        cut[begin:end] = rng.permutation(rows)[: (end - begin) * size].reshape(-1, size)
    return cut


def most_batches(counts: NDArray[np.int32], size: int) -> int:
    """How many batches of ``size`` members of different groups can be made at most.

    It is the largest B with sum_g min(counts_g, B) >= B * size: a group is in a batch at most
    once. :func:`spread` reaches it.
    """
    ordered = np.sort(counts)
    below = np.concatenate([[0], np.cumsum(ordered, dtype=np.int64)])
    low, high = 0, int(below[-1]) // size
    while low < high:
        middle = (low + high + 1) // 2
        at = int(np.searchsorted(ordered, middle))
        if int(below[at]) + (ordered.size - at) * middle >= middle * size:
            low = middle
        else:
            high = middle - 1
    return low


def spread(counts: NDArray[np.int32], num_batches: int, rng: Generator) -> NDArray[np.int32]:
    """Give each member of each group a batch, no two members of one group the same.

    Needs counts <= num_batches. Batches get the same number of members, or differ by one.

    Members of groups of several are dealt out in turn, which is always right but leaves
    neighbouring groups together; then batches meet in random pairs, and each pair deals the groups
    that only one of the two holds anew. Where every batch has met log2(num_batches) others and a
    few more, little is left of the first order. Groups of one then fill the batches up.

    Returns:
        (sum of counts,) int32: the batch of each member, group by group.

    Source: Strona et al. 2014, A fast and unbiased procedure to randomize ecological binary
        matrices with fixed row and column totals (the pairwise deal, there called a trade).
    """
    if num_batches == 0:
        return np.empty(0, np.int32)
    several = np.flatnonzero(counts > 1).astype(np.int32)
    dealt = np.repeat(several, counts[several])
    missing = -dealt.size % num_batches
    pad = np.full(missing, counts.size, np.int32)  # one more group, of the free places
    table = np.concatenate([dealt, pad]).reshape(-1, num_batches).T.copy()
    for _ in range((num_batches - 1).bit_length() + 3 if table.size and num_batches > 1 else 0):
        table = _trade(table, rng)
    key = table.astype(np.int64) << 32
    key += np.arange(num_batches)[:, None]
    key = np.sort(key, axis=None)
    batch = (key & 0xFFFFFFFF).astype(np.int32)
    # The places left free come first, so that sizes stay within one of each other.
    free = batch[dealt.size :]
    others = np.setdiff1d(np.arange(num_batches, dtype=np.int32), free, assume_unique=True)
    turn = np.concatenate([rng.permutation(free), rng.permutation(others)])
    singles = rng.permutation(np.resize(turn, int((counts == 1).sum())))
    result = np.empty(int(counts.sum(dtype=np.int64)), np.int32)
    alone = np.repeat(counts == 1, counts)
    result[alone], result[~alone] = singles, batch[: dealt.size]
    return result


def _trade(table: NDArray[np.int32], rng: Generator) -> NDArray[np.int32]:
    """Random pairs of rows of ``table`` (batches, places) deal what they don't share anew."""
    places = table.shape[1]
    table = table[rng.permutation(len(table))]
    pairs = np.sort(table[: len(table) // 2 * 2].reshape(-1, 2 * places), axis=1)
    shared = pairs[:, 1:] == pairs[:, :-1]
    luck = rng.integers(1, 2**31 - 1, pairs.shape, dtype=np.int64)
    luck[:, :-1][shared] = 0  # what both hold goes to the left half once
    luck[:, 1:][shared] = 2**31 - 1  # and to the right half once
    luck <<= 32
    luck |= pairs
    luck.sort(axis=1)
    luck &= 0xFFFFFFFF
    return np.concatenate([luck.astype(np.int32).reshape(-1, places), table[len(luck) * 2 :]])
