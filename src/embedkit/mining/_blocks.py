"""Similarities of queries and a corpus, a block of queries at a time."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from embedkit._checks import (
    check_choice,
    check_finite,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.ops import accumulation_dtype, normalize

Similarity = Literal["cosine", "dot"]
_ENTRIES = 2**22  # of a block of similarities


def check_index(owner: str, name: str, index: Tensor, rows: int, corpus: int) -> Tensor:
    """Corpus rows as (q, p), after checking that they exist; -1 is none."""
    check_integer(name, index)
    check_rows(name, index, rows, "It needs one row for each query.")
    if index.ndim == 1:
        index = index[:, None]
    check_ndim(name, index, "q p")
    index = index.long()
    wrong = index[(index < -1) | (index >= corpus)]
    if wrong.numel():
        raise ValueError(
            f"{owner}: {name} must hold corpus rows from 0 to {corpus - 1}, or -1 for none, got "
            f"{int(wrong[0])}"
        )
    return index


def similarity_blocks(
    owner: str, query: Tensor, corpus: Tensor, similarity: str
) -> Iterator[tuple[slice, Tensor]]:
    """The queries of a block, and their similarity (block, n) to all rows of the corpus."""
    for name, rows in (("query", query), ("corpus", corpus)):
        check_floating(name, rows)
        check_ndim(name, rows, "q d")
        check_finite(owner, name, rows)
    check_last_dim("query", query, corpus.shape[1], "Both must come from one model.")
    check_choice(owner, "similarity", similarity, ("cosine", "dot"))
    wide = accumulation_dtype(torch.promote_types(query.dtype, corpus.dtype))
    query, corpus = query.detach().to(wide), corpus.detach().to(wide)
    if similarity == "cosine":
        query, corpus = normalize(query), normalize(corpus)
    step = max(1, _ENTRIES // max(corpus.shape[0], 1))
    with torch.autocast(query.device.type, enabled=False):
        for start in range(0, query.shape[0], step):
            block = slice(start, start + step)
            yield block, query[block] @ corpus.T


def of_positives(scores: Tensor, positive: Tensor, missing: float) -> Tensor:
    """Similarities (q, p) of the positives, with ``missing`` where the index is -1."""
    if not scores.shape[1]:
        return scores.new_full(positive.shape, missing)
    return scores.gather(1, positive.clamp(min=0)).masked_fill(positive < 0, missing)
