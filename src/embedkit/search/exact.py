"""Exact nearest-neighbour search: every corpus row is compared, a block of them at a time."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.ops import accumulation_dtype, normalize

# Blocks are padded to whole tiles: at the edge of a matrix a BLAS uses other kernels, which may
# round differently, and then two equal corpus rows would not get equal similarities.
QUERY_TILE, CORPUS_TILE = 48, 192
CORPUS_ROWS = 40 * CORPUS_TILE  # of one block, unless k asks for more
BLOCK = 20 * QUERY_TILE * CORPUS_ROWS  # similarities held at once


class SearchResult(NamedTuple):
    """What a search found: one row per query, best first."""

    similarity: Float[Tensor, "q k"]
    """Float32 or wider; minus infinity where there was no further candidate."""
    index: Int[Tensor, "q k"]  # type: ignore[assignment]
    """Row in the corpus; -1 where there was no further candidate."""


def _tiles(rows: Tensor, tile: int, cosine: bool, dtype: torch.dtype) -> Tensor:
    rows = F.pad(rows.to(dtype), (0, 0, 0, -rows.shape[0] % tile))
    return normalize(rows) if cosine else rows


def _first_of_equals(scores: Tensor, kth: Tensor, k: int) -> Tensor:
    """Columns (q, k) of the entries above ``kth`` and of the first that equal it."""
    above, equal = scores > kth, scores == kth
    room = k - above.sum(dim=1, keepdim=True)
    keep = above | (equal & (equal.cumsum(dim=1) <= room))
    return keep.nonzero()[:, 1].reshape(-1, k)


def _top(scores: Tensor, k: int) -> SearchResult:
    """Top k columns of each row by score, and by column where scores are equal."""
    k = min(k, scores.shape[1])
    value, column = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if column.shape[1] > k:
        # topk takes any of several equal scores, so rows with a tie at the cut are done again.
        tied, column = value[:, k - 1] == value[:, k], column[:, :k]
        if tied.any():
            column[tied] = _first_of_equals(scores[tied], value[tied, k - 1 : k], k)
    column = column.sort(dim=1).values
    return _by_score(SearchResult(scores.gather(1, column), column))


def _by_score(found: SearchResult) -> SearchResult:
    """Best first; the order given stays where scores are equal."""
    value, order = found.similarity.sort(dim=1, descending=True, stable=True)
    return SearchResult(value, found.index.gather(1, order))


def _merge(old: SearchResult, new: SearchResult, k: int) -> SearchResult:
    """Top k of both; ``old`` comes from lower corpus rows, so it goes first."""
    both = SearchResult(*(torch.cat(pair, dim=1) for pair in zip(old, new, strict=True)))
    return SearchResult(*(part[:, :k] for part in _by_score(both)))


def _exclude(scores: Tensor, exclude: Tensor, start: int) -> None:
    """In place: minus infinity at the excluded corpus rows of the block that begins at start."""
    row, entry = ((exclude >= start) & (exclude < start + scores.shape[1])).nonzero(as_tuple=True)
    scores[row, exclude[row, entry] - start] = -torch.inf


def _check(query: Tensor, corpus: Tensor, k: int, similarity: str, exclude: Tensor | None) -> None:
    check_ndim("query", query, "q d")
    check_ndim("corpus", corpus, "n d")
    check_floating("query", query)
    check_floating("corpus", corpus)
    hint = "Query and corpus must come from one model, cut to one width."
    check_last_dim("query", query, corpus.shape[1], hint)
    check_at_least("exact_search", "k", k, 1)
    check_choice("exact_search", "similarity", similarity, ("cosine", "dot"))
    check_finite("exact_search", "query", query)
    check_finite("exact_search", "corpus", corpus)
    if exclude is None:
        return
    check_ndim("exclude", exclude, "q e")
    check_rows("exclude", exclude, query.shape[0], "It needs one row for each query.")
    check_integer("exclude", exclude)
    exclude = exclude.long()
    wrong = exclude[(exclude < -1) | (exclude >= corpus.shape[0])]
    if wrong.numel():
        raise ValueError(
            f"exact_search: exclude must hold corpus rows from 0 to {corpus.shape[0] - 1}, or -1 "
            f"for none, got {int(wrong[0])}"
        )


def _check_overflow(query: Tensor, corpus: Tensor, dtype: torch.dtype) -> None:
    if query.numel() and corpus.numel():
        peaks = [max(-float(low), float(high)) for low, high in map(torch.aminmax, (query, corpus))]
        if query.shape[1] * peaks[0] * peaks[1] > torch.finfo(dtype).max:
            raise ValueError(
                f"exact_search: dot products may overflow {dtype}, with entries as large as "
                f"{peaks[0]:g} and {peaks[1]:g} in {query.shape[1]} columns. Scale the rows "
                "down, pass float64, or search by cosine."
            )


@torch.no_grad()
def exact_search(
    query: Float[Tensor, "q d"],
    corpus: Float[Tensor, "n d"],
    k: int,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
    exclude: Int[Tensor, "q e"] | None = None,
) -> SearchResult:
    """The k corpus rows most similar to each query: exact, in bounded memory, without a gradient.

    Corpus rows are compared block by block; only a running top k is kept, so memory beside the
    inputs, a float32 copy of the queries and the result does not grow with q or n. Corpus rows of
    equal similarity are ordered by index, the lowest first, also where only some of them fit into
    the k. Apart from how a BLAS rounds the last bit, the result depends neither on the size of a
    block nor on which queries are asked together.

    Args:
        query: one row per query. Half precision is computed in float32.
        corpus: the rows to choose from.
        k: how many to return, at least 1; may exceed n.
        similarity: "cosine", between -1 and 1 (0 for a zero vector), or "dot".
        exclude: corpus rows that must not be returned for a query, e.g. the query itself; -1 is
            none.

    Returns:
        ``similarity`` and ``index``, both (q, k). Where a query has fewer than k candidates, an
        empty corpus included, the rest is minus infinity and -1.

    Raises:
        TypeError: if embeddings are not floating-point or ``exclude`` does not hold integers.
        ValueError: for widths that differ, k < 1, an unknown ``similarity``, NaN or infinity in
            the embeddings, dot products that may overflow, or ``exclude`` out of range.

    >>> corpus = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    >>> exact_search(torch.tensor([[0.0, 1.0]]), corpus, k=2).index
    tensor([[1, 2]])
    """
    _check(query, corpus, k, similarity, exclude)
    dtype = accumulation_dtype(torch.promote_types(query.dtype, corpus.dtype))
    cosine = similarity == "cosine"
    if not cosine:
        _check_overflow(query, corpus, dtype)
    columns = max(CORPUS_ROWS, 4 * k)  # so that a long running top k is merged but a few times
    held = min(columns, max(corpus.shape[0], CORPUS_ROWS))
    rows = max(1, BLOCK // held // QUERY_TILE) * QUERY_TILE
    parts = torch.split(query, rows)
    excluded = [None] * len(parts) if exclude is None else torch.split(exclude.long(), rows)
    best = [
        SearchResult(part.new_empty(len(part), 0, dtype=dtype), part.new_empty(len(part), 0).long())
        for part in parts
    ]
    padded = [_tiles(part, QUERY_TILE, cosine, dtype) for part in parts]
    with torch.autocast(query.device.type, enabled=False):
        for start in range(0, corpus.shape[0], columns):
            block = corpus[start : start + columns]
            keys = _tiles(block, CORPUS_TILE, cosine, dtype).T
            for i, part in enumerate(parts):
                scores = (padded[i] @ keys)[: part.shape[0], : block.shape[0]]
                if (out := excluded[i]) is not None:
                    _exclude(scores, out, start)
                found = _top(scores, k)
                best[i] = _merge(best[i], found._replace(index=found.index + start), k)
    value, index = (torch.cat(column) for column in zip(*best, strict=True))
    value = F.pad(value, (0, k - value.shape[1]), value=-torch.inf)
    index = F.pad(index, (0, k - index.shape[1]), value=-1)
    return SearchResult(value, index.masked_fill(value == -torch.inf, -1))
