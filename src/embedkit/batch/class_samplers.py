"""Batches of few classes with several rows each: P x K for metric learning, episodes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from embedkit._checks import check_at_least, check_rows
from embedkit.batch._arrange import Ids, group_rows, most_batches, shuffle_by, spread
from embedkit.batch._schedule import BatchSchedule


class PKSampler(BatchSchedule):
    """Batches of P classes with K rows each, so that every row has K - 1 positives.

    In an epoch no row comes twice. Each class is shuffled and cut into sets of K; what is left
    over, and classes of fewer than K rows, sit the epoch out. The sets are then arranged so that
    no class is twice in a global batch, in as many batches as that allows, i.e. the largest B with
    sum_c min(n_c // K, B) >= B P ranks. Every class of at least K rows is in each epoch, unless
    there are more such classes than places; what sits out changes from epoch to epoch.

    Each rank gets P classes of its own: a global batch is P times the number of ranks. A batch is
    class-major: rows k K to (k + 1) K have one label.

    Keeps 4 bytes per row and 8 per class; an epoch under way 4 bytes for each row of the rank.

    Args:
        labels: the class of each row of the data set, any integers.
        num_classes: P, the classes in a rank's batch. FaceNet's batches hold about 40 rows for each
            class and 1800 in all.
        num_items: K, the rows of each class.
        seed: the order depends on seed and epoch alone.
        replicas: (number of ranks, this rank). None: those of ``torch.distributed``, or (1, 0).

    Raises:
        TypeError: if ``labels`` are not integers.
        ValueError: for sizes below 1, no labels, a rank that does not exist, or fewer classes with
            K rows than a global batch needs.

    Source: Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition and Clustering,
        sec. 3.2; Hermans et al. 2017, In Defense of the Triplet Loss for Person Re-Identification,
        sec. 2 (the name P x K).
    Differs: FaceNet adds random negatives to the batch. Classes of fewer than K rows are left out
        rather than repeated, since a row is no positive of itself.

    >>> [len(batch) for batch in PKSampler([0, 0, 1, 1, 2, 2], num_classes=3, num_items=2)]
    [6]
    """

    def __init__(
        self,
        labels: Ids,
        num_classes: int,
        num_items: int,
        *,
        seed: int = 0,
        replicas: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(seed, replicas)
        check_at_least("PKSampler", "num_classes", num_classes, 1)
        check_at_least("PKSampler", "num_items", num_items, 1)
        self.num_classes, self.num_items = num_classes, num_items
        self._groups = group_rows("PKSampler", "labels", labels)
        self._sets = self._groups.counts // num_items
        if (found := int((self._sets > 0).sum())) < num_classes * self.num_replicas:
            raise ValueError(
                f"PKSampler: a global batch needs {num_classes * self.num_replicas} classes with "
                f"at least {num_items} rows ({num_classes} on each of {self.num_replicas} ranks), "
                f"got {found}. Lower num_classes or num_items."
            )
        batches = most_batches(self._sets, num_classes * self.num_replicas)
        self._settle(batches, len(self._groups.rows), *self._groups, num_classes, num_items)

    def _chosen(self, rng: np.random.Generator) -> NDArray[np.int32]:
        """How many sets of each class take part: all that fit, less a random few."""
        chosen = np.minimum(self._sets, len(self))
        surplus = int(chosen.sum()) - len(self) * self.num_classes * self.num_replicas
        spare = np.repeat(np.arange(chosen.size), np.maximum(chosen - 1, 0))
        if spare.size < surplus:  # only then does a class sit the epoch out
            last = rng.permutation(np.flatnonzero(chosen))[: surplus - spare.size]
            out = np.concatenate([spare, last])
        else:
            out = spare[rng.choice(spare.size, surplus, replace=False)] if surplus else spare[:0]
        return chosen - np.bincount(out, minlength=chosen.size).astype(np.int32)

    def _batches(self, start: int) -> Iterator[NDArray[np.int32]]:
        rng = self._generator(self.epoch)
        chosen, rows = self._chosen(rng), self._groups.shuffled(rng)
        first = np.repeat(self._groups.starts(), chosen)
        first += _count_up(chosen) * self.num_items
        first = first[shuffle_by(spread(chosen, len(self), rng), rng)]
        first = first.reshape(len(self), self.num_replicas, self.num_classes)[:, self.rank]
        own = rows[first[start:, :, None] + np.arange(self.num_items)]
        return iter(own.reshape(-1, self.num_classes * self.num_items))


def _count_up(counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """0, 1, ... for the members of each group."""
    total = np.cumsum(counts, dtype=np.int64)
    return np.arange(total[-1]) - np.repeat(total - counts, counts)


class EpisodeSampler(BatchSchedule):
    """Few-shot episodes: each batch is a small task of its own, with support and query rows.

    An episode draws ``num_ways`` classes among those that have enough rows, each as likely as the
    other, and from each ``num_shots`` support and ``num_queries`` query rows, all different. The
    batch holds all support rows first, class by class, then all query rows, class by class;
    :func:`split_episode` takes the embedded batch apart.

    Episodes are drawn independently, so rows come again in other episodes of an epoch, by chance.
    Ranks take turns at one list of episodes: rank r gets numbers r, r + ranks, r + 2 ranks, ...

    Keeps 4 bytes per row and 16 per class, and draws each episode when it is due.

    Args:
        labels: the class of each row of the data set, any integers.
        num_ways: classes in an episode, at least 2.
        num_shots: support rows of each class, at least 1.
        num_queries: query rows of each class, at least 1.
        num_episodes: episodes that each rank gets in an epoch.
        seed: the order depends on seed and epoch alone.
        replicas: (number of ranks, this rank). None: those of ``torch.distributed``, or (1, 0).

    Raises:
        TypeError: if ``labels`` are not integers.
        ValueError: for sizes too small, no labels, a rank that does not exist, or fewer than
            ``num_ways`` classes with enough rows.

    Source: Vinyals et al. 2016, Matching Networks for One Shot Learning, sec. 2.2; Mendez-Ruiz et
        al. 2023, SuSana Distancia is all you need, the released code's sampler.
    Differs: the released sampler draws support and query independently, so that a row may be both;
        here they are disjoint.

    >>> len(next(iter(EpisodeSampler([0, 0, 0, 1, 1, 1], 2, 1, 2, num_episodes=10))))
    6
    """

    def __init__(
        self,
        labels: Ids,
        num_ways: int,
        num_shots: int,
        num_queries: int,
        num_episodes: int,
        *,
        seed: int = 0,
        replicas: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(seed, replicas)
        _check_episode("EpisodeSampler", num_ways, num_shots, num_queries)
        check_at_least("EpisodeSampler", "num_episodes", num_episodes, 1)
        self.num_ways, self.num_shots, self.num_queries = num_ways, num_shots, num_queries
        self._groups = group_rows("EpisodeSampler", "labels", labels)
        need = num_shots + num_queries
        self._able = np.flatnonzero(self._groups.counts >= need).astype(np.int32)
        if self._able.size < num_ways:
            raise ValueError(
                f"EpisodeSampler: an episode needs {num_ways} classes with at least {need} rows "
                f"({num_shots} support and {num_queries} query), got {self._able.size}. "
                "Lower num_ways, num_shots or num_queries."
            )
        self._first = self._groups.starts()
        sizes = (num_ways, num_shots, num_queries, num_episodes)
        self._settle(num_episodes, len(self._groups.rows), *self._groups, sizes)

    def _batches(self, start: int) -> Iterator[NDArray[np.int32]]:
        epoch = self.epoch  # of this iteration, whatever is set while it runs
        numbers = range(
            start * self.num_replicas + self.rank, len(self) * self.num_replicas, self.num_replicas
        )
        return (self._episode(epoch, number) for number in numbers)

    def _episode(self, epoch: int, number: int) -> NDArray[np.int32]:
        rng = self._generator(epoch, number)
        size = self.num_shots + self.num_queries
        classes = rng.choice(self._able, self.num_ways, replace=False)
        counts = self._groups.counts[classes]
        drawn = np.stack([rng.choice(n, size, replace=False) for n in counts])
        rows = self._groups.rows[self._first[classes][:, None] + drawn]
        return np.concatenate(
            [rows[:, : self.num_shots].ravel(), rows[:, self.num_shots :].ravel()]
        )


def _check_episode(owner: str, num_ways: int, num_shots: int, num_queries: int) -> None:
    check_at_least(owner, "num_ways", num_ways, 2, "One class leaves nothing to tell apart.")
    check_at_least(owner, "num_shots", num_shots, 1)
    check_at_least(owner, "num_queries", num_queries, 1)


class Episode(NamedTuple):
    """The parts of an episode, class by class."""

    support: Shaped[Tensor, "ways*shots *rest"]
    """Row i is of class i // num_shots."""
    query: Shaped[Tensor, "ways*queries *rest"]
    """Row i is of class i // num_queries."""
    labels: Int[Tensor, " ways*queries"]
    """The class of each query row, counted from 0 inside the episode."""


def split_episode(
    x: Shaped[Tensor, "rows *rest"], num_ways: int, num_shots: int, num_queries: int
) -> Episode:
    """Take a batch of :class:`EpisodeSampler`, or what was made of it, apart.

    Class prototypes are ``support.unflatten(0, (num_ways, num_shots)).mean(1)``.

    Args:
        x: one entry per row of the batch: embeddings, images, labels; gradients pass.
        num_ways: as given to the sampler, as the next two.
        num_shots: support rows of each class.
        num_queries: query rows of each class.

    Returns:
        Support rows, query rows, and the labels of the query rows, 0 to num_ways - 1.

    Raises:
        ValueError: if ``x`` does not have num_ways (num_shots + num_queries) rows.

    Source: Mendez-Ruiz et al. 2023, SuSana Distancia is all you need, the released code's sampler.

    >>> split_episode(torch.randn(2 * (1 + 3), 8), 2, 1, 3).labels
    tensor([0, 0, 0, 1, 1, 1])
    """
    _check_episode("split_episode", num_ways, num_shots, num_queries)
    rows = num_ways * (num_shots + num_queries)
    check_rows("x", x, rows, f"It is one episode: {num_ways} x ({num_shots} + {num_queries}) rows.")
    labels = torch.arange(num_ways, device=x.device)[:, None].expand(-1, num_queries).flatten()
    return Episode(x[: num_ways * num_shots], x[num_ways * num_shots :], labels)
