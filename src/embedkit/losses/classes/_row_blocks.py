"""A loss per row of a matrix of cosines, a block of rows at a time, recomputed in backward."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from embedkit.losses._precision import full_precision
from embedkit.ops import accumulation_dtype, normalize

_ENTRIES = 2**22  # of a block of cosines

RowLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def map_row_blocks(
    row_loss: RowLoss, embeddings: Float[Tensor, "b d"], labels: Int[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """``row_loss(cosine, positive, negative)`` of every row against all rows: (r, b) to (r,).

    Equal labels are positives, no row meets itself. A block's matrices live while it is computed,
    in forward and again in backward; what stays between is linear in b.
    """
    unit = normalize(embeddings.to(accumulation_dtype(embeddings.dtype)))
    count = unit.shape[0]
    if count == 0:
        return unit.sum(dim=1)
    index = torch.arange(count, device=labels.device)

    def block(rows: Tensor, others: Tensor, own_labels: Tensor, own_index: Tensor) -> Tensor:
        with full_precision(others):
            cosine = rows @ others.mT
        same = own_labels[:, None] == labels
        return row_loss(cosine, same & (own_index[:, None] != index), ~same)

    step = max(1, _ENTRIES // count)
    parts = [
        checkpoint(
            block,
            unit[start : start + step],
            unit,
            labels[start : start + step],
            index[start : start + step],
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(0, count, step)
    ]
    return torch.cat(parts)
