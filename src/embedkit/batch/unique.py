"""Batches in which no id occurs twice."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from embedkit._checks import check_at_least
from embedkit.batch._arrange import Ids, group_rows, most_batches, shuffle_by, spread
from embedkit.batch._schedule import BatchSchedule


class NoDuplicateBatchSampler(BatchSchedule):
    """Batches in which no id occurs twice, so that no row is a false negative of its double.

    Every row comes exactly once in an epoch. Rows of one id are spread over the batches, in as many
    full batches as that allows, i.e. the largest B with sum_i min(n_i, B) >= B batch_size ranks.
    What is left, the excess of ids with more than B rows included, comes at the end, in as few
    short batches as that allows, of sizes that differ by at most one.

    A global batch is batch_size times the number of ranks; no id is in it twice, whichever ranks
    its rows go to. Of a short batch each rank gets a part, the parts differing by at most one row;
    a short batch with fewer rows than ranks is left out.

    Keeps 4 bytes per row and 4 per id; an epoch under way 4 bytes per row and 16 per batch.

    Args:
        ids: what must not meet itself in a batch, e.g. the number of the document or of its text;
            any integers.
        batch_size: rows in a rank's batch.
        drop_last: leave the short batches out, also those of ids with too many rows.
        seed: the order depends on seed and epoch alone.
        replicas: (number of ranks, this rank). None: those of ``torch.distributed``, or (1, 0).

    Raises:
        TypeError: if ``ids`` are not integers.
        ValueError: for a batch size below 1, no ids, a rank that does not exist, or when not one
            batch can be made.

    Differs: samplers of this name in other libraries fill one batch after the other and put off
        what does not fit, which ends an epoch in many small batches, or drops rows.

    >>> list(map(sorted, NoDuplicateBatchSampler([7, 7, 8, 8], batch_size=2))) != [[0, 1], [2, 3]]
    True
    """

    def __init__(
        self,
        ids: Ids,
        batch_size: int,
        *,
        drop_last: bool = False,
        seed: int = 0,
        replicas: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(seed, replicas)
        check_at_least("NoDuplicateBatchSampler", "batch_size", batch_size, 1)
        self.batch_size, self.drop_last = batch_size, drop_last
        self._groups = group_rows("NoDuplicateBatchSampler", "ids", ids)
        size = batch_size * self.num_replicas
        self._full = most_batches(self._groups.counts, size)
        rest = self._groups.counts - self._chosen(self._generator(0))
        self._short = max(-(-int(rest.sum()) // size), int(rest.max()))
        share, larger = divmod(int(rest.sum()), max(self._short, 1))
        kept = self._short if share >= self.num_replicas else larger
        kept = kept if share + (larger > 0) >= self.num_replicas and not drop_last else 0
        if self._full + kept == 0:
            raise ValueError(
                f"NoDuplicateBatchSampler: cannot make one batch of {size} rows ({batch_size} on "
                f"each of {self.num_replicas} ranks) from {len(self._groups.counts)} different ids "
                f"with drop_last={drop_last}. Lower batch_size."
            )
        facts = (*self._groups, batch_size, drop_last)
        self._settle(self._full + kept, len(self._groups.rows), *facts)

    def _chosen(self, rng: np.random.Generator) -> NDArray[np.int32]:
        """How many rows of each id the full batches take: all that fit, less at most one each."""
        counts = self._groups.counts
        chosen = np.minimum(counts, self._full)
        surplus = int(chosen.sum()) - self._full * self.batch_size * self.num_replicas
        if surplus:
            # There are enough ids without rows left over, or another full batch could be made.
            able = np.flatnonzero(counts <= self._full)
            chosen[rng.choice(able, surplus, replace=False)] -= 1
        return chosen

    def _batches(self, start: int) -> Iterator[NDArray[np.int32]]:
        rng = self._generator(self.epoch)
        chosen, rows = self._chosen(rng), self._groups.shuffled(rng)
        rest = self._groups.counts - chosen
        kind = np.tile([True, False], chosen.size)
        first = np.repeat(kind, np.stack([chosen, rest], 1).ravel())
        batch = np.empty(rows.size, np.int32)
        batch[first] = spread(chosen, self._full, rng)
        batch[~first] = self._full + self._by_size(spread(rest, self._short, rng))
        rows = rows[shuffle_by(batch, rng)]
        size = np.bincount(batch, minlength=self._full + self._short)
        end = np.cumsum(size, dtype=np.int64)
        own = end - size + np.stack([size * self.rank, size * (self.rank + 1)]) // self.num_replicas
        return (rows[low:high] for low, high in own[:, start : len(self)].T)

    def _by_size(self, batch: NDArray[np.int32]) -> NDArray[np.int32]:
        """Number the short batches anew, the larger ones first."""
        size = np.bincount(batch, minlength=self._short)
        number = np.empty(self._short, np.int32)
        number[np.argsort(-size, kind="stable")] = np.arange(self._short)
        return number[batch]
