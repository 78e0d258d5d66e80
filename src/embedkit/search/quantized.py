"""Corpora of one byte or one bit per coordinate, and a search that scores its best rows again."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_floating,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.ops import accumulation_dtype, normalize
from embedkit.search.binary import CODE_ROWS, check_codes, search_parts, signs_of
from embedkit.search.exact import SearchResult, _by_score

_BLOCK = 2**22  # entries that are quantised, or scored again, at once


class Int8Rows(NamedTuple):
    """Rows of one byte per coordinate: row i is about ``scale[i] * codes[i]``."""

    codes: Int8[Tensor, "n d"]
    """From -127 to 127."""
    scale: Float[Tensor, " n"]
    """Largest entry of the row / 127; 0 for a row of zeros."""


@torch.no_grad()
def quantize_int8(embeddings: Float[Tensor, "n d"]) -> Int8Rows:
    """One byte per coordinate and one scale per row:  round(127 x / max_j |x_j|).

    1/4 of the memory of float32 rows (4 bytes more per row for the scale). An entry moves by half a
    step at most, i.e. by 1/254 of the row's largest entry; where no entry stands out, the cosine of
    a row and its code is above 1 - 1e-4. Rows do not depend on each other: nothing is calibrated,
    and rows that come later are quantised alone.

    Args:
        embeddings: rows of any scale.

    Returns:
        ``codes`` and ``scale``; the latter in float32 or wider.

    Raises:
        TypeError: if rows are not floating point.
        ValueError: for NaN or infinity.

    Differs: sentence-transformers takes the range of every coordinate over a calibration set, and
    rounds down.

    >>> quantize_int8(torch.tensor([[0.5, -1.0, 0.0]])).codes
    tensor([[  64, -127,    0]], dtype=torch.int8)
    """
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "n d")
    check_finite("quantize_int8", "embeddings", embeddings)
    wide = accumulation_dtype(embeddings.dtype)
    codes = torch.empty(embeddings.shape, dtype=torch.int8, device=embeddings.device)
    scale = embeddings.new_zeros(embeddings.shape[0], dtype=wide)
    if codes.numel():
        step = max(1, _BLOCK // embeddings.shape[1])
        for start in range(0, embeddings.shape[0], step):
            rows = slice(start, start + step)
            part = embeddings[rows].to(wide)
            largest = part.abs().amax(dim=1, keepdim=True)
            codes[rows] = (part / largest.masked_fill(largest == 0, 1.0) * 127).round().char()
            scale[rows] = largest[:, 0] / 127
    return Int8Rows(codes, scale)


def dequantize_int8(rows: Int8Rows) -> Float[Tensor, "n d"]:
    """The rows that the codes stand for, ``scale * codes``, in the dtype of the scale.

    Raises:
        TypeError: if ``rows`` are not what :func:`quantize_int8` gives.

    >>> dequantize_int8(quantize_int8(torch.tensor([[2.0, -1.0]])))
    tensor([[ 2.0000, -1.0079]])
    """
    _check_int8("rows", rows)
    return rows.codes * rows.scale[:, None]


@torch.no_grad()
def quantized_search(
    query: Float[Tensor, "q d"],
    corpus: Int8Rows | UInt8[Tensor, "n c"],
    k: int,
    *,
    rescore: Float[Tensor, "n d"] | Int8Rows | None = None,
    shortlist: int = 10,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> SearchResult:
    """The k rows of a quantised corpus most similar to each query, which keeps its precision.

    Queries stay float: they meet the codes themselves, of one byte or of -1 and 1, unpacked block
    by block. With ``rescore``, the ``shortlist * k`` best are scored again by better rows of the
    same corpus, of which only those are read: they may lie in a file (``torch.from_file``).

    Args:
        query: float rows; half precision is computed in float32.
        corpus: :func:`quantize_int8`, or packed codes of :func:`quantize_binary`.
        k: how many to return, at least 1; may exceed n.
        rescore: the rows of the corpus as floats, or as :class:`Int8Rows` for a binary corpus.
            None: the similarity to the codes is the result.
        shortlist: how many candidates per result, at least 1, are scored again.
        similarity: "cosine" or "dot". Binary codes have lost the length of the rows, so their dot
            product is that with -1 and 1.

    Returns:
        ``similarity``, to the rows of ``rescore`` or else to the codes, in float32 or wider, and
        ``index``, both (q, k). Of equal similarities the lowest index comes first. Where the corpus
        has fewer than k rows, the rest is minus infinity and -1.

    Raises:
        TypeError: if queries are not floating point, or the corpus is neither kind of code.
        ValueError: for widths or numbers of rows that differ, k < 1, shortlist < 1, an unknown
            ``similarity``, NaN or infinity in queries or in rows that are scored again.

    Source: Yamada et al. 2021, Efficient Passage Retrieval with Hashing for Open-domain Question
    Answering, section 3 (candidates by codes, then the float query against better vectors).
    Differs: the paper finds candidates by the Hamming distance to the query's own code. Here the
    float query meets the codes at once, which costs the same product and finds more.

    >>> corpus = torch.tensor([[1.0, 0.1], [0.9, 1.0], [-1.0, 0.2]])
    >>> quantized_search(torch.tensor([[1.0, 0.9]]), quantize_int8(corpus), k=2).index
    tensor([[1, 0]])
    """
    size = _check(query, corpus, k, rescore, shortlist, similarity)
    rows = _blocks(corpus, query.shape[1])
    if rescore is None or size == 0:
        return search_parts(query, rows, k, similarity)
    found = search_parts(query, rows, max(k, min(k * shortlist, size)), similarity)
    return _rescore(query, found.index, rescore, k, similarity)


def _blocks(corpus: Int8Rows | Tensor, width: int) -> Iterator[Tensor]:
    """The corpus as floats, a block after the other."""
    if isinstance(corpus, Int8Rows):
        for codes, scale in zip(*(torch.split(part, CODE_ROWS) for part in corpus), strict=True):
            yield dequantize_int8(Int8Rows(codes, scale))
    else:
        for codes in torch.split(corpus, CODE_ROWS):
            yield signs_of(codes, width)


def _rescore(
    query: Tensor, index: Tensor, better: Tensor | Int8Rows, k: int, similarity: str
) -> SearchResult:
    """The best k of the corpus rows ``index`` (q, s) of each query by their better vectors."""
    index = index.sort(dim=1).values  # so that the lowest of equals comes first; -1 before all
    step = max(1, _BLOCK // max(query.shape[1] * index.shape[1], 1))
    stored = better.scale if isinstance(better, Int8Rows) else better
    wide = accumulation_dtype(torch.promote_types(query.dtype, stored.dtype))
    value = index.new_empty(index.shape, dtype=wide)
    with torch.autocast(query.device.type, enabled=False):
        for start in range(0, query.shape[0], step):
            chosen, part = index[start : start + step].clamp(min=0), query[start : start + step]
            vectors = _take(better, chosen).to(wide)
            part = part.to(wide)
            if similarity == "cosine":
                part, vectors = normalize(part), normalize(vectors)
            value[start : start + step] = einsum(part, vectors, "q d, q s d -> q s")
    wrong = ~value.isfinite() & (index >= 0)
    if wrong.any():
        raise ValueError(
            "quantized_search: rescore must be finite, got NaN or infinity in row "
            f"{int(index[wrong][0])}, or a dot product that overflows {wide}"
        )
    best = _by_score(SearchResult(value.masked_fill(index < 0, -torch.inf), index))
    return SearchResult(best.similarity[:, :k], best.index[:, :k])


def _take(rows: Tensor | Int8Rows, index: Tensor) -> Tensor:
    if isinstance(rows, Int8Rows):
        return rows.codes[index] * rows.scale[index][..., None]
    return rows[index]


def _check_int8(name: str, rows: Int8Rows) -> None:
    if not isinstance(rows, Int8Rows) or rows.codes.dtype != torch.int8:
        got = rows.codes.dtype if isinstance(rows, Int8Rows) else type(rows).__name__
        raise TypeError(f"{name}: expected Int8Rows of int8, as quantize_int8 gives, got {got}")
    check_ndim(f"{name}.codes", rows.codes, "n d")
    check_ndim(f"{name}.scale", rows.scale, "n")
    check_rows(
        f"{name}.scale", rows.scale, rows.codes.shape[0], "Every row has a scale of its own."
    )


def _check(
    query: Tensor,
    corpus: Int8Rows | Tensor,
    k: int,
    rescore: Tensor | Int8Rows | None,
    shortlist: int,
    similarity: str,
) -> int:
    """Raise unless all fit; the number of rows of the corpus."""
    owner = "quantized_search"
    check_at_least(owner, "k", k, 1)
    check_at_least(owner, "shortlist", shortlist, 1)
    check_choice(owner, "similarity", similarity, ("cosine", "dot"))
    check_floating("query", query, "Queries stay float; only the corpus is quantised.")
    check_ndim("query", query, "q d")
    hint = "Query and corpus must come from one model, cut to one width."
    if isinstance(corpus, Tensor):
        check_ndim("corpus", corpus, "n c")
        check_codes("corpus", corpus, query.shape[1])
        size = corpus.shape[0]
    else:
        _check_int8("corpus", corpus)
        check_last_dim("query", query, corpus.codes.shape[1], hint)
        size = corpus.codes.shape[0]
    if rescore is None:
        return size
    if isinstance(rescore, Tensor):
        check_floating("rescore", rescore)
        check_ndim("rescore", rescore, "n d")
        better = rescore
    else:
        _check_int8("rescore", rescore)
        better = rescore.codes
    check_rows("rescore", better, size, "It holds better vectors of the rows of the corpus.")
    check_last_dim("rescore", better, query.shape[1], hint)
    return size
