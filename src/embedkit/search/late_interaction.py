"""Search by late interaction: every text is many token vectors, compared by MaxSim."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_mask,
    check_ndim,
)
from embedkit.ops import accumulation_dtype, normalize, segment_max, zero_padding
from embedkit.ops.late_interaction import max_sim
from embedkit.search.exact import SearchResult, _merge, _top

CORPUS_TOKENS = 2**13  # of one block of documents, unless one document has more
DOCUMENTS = 2**10  # of one block, however short they are
QUERY_TOKENS = 2**9  # compared with a block of ragged documents at once, unless a query has more


class _Block(NamedTuple):
    """Some documents as they were given."""

    start: int
    tokens: Tensor  # (n, m, d), or (t, d) where lengths are given
    mask: Tensor | None = None
    lengths: list[int] | None = None


@torch.no_grad()
def late_interaction_search(
    query: Float[Tensor, "q n d"],
    corpus: Float[Tensor, "c m d"] | Float[Tensor, "t d"],
    k: int,
    *,
    query_mask: Bool[Tensor, "q n"] | None = None,
    corpus_mask: Bool[Tensor, "c m"] | None = None,
    corpus_offsets: Int[Tensor, " c_ends"] | None = None,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> SearchResult:
    """The k documents with the largest MaxSim to each query: exact, in bounded memory.

    s_qc = sum over query tokens i of max over document tokens j of  q_i . c_j,  as in
    :func:`embedkit.ops.max_sim`. Documents are compared block by block; only a running top k is
    kept, so memory beside the inputs, the queries in float32 and the result does not grow with the
    corpus. Documents of equal similarity are ordered by index, the lowest first.

    The corpus is padded, ``(c, m, d)`` with a mask, or packed: the tokens of all documents one
    after the other, ``(t, d)``, with the offsets where documents begin and end. Packed, it takes
    neither memory nor time for padding.

    Args:
        query: token vectors of the queries. Half precision is computed in float32.
        corpus: token vectors of the documents, padded or packed.
        k: how many to return, at least 1; may exceed the number of documents.
        query_mask: True where a token is real, False where it is padding. None: all real.
        corpus_mask: the same for a padded corpus.
        corpus_offsets: (c + 1,) integers: the corpus is packed, and document i is
            ``corpus[offsets[i]:offsets[i + 1]]`` (``cu_seqlens``). Not with a mask.
        similarity: of two tokens, "cosine" (0 for a zero vector) or "dot".

    Returns:
        ``similarity`` and ``index``, both (q, k). Where the corpus has fewer than k documents, the
        rest is minus infinity and -1. A query or a document without tokens has similarity 0.

    Raises:
        TypeError: if tokens are not floating point, masks not bool or offsets not integers.
        ValueError: for shapes or widths that do not fit, k < 1, an unknown ``similarity``, offsets
            that do not fit the corpus, a packed corpus without them, or similarities that are not
            finite (NaN or infinity in a real token, or an overflow).

    Source: Khattab & Zaharia 2020, ColBERT: Efficient and Effective Passage Search via
    Contextualized Late Interaction over BERT, section 3.3.
    Differs: every document is compared; the paper first finds candidates by an approximate search
    for single tokens (section 3.6).

    >>> corpus = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])  # of 2 and 1 tokens
    >>> query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> late_interaction_search(query, corpus, k=2, corpus_offsets=torch.tensor([0, 2, 3]))
    SearchResult(similarity=tensor([[2.0000, 1.4000]]), index=tensor([[0, 1]]))
    """
    _check(query, corpus, k, similarity, query_mask, corpus_mask)
    wide = accumulation_dtype(torch.promote_types(query.dtype, corpus.dtype))
    cosine = similarity == "cosine"
    if corpus_offsets is None:
        check_ndim("corpus", corpus, "c m d")
        blocks = _padded(corpus, corpus_mask)
    else:
        blocks = _packed(corpus, corpus_mask, corpus_offsets)
    query = zero_padding(query.to(wide), query_mask)
    query = normalize(query) if cosine else query
    best = SearchResult(
        query.new_empty(query.shape[0], 0), query.new_empty(query.shape[0], 0, dtype=torch.long)
    )
    for block in blocks:
        tokens = block.tokens.to(wide)  # max_sim silences padding
        tokens = normalize(tokens) if cosine else tokens
        if block.lengths is None:
            scores = max_sim(query, tokens, key_mask=block.mask, similarity="dot")
        else:
            scores = _ragged(query, tokens, block.lengths)
        _check_scores(scores, block.start)
        found = _top(scores, k)
        best = _merge(best, found._replace(index=found.index + block.start), k)
    room = k - best.index.shape[1]
    return SearchResult(
        F.pad(best.similarity, (0, room), value=-torch.inf), F.pad(best.index, (0, room), value=-1)
    )


def _padded(corpus: Tensor, mask: Tensor | None) -> Iterator[_Block]:
    step = min(DOCUMENTS, max(1, CORPUS_TOKENS // max(corpus.shape[1], 1)))
    for start in range(0, corpus.shape[0], step):
        rows = slice(start, start + step)
        yield _Block(start, corpus[rows], None if mask is None else mask[rows])


def _packed(corpus: Tensor, mask: Tensor | None, offsets: Tensor) -> Iterator[_Block]:
    check_ndim("corpus", corpus, "t d")
    check_ndim("corpus_offsets", offsets, "ends")
    check_integer("corpus_offsets", offsets)
    if mask is not None:
        raise ValueError(
            "corpus_mask: packed tokens have no padding, so pass mask or offsets, not both"
        )
    bounds, size = offsets.tolist(), corpus.shape[0]
    falling = next((f"{a} before {b}" for a, b in pairwise(bounds) if a > b), None)
    if falling or not bounds or (bounds[0], bounds[-1]) != (0, size):
        got = falling or (f"{bounds[0]} first and {bounds[-1]} last" if bounds else "none")
        raise ValueError(
            f"corpus_offsets: expected 0 first, {size} last (the number of packed tokens) and no "
            f"fall between, got {got}. From lengths: torch.cat([lengths.new_zeros(1), "
            "lengths.cumsum(0)])."
        )
    return _packed_blocks(corpus, bounds)


def _packed_blocks(corpus: Tensor, bounds: list[int]) -> Iterator[_Block]:
    start, documents = 0, len(bounds) - 1
    while start < documents:
        stop, last = start + 1, min(start + DOCUMENTS, documents)
        while stop < last and bounds[stop + 1] - bounds[start] <= CORPUS_TOKENS:
            stop += 1
        lengths = [bounds[i + 1] - bounds[i] for i in range(start, stop)]
        yield _Block(start, corpus[bounds[start] : bounds[stop]], lengths=lengths)
        start = stop


def _ragged(query: Tensor, tokens: Tensor, lengths: list[int]) -> Tensor:
    """(q, c) MaxSim of documents that lie one after the other."""
    if not query.shape[1]:
        return query.new_zeros(query.shape[0], len(lengths))
    size = torch.tensor(lengths, device=tokens.device)
    document = torch.arange(len(lengths), device=tokens.device).repeat_interleave(size)
    step = max(1, QUERY_TOKENS // query.shape[1])
    parts = []
    with torch.autocast(query.device.type, enabled=False):
        for part in torch.split(query, step):
            similarity = tokens @ part.flatten(0, 1).mT
            best = segment_max(similarity, document, len(lengths))
            parts.append(rearrange(best, "c (q n) -> q c n", n=part.shape[1]).sum(dim=2))
    return torch.cat(parts)


def _check_scores(scores: Tensor, start: int) -> None:
    if not scores.isfinite().all():
        query, document = (int(x) for x in (~scores.isfinite()).nonzero()[0])
        raise ValueError(
            f"late_interaction_search: similarities must be finite, got "
            f"{float(scores[query, document])} for query {query} and document {start + document}. "
            "A real token of one of them holds NaN or infinity, or a dot product overflows."
        )


def _check(
    query: Tensor,
    corpus: Tensor,
    k: int,
    similarity: str,
    query_mask: Tensor | None,
    corpus_mask: Tensor | None,
) -> None:
    check_floating("query", query)
    check_floating("corpus", corpus)
    check_ndim("query", query, "q n d")
    check_mask(query_mask, query, "query")
    check_mask(corpus_mask, corpus, "corpus")
    check_last_dim("query", query, corpus.shape[-1], "Query and corpus must come from one model.")
    check_at_least("late_interaction_search", "k", k, 1)
    check_choice("late_interaction_search", "similarity", similarity, ("cosine", "dot"))
