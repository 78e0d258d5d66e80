"""What all samplers share: the rank's part, the epoch, the position and the state."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import Sampler

from embedkit._checks import check_at_least

_SHARED = ("num_replicas", "num_rows", "checksum")
_KEYS = ("epoch", "position", "seed", *_SHARED)


class BatchSchedule(Sampler[list[int]], ABC):
    """Batches of row numbers for ``DataLoader(batch_sampler=...)``: rank-aware and resumable.

    A sampler says how many batches an epoch has (``_num_batches``) and what they are
    (:meth:`_batches`), as a function of seed and epoch alone; all else is here.
    """

    epoch: int
    """The epoch whose batches are given; :meth:`set_epoch` sets it."""
    position: int
    """How many batches of the epoch have been given."""

    def __init__(self, seed: int, replicas: tuple[int, int] | None) -> None:
        super().__init__()
        owner = type(self).__name__
        check_at_least(owner, "seed", seed, 0)
        if replicas is None:
            on = distributed.is_available() and distributed.is_initialized()
            replicas = (distributed.get_world_size(), distributed.get_rank()) if on else (1, 0)
        self.num_replicas, self.rank = replicas
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(
                f"{owner}: replicas must be (number of ranks, this rank) with "
                f"0 <= rank < number, got {tuple(replicas)}"
            )
        self.seed, self.epoch, self.position = seed, 0, 0
        self._start = self._num_batches = self._num_rows = self._checksum = 0

    def _settle(self, num_batches: int, num_rows: int, *facts: Any) -> None:
        """Note what the order depends on, so that a state of another sampler is refused."""
        self._num_batches, self._num_rows = num_batches, num_rows
        self._checksum = zlib.crc32(type(self).__name__.encode())
        for fact in facts:
            raw = fact.tobytes() if isinstance(fact, np.ndarray) else str(fact).encode()
            self._checksum = zlib.crc32(raw, self._checksum)

    def _generator(self, *numbers: int) -> np.random.Generator:
        """Random numbers that depend on the seed and ``numbers`` (epoch, batch) alone."""
        return np.random.Generator(np.random.PCG64([self.seed, *numbers]))

    @abstractmethod
    def _batches(self, start: int) -> Iterator[NDArray[np.int32]]:
        """Row numbers of this rank's batches of the epoch, from number ``start`` on."""

    def __iter__(self) -> Iterator[list[int]]:
        self.position, self._start = self._start, 0
        return self._walk(self._batches(self.position))

    def _walk(self, batches: Iterator[NDArray[np.int32]]) -> Iterator[list[int]]:
        for batch in batches:
            self.position += 1
            yield batch.tolist()

    def __len__(self) -> int:
        """Number of batches of a whole epoch, the same on every rank."""
        return self._num_batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from which the order is drawn; call it on every rank.

        A new epoch begins at its first batch. Setting the present one again changes nothing, so
        a loop may call it first thing after :meth:`load_state_dict`.
        """
        check_at_least(type(self).__name__, "epoch", epoch, 0)
        if epoch != self.epoch:
            self.epoch, self.position, self._start = epoch, 0, 0

    def state_dict(self, position: int | None = None) -> dict[str, int]:
        """Where the sampler stands, as plain integers; the same on every rank.

        Args:
            position: how many batches of the epoch the loop has finished, those before a resume
                included. None: as many as the sampler has given. A DataLoader with workers reads
                ahead, so there the loop has to count (``torchdata``'s StatefulDataLoader counts
                by itself and calls this without an argument).

        Raises:
            ValueError: if ``position`` is negative or beyond the epoch.
        """
        position = self.position if position is None else position
        self._check_position(position)
        own = (self.num_replicas, self._num_rows, self._checksum)
        return dict(zip(_KEYS, (self.epoch, position, self.seed, *own), strict=True))

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved epoch and position, with the saved seed.

        The next iteration gives the rest of that epoch (nothing, if it was over), those after it
        whole epochs; ``len`` is that of a whole epoch throughout.

        Raises:
            ValueError: if the state is of another number of ranks, another data set, other sizes,
                or incomplete; nothing has changed then.
        """
        owner = type(self).__name__
        if missing := [key for key in _KEYS if key not in state]:
            raise ValueError(f"{owner}: the state lacks {', '.join(missing)}; use state_dict()")
        if state["num_replicas"] != self.num_replicas:
            raise ValueError(
                f"{owner}: the state was saved on {state['num_replicas']} ranks, this sampler is "
                f"for {self.num_replicas}. Batches are cut across ranks: resume on as many, or "
                f"begin the next epoch with set_epoch({state['epoch'] + 1})."
            )
        if state["num_rows"] != self._num_rows:
            raise ValueError(
                f"{owner}: the state was saved over {state['num_rows']} rows, this sampler is over "
                f"{self._num_rows}. Resume with the same data, or begin a new epoch."
            )
        if state["checksum"] != self._checksum:
            raise ValueError(
                f"{owner}: the state was saved by another sampler, or with other ids or sizes. "
                "Build the sampler with the arguments it had then."
            )
        self._check_position(state["position"])
        self.seed, self.epoch = state["seed"], state["epoch"]
        self.position = self._start = state["position"]

    def _check_position(self, position: int) -> None:
        if not 0 <= position <= len(self):
            raise ValueError(
                f"{type(self).__name__}: position must be from 0 to {len(self)}, the batches of an "
                f"epoch, got {position}"
            )
