"""One fixed vector per dictionary entry, made from embeddings of its descriptions in passes."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.ops import accumulation_dtype

_SHOWN = 10


@torch.no_grad()
def entry_embeddings(
    batches: Iterable[tuple[Float[Tensor, "_ d"], Int[Tensor, " _"]]], num_entries: int
) -> Float[Tensor, "e d"]:
    """Average the embeddings of each entry's descriptions, a batch at a time.

    c_e = mean over the descriptions i with ids_i = e of f(description_i)

    An entry may have any number of descriptions, in any order and in several batches. Sums run in
    float32 or wider; memory is that of the result and of one batch, so give a generator that
    embeds as it goes. Nothing requires grad, what the generator computes neither. Put the encoder
    into eval mode first, and pool as the trained embedding will be pooled.

    Where all embeddings are at hand, this is :func:`embedkit.ops.segment_mean`, but for entries
    without a description.

    Args:
        batches: pairs (embeddings, entry_ids), ids from 0 to num_entries - 1.
        num_entries: how many entries there are, 1 or more.

    Returns:
        One row per entry, in the dtype and on the device of the embeddings.

    Raises:
        ValueError: if shapes do not fit, or an entry has no description; the error lists them.
        TypeError: if embeddings are not floating or ids not integers.
        IndexError: if an id is outside the range.

    Source: Liu 2024, DefSent+: Improving sentence embeddings of language models by projecting
    definition sentences into a quasi-isotropic or isotropic vector space of unlimited dictionary
    entries, the entry embeddings ("ac" over first tokens, "amp" over mean pools).

    >>> first = torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.tensor([0, 1])
    >>> second = torch.tensor([[3.0, 2.0]]), torch.tensor([0])
    >>> entry_embeddings([first, second], 2)
    tensor([[ 2.,  1.],
            [ 0., -1.]])
    """
    check_at_least("entry_embeddings", "num_entries", num_entries, 1)
    total: Tensor | None = None
    count = torch.zeros(num_entries)
    dtype = torch.float32
    for embeddings, ids in batches:
        check_floating("embeddings", embeddings)
        check_ndim("embeddings", embeddings, "b d")
        check_integer("entry_ids", ids, "Number the entries from 0.")
        check_ndim("entry_ids", ids, "b")
        check_rows("entry_ids", ids, embeddings.shape[0], "One entry per description.")
        if total is None:
            dtype = embeddings.dtype
            total = embeddings.new_zeros(
                num_entries, embeddings.shape[1], dtype=accumulation_dtype(dtype)
            )
            count = total.new_zeros(num_entries, dtype=torch.long)
        check_last_dim("embeddings", embeddings, total.shape[1], "All batches have one width.")
        ids = ids.long()
        try:
            total.index_add_(0, ids, embeddings.to(total.dtype))
            count.index_add_(0, ids, torch.ones_like(ids))
        except (IndexError, RuntimeError) as error:
            raise IndexError(
                f"entry_embeddings: entry_ids must be 0 to {num_entries - 1}, one of "
                f"{num_entries} entries, got {int(ids.min())} to {int(ids.max())}"
            ) from error
    empty = (count == 0).nonzero()[:, 0].tolist()
    if empty or total is None:
        shown = ", ".join(map(str, empty[:_SHOWN])) + (", ..." if len(empty) > _SHOWN else "")
        raise ValueError(
            f"entry_embeddings: every entry needs a description, {len(empty)} of {num_entries} "
            f"have none: {shown}. Leave those entries out and renumber the rest from 0, e.g. with "
            "entry_ids.unique(return_inverse=True)."
        )
    return total.div_(count[:, None]).to(dtype)
