"""Binary codes: one bit per coordinate, packed eight to a byte, compared by Hamming distance."""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from embedkit._checks import check_at_least, check_finite, check_floating, check_ndim
from embedkit.search.exact import SearchResult, _merge, exact_search

CODE_ROWS = 7680  # of a corpus of codes, unpacked at once
_BLOCK = 2**22  # entries whose bits are packed at once


def pack_bits(bits: Bool[Tensor, "*n b"]) -> UInt8[Tensor, "*n c"]:
    """Eight bits to a byte, c = ceil(b / 8): the first bit of eight is the byte's highest.

    The order is that of ``numpy.packbits`` and of the "ubinary" vectors of sentence-transformers.
    The last byte is filled up with zeros.

    Args:
        bits: any number of leading axes.

    Returns:
        One row of bytes per row of bits.

    Raises:
        TypeError: if ``bits`` is not bool.
        ValueError: if it has no axis.

    >>> pack_bits(torch.tensor([True, False, True, True, False, False, True, False, True]))
    tensor([178, 128], dtype=torch.uint8)
    """
    if bits.dtype != torch.bool:
        raise TypeError(f"bits: expected bool, got {bits.dtype}. Say which are set, e.g. x > 0.")
    if bits.ndim == 0:
        raise ValueError("bits: expected bits on the last axis, got a tensor without axes")
    padded = F.pad(bits.to(torch.uint8), (0, -bits.shape[-1] % 8))
    eights = rearrange(padded, "... (c eight) -> ... c eight", eight=8)
    return (eights * _places(bits)).sum(dim=-1, dtype=torch.uint8)


def unpack_bits(codes: UInt8[Tensor, "*n c"], num_bits: int) -> Bool[Tensor, "*n b"]:
    """The inverse of :func:`pack_bits`.

    Args:
        codes: rows of bytes.
        num_bits: how many bits a row had: more than 8 (c - 1), at most 8 c.

    Returns:
        One row of ``num_bits`` bits per row of bytes.

    Raises:
        TypeError: if ``codes`` is not uint8.
        ValueError: if that many bits do not fill that many bytes.

    >>> unpack_bits(torch.tensor([160], dtype=torch.uint8), 3)
    tensor([ True, False,  True])
    """
    check_codes("codes", codes, num_bits)
    bits = (codes[..., None] & _places(codes)) != 0
    return bits.flatten(-2)[..., :num_bits]


@torch.no_grad()
def quantize_binary(embeddings: Float[Tensor, "n d"]) -> UInt8[Tensor, "n c"]:
    """One bit per coordinate, set where it is above 0; c = ceil(d / 8) bytes per row.

    1/32 of the memory of float32 rows. Use it on coordinates whose median is near 0: subtract the
    mean of the corpus first where it is not, from queries as well.

    Args:
        embeddings: rows of any scale.

    Returns:
        Packed codes, as :func:`pack_bits` gives them.

    Raises:
        TypeError: if rows are not floating point.
        ValueError: for NaN or infinity.

    Source: Yamada et al. 2021, Efficient Passage Retrieval with Hashing for Open-domain Question
    Answering, section 3 (the sign of every coordinate).
    Differs: 0 becomes the lower value, as in sentence-transformers; no training through tanh.

    >>> quantize_binary(torch.tensor([[0.3, -0.2, 0.1]]))
    tensor([[160]], dtype=torch.uint8)
    """
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "n d")
    check_finite("quantize_binary", "embeddings", embeddings)
    rows = max(1, _BLOCK // max(embeddings.shape[1], 1))
    return torch.cat([pack_bits(part > 0) for part in torch.split(embeddings, rows)])


@torch.no_grad()
def hamming_search(
    query: UInt8[Tensor, "q c"], corpus: UInt8[Tensor, "n c"], k: int
) -> SearchResult:
    """The k codes that differ from each query's code in the fewest bits: exact, bounded memory.

    Blocks of codes are unpacked to -1 and 1, whose dot product is  bits - 2 distance: small whole
    numbers, exact in float32, from a matrix product. Codes of equal distance are ordered by index,
    the lowest first; with few bits that decides most of the result.

    Args:
        query: packed codes (:func:`quantize_binary`, :func:`pack_bits`).
        corpus: packed codes of the same number of bits.
        k: how many to return, at least 1; may exceed n.

    Returns:
        ``similarity``, which is minus the number of bits that differ, in float32, and ``index``,
        both (q, k). Where the corpus has fewer than k rows, the rest is minus infinity and -1.

    Raises:
        TypeError: if codes are not uint8.
        ValueError: for k < 1, or codes of different numbers of bytes.

    >>> codes = torch.tensor([[0b1111], [0b0011], [0b0001]], dtype=torch.uint8)
    >>> hamming_search(codes[:1], codes, k=2)
    SearchResult(similarity=tensor([[ 0., -2.]]), index=tensor([[0, 1]]))
    """
    check_ndim("query", query, "q c")
    check_ndim("corpus", corpus, "n c")
    bits = 8 * corpus.shape[1]
    check_codes("query", query, bits)
    check_codes("corpus", corpus, bits)
    check_at_least("hamming_search", "k", k, 1)
    signs = signs_of(query, bits)
    parts = (signs_of(part, bits) for part in torch.split(corpus, CODE_ROWS))
    best = search_parts(signs, parts, k, "dot")
    return best._replace(similarity=(best.similarity - bits) / 2)


def search_parts(
    query: Tensor, parts: Iterable[Tensor], k: int, similarity: Literal["cosine", "dot"]
) -> SearchResult:
    """:func:`exact_search` in a corpus that comes as its rows, some after the other."""
    # An empty corpus gives k times "nothing", which sorts before the nothings of later parts.
    best, start = exact_search(query, query[:0], k, similarity=similarity), 0
    for part in parts:
        found = exact_search(query, part, k, similarity=similarity)
        best = _merge(best, found._replace(index=found.index + start), k)
        start += part.shape[0]
    return best


def signs_of(codes: UInt8[Tensor, "*n c"], num_bits: int) -> Float[Tensor, "*n b"]:
    """Codes as float32 rows of 1 where a bit is set and -1 where it is not."""
    every = torch.arange(256, dtype=torch.uint8, device=codes.device)[:, None]
    table = unpack_bits(every, 8).float() * 2 - 1
    signs = table.index_select(0, codes.flatten().int()).reshape(
        *codes.shape[:-1], 8 * codes.shape[-1]
    )
    return signs[..., :num_bits]


def check_codes(name: str, codes: Tensor, num_bits: int) -> None:
    """Raise unless ``codes`` are packed rows of ``num_bits`` bits."""
    if codes.dtype != torch.uint8:
        raise TypeError(
            f"{name}: expected packed codes, uint8, got {codes.dtype}. "
            "Make them with quantize_binary or pack_bits."
        )
    if codes.ndim == 0 or codes.shape[-1] != -(-num_bits // 8):
        raise ValueError(
            f"{name}: expected {-(-num_bits // 8)} bytes for {num_bits} bits on the last axis, "
            f"got shape {tuple(codes.shape)}"
        )


def _places(like: Tensor) -> Tensor:
    return torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=like.device)
