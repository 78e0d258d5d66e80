"""Batches over several data sets or domains: one task a batch, or all domains in each batch."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedkit._checks import check_at_least, check_choice, check_positive
from embedkit.batch._arrange import Ids, check_size, cut_passes, group_rows
from embedkit.batch._schedule import BatchSchedule


class SingleTaskBatchSampler(BatchSchedule):
    """Each batch from one task's data set, the same task on all ranks at each step.

    The data sets stand one after the other, as in ``torch.utils.data.ConcatDataset``: row i of the
    second has number lengths[0] + i. Each is shuffled and cut into global batches of its own size,
    batch_sizes[t] times the number of ranks; what is left over sits the epoch out. The batches of
    all tasks are then shuffled together, and of each one rank r takes the r-th part.

    So a task's share of the updates follows from its length and its batch size. ``weights`` sets
    the shares instead, at the same number of batches: a task that needs more batches than its data
    set has is shuffled and cut again, one that needs fewer is seen in part. Lengths to the power
    1 / temperature are a usual choice; equal weights give equal shares.

    Keeps nothing per row; an epoch under way 4 bytes for each row of the rank, and 4 per batch.

    Args:
        lengths: rows of each data set.
        batch_sizes: rows in a rank's batch, for each data set.
        weights: shares of the updates, > 0, of any sum; rounded to whole batches, the largest
            remainders up. None: each data set once.
        seed: the order depends on seed and epoch alone.
        replicas: (number of ranks, this rank). None: those of ``torch.distributed``, or (1, 0).

    Raises:
        ValueError: for lists of different lengths or none at all, sizes below 1, a data set smaller
            than its global batch, a weight that is not > 0 or too small for one batch, or a rank
            that does not exist.

    Source: Zhang et al. 2025, CoDiEmb: A Collaborative yet Distinct Framework for Unified
        Representation Learning in Information Retrieval and Semantic Textual Similarity, the
        dynamic sampler of the released code.
    Differs: the released code multiplies the global batch by the steps of gradient accumulation but
        consumes one part of it; here nothing is dropped beyond the tails. ``weights`` are ours.

    >>> sampler = SingleTaskBatchSampler(lengths=[6, 4], batch_sizes=[3, 2])
    >>> sorted(sorted(row >= 6 for row in batch) for batch in sampler)
    [[False, False, False], [False, False, False], [True, True], [True, True]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_sizes: Sequence[int],
        *,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        replicas: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(seed, replicas)
        self.lengths, self.batch_sizes = [int(n) for n in lengths], [int(b) for b in batch_sizes]
        self.weights = None if weights is None else [float(w) for w in weights]
        counts = [len(self.lengths), len(self.batch_sizes), len(self.weights or self.lengths)]
        if len(set(counts)) > 1 or not counts[0]:
            raise ValueError(
                "SingleTaskBatchSampler: lengths, batch_sizes and weights must have one entry for "
                f"each data set, got {counts[0]}, {counts[1]} and {counts[2]}"
            )
        check_size("SingleTaskBatchSampler", sum(self.lengths))
        for task, (length, size) in enumerate(zip(self.lengths, self.batch_sizes, strict=True)):
            check_at_least("SingleTaskBatchSampler", f"batch_sizes[{task}]", size, 1)
            if length < (whole := size * self.num_replicas):
                raise ValueError(
                    f"SingleTaskBatchSampler: data set {task} has {length} rows, fewer than its "
                    f"global batch of {whole} ({size} on each of {self.num_replicas} ranks). "
                    "Lower its batch size, or leave it out."
                )
        self._counts = self._updates()
        facts = (self.lengths, self.batch_sizes, self._counts)
        self._settle(sum(self._counts), sum(self.lengths), *facts)

    def _updates(self) -> list[int]:
        """How many batches of each task an epoch has."""
        sizes = zip(self.lengths, self.batch_sizes, strict=True)
        once = [length // (size * self.num_replicas) for length, size in sizes]
        if self.weights is None:
            return once
        for task, weight in enumerate(self.weights):
            check_positive("SingleTaskBatchSampler", f"weights[{task}]", weight)
        wanted = [sum(once) * weight / sum(self.weights) for weight in self.weights]
        counts = [int(share) for share in wanted]
        by_rest = sorted(range(len(counts)), key=lambda task: counts[task] - wanted[task])
        for task in by_rest[: sum(once) - sum(counts)]:
            counts[task] += 1
        if 0 in counts:
            raise ValueError(
                f"SingleTaskBatchSampler: weights give data set {counts.index(0)} no batch in an "
                f"epoch of {sum(once)}. Raise its weight, or leave it out."
            )
        return counts

    def _batches(self, start: int) -> Iterator[NDArray[np.int32]]:
        rng, own = self._generator(self.epoch), []
        begins = accumulate(self.lengths, initial=0)
        parts = zip(begins, self.lengths, self.batch_sizes, self._counts, strict=False)
        for begin, length, size, count in parts:
            rows = np.arange(begin, begin + length, dtype=np.int32)
            batches = cut_passes(rows, size * self.num_replicas, count, rng)
            own.append(batches[:, size * self.rank : size * (self.rank + 1)].copy())
        tasks = rng.permutation(np.repeat(np.arange(len(own), dtype=np.int32), self._counts))
        passed = np.bincount(tasks[:start], minlength=len(own))
        following = [iter(part[at:]) for part, at in zip(own, passed, strict=True)]
        return (next(following[task]) for task in tasks[start:])


class DomainBalancedSampler(BatchSchedule):
    """Batches with the same number of rows from each domain.

    Each domain is shuffled and cut into parts of batch_size / domains rows for each rank; a batch
    takes one part of each. A domain that runs out is shuffled and cut again, so its rows come
    several times in an epoch but never twice in a global batch; what is left over at each cut
    waits for the next. A batch is domain-major, domains in increasing order of their number:
    ``x.unflatten(0, (domains, -1))`` takes the embedded batch apart.

    Keeps 4 bytes per row; an epoch under way 4 bytes for each row of the rank's batches.

    Args:
        domains: the domain of each row of the data set, any integers.
        batch_size: rows in a rank's batch, a multiple of the number of domains.
        epoch_of: an epoch is one pass over the "largest" domain, or over the "smallest", which
            shows a part of the others, drawn anew each epoch.
        seed: the order depends on seed and epoch alone.
        replicas: (number of ranks, this rank). None: those of ``torch.distributed``, or (1, 0).

    Raises:
        TypeError: if ``domains`` are not integers.
        ValueError: for a batch size that the domains do not divide, another ``epoch_of``, no
            domains, a rank that does not exist, or a domain with fewer rows than its part of a
            global batch.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, sec. 5.2 (batches of
        half source, half target).

    >>> sampler = DomainBalancedSampler([0, 0, 0, 0, 1, 1], batch_size=4)
    >>> [[row >= 4 for row in batch] for batch in sampler]
    [[False, False, True, True], [False, False, True, True]]
    """

    def __init__(
        self,
        domains: Ids,
        batch_size: int,
        *,
        epoch_of: Literal["largest", "smallest"] = "largest",
        seed: int = 0,
        replicas: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(seed, replicas)
        check_at_least("DomainBalancedSampler", "batch_size", batch_size, 1)
        check_choice("DomainBalancedSampler", "epoch_of", epoch_of, ("largest", "smallest"))
        self.batch_size, self.epoch_of = batch_size, epoch_of
        self._groups = group_rows("DomainBalancedSampler", "domains", domains)
        counts = self._groups.counts
        if batch_size % counts.size:
            raise ValueError(
                f"DomainBalancedSampler: batch_size must be a multiple of the {counts.size} "
                f"domains, got {batch_size}"
            )
        self._part = batch_size // counts.size
        whole = self._part * self.num_replicas
        if (least := int(counts.min())) < whole:
            raise ValueError(
                f"DomainBalancedSampler: the smallest domain has {least} rows, fewer than its part "
                f"of a global batch, {whole} ({self._part} on each of {self.num_replicas} ranks). "
                "Lower batch_size, or leave that domain out."
            )
        batches = int(counts.max() if epoch_of == "largest" else least) // whole
        self._settle(batches, len(self._groups.rows), *self._groups, batch_size, epoch_of)

    def _batches(self, start: int) -> Iterator[NDArray[np.int32]]:
        rng = self._generator(self.epoch)
        first, own = self._part * self.rank, []
        for rows in np.split(self._groups.rows, self._groups.starts()[1:]):
            batches = cut_passes(rows, self._part * self.num_replicas, len(self), rng)
            own.append(batches[start:, first : first + self._part])
        return iter(np.concatenate(own, axis=1))
