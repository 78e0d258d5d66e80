"""Numbers per row that need a matrix of rows against everything, a block of rows at a time."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def map_row_blocks(
    block: Callable[..., Tensor], *rows: Tensor, columns: int, entries: int
) -> Tensor:
    """``block`` of the first rows, of the next ones, ...; what it gives of each row, joined.

    What a block builds lives while it is computed, in forward and again in backward; what stays
    between is linear in the rows.

    Args:
        block: takes the slices of ``rows`` and gives (r, ...); what else it needs it closes over.
        rows: tensors of equally many rows, at least one row.
        columns: of the matrix that a block builds.
        entries: of that matrix, at most, as long as one row fits.
    """
    step = max(1, entries // max(columns, 1))
    parts = [
        checkpoint(
            block,
            *(tensor[start : start + step] for tensor in rows),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, rows[0].shape[0], step)
    ]
    return torch.cat(parts)
