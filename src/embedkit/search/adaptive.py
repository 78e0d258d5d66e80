"""Search by a short prefix first, then rank few candidates again by longer ones."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_ndim,
    check_widths,
)
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops.pairwise import SHORTEST
from embedkit.search.exact import SearchResult, _by_score, _check_overflow, exact_search

ENTRIES = 2**18  # gathered at once: what a cache holds


def _shortlists(k: int, dims: Sequence[int], shortlist: int | Sequence[int]) -> list[int]:
    """How many candidates each width keeps; the last one keeps k."""
    stages = len(dims) - 1
    if isinstance(shortlist, int):
        sizes = [max(shortlist >> i, k) for i in range(stages)] if shortlist >= k else [shortlist]
    else:
        sizes = [int(size) for size in shortlist]
        if len(sizes) != stages:
            raise ValueError(
                f"adaptive_search: expected {stages} shortlists, one for each of dims but the "
                f"last, got {len(sizes)}"
            )
    falling = all(a >= b for a, b in pairwise(sizes))
    if sizes and (sizes[-1] < k or not falling):
        raise ValueError(
            f"adaptive_search: shortlist must not grow nor fall below k={k}, got {sizes}. Pass "
            f"shortlist={20 * k}, say: 200 for the best 10 is usual, and a longer one finds more."
        )
    return [*sizes, k]


def _cosines(query: Tensor, keys: Tensor) -> Tensor:
    """Each row of (r, d) with its own (r, s, d), without a normalised copy of these."""
    query = normalize(query)[:, None]
    length = torch.linalg.vector_norm(keys, dim=-1)
    scores: Tensor = (query * keys).sum(dim=-1) / length
    scores = scores.masked_fill(length < SHORTEST, 0.0)
    if (large := length.isinf()).any():  # the squares of finite entries overflowed
        scores[large] = (query.expand_as(keys)[large] * normalize(keys[large])).sum(dim=-1)
    return scores


def _rescore(query: Tensor, corpus: Tensor, index: Tensor, cosine: bool) -> Tensor:
    """Similarities (q, s) of each query with its own candidates, (q, s) rows of the corpus."""
    dtype = accumulation_dtype(torch.promote_types(query.dtype, corpus.dtype))
    scores = query.new_empty(index.shape, dtype=dtype)
    rows = max(1, ENTRIES // max(1, index.shape[1] * query.shape[1]))
    for start in range(0, query.shape[0], rows):
        part = slice(start, start + rows)
        q, keys = query[part].to(dtype), corpus[index[part].clamp(min=0)].to(dtype)
        # A sum for each pair, not a product of matrices: equal rows get equal similarities.
        scores[part] = _cosines(q, keys) if cosine else (q[:, None] * keys).sum(dim=-1)
    return scores.masked_fill(index < 0, -torch.inf)


@torch.no_grad()
def adaptive_search(
    query: Float[Tensor, "q d"],
    corpus: Float[Tensor, "n d"],
    k: int,
    *,
    dims: Sequence[int],
    shortlist: int | Sequence[int] = 200,
    similarity: Literal["cosine", "dot"] = "cosine",
    exclude: Int[Tensor, "q e"] | None = None,
) -> SearchResult:
    """The k most similar corpus rows among those that a short prefix finds, without a gradient.

    All rows are compared by their first dims[0] coordinates (:func:`exact_search`); those that a
    width keeps are compared again by the next one. Two widths are adaptive retrieval, e.g.
    ``dims=[16, 768], shortlist=200``. More are a funnel: doubling widths and halving shortlists,
    e.g. ``dims=[16, 32, 64, 128, 256, 768]``, which 200 makes 200, 100, 50, 25, 12. Use embeddings
    trained with nested widths. A shortlist of n gives what :func:`exact_search` gives.

    Args:
        query: one row per query, at full width. Half precision is computed in float32.
        corpus: the rows to choose from.
        k: how many to return, at least 1; may exceed n.
        dims: increasing widths, at most d; the last one decides the order. Cosine normalises every
            prefix for itself.
        shortlist: how many candidates dims[0] keeps, halved for each further width but never below
            k; or a list, one for each of ``dims`` but the last.
        similarity: "cosine" or "dot".
        exclude: corpus rows that must not be returned for a query; -1 is none.

    Returns:
        ``similarity`` by the last width and ``index``, both (q, k), best first, equal ones by
        index. Where a query has fewer than k candidates the rest is minus infinity and -1.

    Raises:
        TypeError: if embeddings are not floating-point or ``exclude`` does not hold integers.
        ValueError: for ``dims`` that are not increasing or wider than d, shortlists that grow or
            fall below k, and whatever :func:`exact_search` refuses.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, the sections on adaptive and
    funnel retrieval.

    >>> corpus = torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
    >>> query = torch.tensor([[1.0, 0.0, 2.0]])
    >>> adaptive_search(query, corpus, k=1, dims=[2, 3], shortlist=2).index
    tensor([[1]])
    """
    check_widths("adaptive_search", dims)
    check_ndim("query", query, "q d")
    check_ndim("corpus", corpus, "n d")
    check_at_least("adaptive_search", "k", k, 1)
    if dims[-1] > corpus.shape[1]:
        raise ValueError(
            f"adaptive_search: dims go up to {dims[-1]}, but the corpus has width "
            f"{corpus.shape[1]}. Pass embeddings at full width; they are cut here."
        )
    if query.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"adaptive_search: expected query and corpus of one width, got {query.shape[1]} and "
            f"{corpus.shape[1]}. Pass both at full width; they are cut here."
        )
    check_choice("adaptive_search", "similarity", similarity, ("cosine", "dot"))
    sizes = _shortlists(k, dims, shortlist)
    check_finite("adaptive_search", "query", query)
    check_finite("adaptive_search", "corpus", corpus)
    if similarity == "dot":
        _check_overflow(query, corpus, accumulation_dtype(query.dtype))
    first = min(sizes[0], max(corpus.shape[0], 1))
    found = exact_search(
        query[:, : dims[0]], corpus[:, : dims[0]], first, similarity=similarity, exclude=exclude
    )
    if corpus.shape[0]:
        for dim, size in zip(dims[1:], sizes[1:], strict=True):
            index = found.index.sort(dim=1).values
            scores = _rescore(query[:, :dim], corpus[:, :dim], index, similarity == "cosine")
            ranked = _by_score(SearchResult(scores, index))
            found = SearchResult(ranked.similarity[:, :size], ranked.index[:, :size])
    missing = k - found.index.shape[1]
    return SearchResult(
        F.pad(found.similarity, (0, missing), value=-torch.inf),
        F.pad(found.index, (0, missing), value=-1),
    )
