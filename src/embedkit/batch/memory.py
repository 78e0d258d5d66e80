"""Rows of past batches, as further keys or candidates: MoCo's queue and XBM's memory."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_integer, check_last_dim, check_ndim, check_rows
from embedkit.ops import gather_rows
from embedkit.ops._exchange import find_ranks, withdraw

_HINT = "A memory fits one width: build it with the width of the embeddings."


class MemoryQueue(nn.Module):
    """The last ``size`` rows it was given, with their ids: further keys for the next batches.

    Calling the Module gives the rows it holds, (n, dim), and their ids, (n,); n = 0 at first. Row
    number r ever stored stands at place r mod ``size``. What it gives are views without gradient:
    enqueue after backward::

        rows, ids = queue()
        loss = info_nce(query, key, query_ids=own, same_id="ignore", memory=rows, memory_ids=ids)
        queue.enqueue(key, own)

    With ids and ``same_id="ignore"`` a row's older copy in the queue is neither its negative nor
    its positive. An empty queue leaves the plain loss.

    Rows keep the queue's dtype (``MemoryQueue(size, dim).to(torch.bfloat16)``). All state is in
    ``state_dict``. Keep the queue outside of DDP, whose broadcast of buffers would overwrite it.

    Args:
        size: number of rows it keeps, >= 1; a few hundred batches at most, for rows grow stale.
        dim: their width, >= 1.

    Raises:
        ValueError: if ``size`` or ``dim`` is below 1.

    Source: He et al. 2020, Momentum Contrast for Unsupervised Visual Representation Learning,
    sec. 3.1-3.2.
    Differs: it starts empty instead of with random rows; a batch may be of any size.

    >>> queue = MemoryQueue(3, dim=2)
    >>> queue.enqueue(torch.ones(2, 2), torch.tensor([7, 8]))
    >>> rows, ids = queue()
    >>> ids
    tensor([7, 8])
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.ring = _Ring("MemoryQueue", size, dim, numbers=1)

    def enqueue(
        self,
        rows: Float[Tensor, "n d"],
        ids: Int[Tensor, " n"] | None = None,
        *,
        gather: bool | dist.ProcessGroup = False,
    ) -> None:
        """Store rows, detached, in place of the oldest; of more than ``size`` the last stay.

        Args:
            rows: in the queue's dtype.
            ids: integers >= 0, the same that the loss compares. None: -1, an id of nothing.
            gather: True, or a process group: store the rows of all its ranks, in their order, so
                that every rank holds the same. Call it on every rank then.

        Raises:
            RuntimeError: in evaluation mode.
            ValueError: if the width or the number of ids does not fit.
            TypeError: if the dtype of ``rows`` is not the queue's, or ids are not integers.
        """
        self.ring.write(self.training, rows, [ids], gather)

    def forward(self) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """The rows held, and their ids."""
        rows, numbers = self.ring()
        return rows, numbers[:, 0]


class CrossBatchMemory(nn.Module):
    """The last ``size`` embeddings with their labels: more positives and negatives per anchor.

    Calling the Module gives the rows it holds, (n, dim), and their labels, (n,); both are
    candidates for the anchors of the batch, and constants::

        rows, labels = memory(without=sample_ids)
        loss = sup_con(embeddings, y, memory=rows, memory_labels=labels)
        memory.enqueue(embeddings, y, sample_ids)

    ``without`` leaves out older copies of the batch's own samples, which would be trivial
    positives. The rows come from the encoder that is trained, so begin when it drifts slowly: the
    paper trains without the memory first.

    Dtype, state and DDP as in :class:`MemoryQueue`.

    Args:
        size: number of rows it keeps, >= 1.
        dim: their width, >= 1.

    Raises:
        ValueError: if ``size`` or ``dim`` is below 1.

    Source: Wang et al. 2020, Cross-Batch Memory for Embedding Learning, sec. 3, algorithm 1.
    Differs: a sample never meets its own older copy; the batch meets itself in the loss, so it is
    stored afterwards and not before.

    >>> memory = CrossBatchMemory(5, dim=2)
    >>> memory.enqueue(torch.ones(2, 2), torch.tensor([0, 1]), torch.tensor([10, 11]))
    >>> rows, labels = memory(without=torch.tensor([10]))
    >>> labels
    tensor([1])
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.ring = _Ring("CrossBatchMemory", size, dim, numbers=2)

    def enqueue(
        self,
        rows: Float[Tensor, "n d"],
        labels: Int[Tensor, " n"],
        ids: Int[Tensor, " n"] | None = None,
        *,
        gather: bool | dist.ProcessGroup = False,
    ) -> None:
        """Store rows, detached, in place of the oldest; of more than ``size`` the last stay.

        Args:
            rows: in the memory's dtype.
            labels: integers.
            ids: one integer >= 0 per sample, e.g. its index in the data set. None: -1.
            gather: as in :meth:`MemoryQueue.enqueue`.

        Raises:
            RuntimeError: in evaluation mode.
            ValueError: if the width, or the number of labels or ids, does not fit.
            TypeError: if the dtype of ``rows`` is not the memory's, or labels or ids are not
                integers.
        """
        self.ring.write(self.training, rows, [ids, labels], gather)

    def forward(
        self, without: Int[Tensor, " m"] | None = None
    ) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
        """The rows held, and their labels; those with an id in ``without`` are left out."""
        rows, numbers = self.ring()
        if without is not None:
            check_integer("without", without, "Sample ids, as given to enqueue.")
            kept = ~torch.isin(numbers[:, 0], without)
            rows, numbers = rows[kept], numbers[kept]
        return rows, numbers[:, 1]


class _Ring(nn.Module):
    """A ring buffer of rows, each with ``numbers`` integers: its id, and maybe its label."""

    rows: Tensor
    numbers: Tensor

    def __init__(self, owner: str, size: int, dim: int, numbers: int) -> None:
        super().__init__()
        check_at_least(owner, "size", size, 1)
        check_at_least(owner, "dim", dim, 1)
        self.owner = owner
        self.register_buffer("rows", torch.zeros(size, dim))
        self.register_buffer("numbers", torch.full((size, numbers), -1))
        self.next, self.filled = 0, 0  # plain integers: reading never waits for a device

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.next, self.filled])

    def set_extra_state(self, state: Tensor) -> None:
        self.next, self.filled = (int(number) for number in state)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.rows[: self.filled], self.numbers[: self.filled]

    @torch.no_grad()
    def write(
        self,
        training: bool,
        rows: Tensor,
        numbers: list[Tensor | None],
        gather: bool | dist.ProcessGroup,
    ) -> None:
        try:
            table = self._check(training, rows, numbers)
        except (TypeError, ValueError, RuntimeError) as error:
            if gather is not False:
                withdraw(find_ranks(self.owner, gather), rows.device, error)
            raise
        if gather is not False:
            group = None if gather is True else gather
            rows, table = gather_rows(rows, group), gather_rows(table, group)
        self._store(rows, table)

    def _check(self, training: bool, rows: Tensor, numbers: list[Tensor | None]) -> Tensor:
        """The numbers as one table, (n, numbers)."""
        if not training:
            raise RuntimeError(
                f"{self.owner}: enqueue in evaluation mode would mix evaluated rows into training. "
                "Enqueue in training only, or call train() first."
            )
        check_ndim("rows", rows, "n d")
        check_last_dim("rows", rows, self.rows.shape[1], _HINT)
        if rows.dtype != self.rows.dtype:
            raise TypeError(
                f"{self.owner}: expected rows of {self.rows.dtype}, got {rows.dtype}. Convert the "
                f"rows, or build the memory in their dtype: .to({rows.dtype})."
            )
        columns = []
        for name, column in zip(("ids", "labels"), numbers, strict=False):
            given = rows.new_full((len(rows),), -1, dtype=torch.long) if column is None else column
            check_integer(name, given)
            check_ndim(name, given, "n")
            check_rows(name, given, rows.shape[0], "One per row.")
            columns.append(given.long())
        return torch.stack(columns, dim=1)

    def _store(self, rows: Tensor, numbers: Tensor) -> None:
        size = len(self.rows)
        start, count = self.next, len(rows)
        skipped = max(count - size, 0)
        rows, numbers = rows[skipped:], numbers[skipped:]
        place = (torch.arange(len(rows), device=rows.device) + (start + skipped)) % size
        self.rows[place], self.numbers[place] = rows, numbers
        self.next, self.filled = (start + count) % size, min(self.filled + count, size)

    def extra_repr(self) -> str:
        return f"size={len(self.rows)}, dim={self.rows.shape[1]}, filled={self.filled}"
