"""Words as bags of character n-grams: every word has a vector, also one never seen."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_at_least
from embedkit.tables._bag import check_bag, combine_bags, explain_ids, explain_offsets

_BASIS = np.uint32(2166136261)
_PRIME = np.uint32(16777619)


def fnv1a32(text: str) -> int:
    """FNV-1a hash of a string's UTF-8 bytes, in [0, 2^32), as fastText computes it.

    h = 2166136261; for each byte: h ^= byte; h *= 16777619, modulo 2^32.

    Source: Bojanowski et al. 2017, Enriching Word Vectors with Subword Information, section 3.2.
    Differs: from the FNV-1a of the literature, as fastText does: a byte counts as a signed number,
        sign-extended to 32 bits, which changes every text that is not pure ASCII.

    >>> fnv1a32("<wh"), fnv1a32("где")
    (1048167652, 380650951)
    """
    value = int(_BASIS)
    for byte in text.encode(errors="surrogatepass"):
        value = (value ^ (byte | 0xFFFFFF00 if byte >= 128 else byte)) * int(_PRIME) % 2**32
    return value


def _ngram_hashes(
    words: Sequence[str], min_n: int, max_n: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Hashes of all n-grams, by word, start and length; and how many each word has.

    The hash of an n-gram is that of its first n - 1 characters carried on, so the n-grams that
    start at all characters of all words grow side by side.
    """
    data = "".join(f"<{word}>" for word in words).encode(errors="surrogatepass")
    signed = np.frombuffer(data, np.int8).astype(np.int32).view(np.uint32)
    byte = np.flatnonzero((signed & 0xC0) != 0x80)  # UTF-8 marks all but a character's first byte
    width = np.diff(byte, append=len(data))
    sizes = np.array([len(word) + 2 for word in words])
    ends = np.cumsum(sizes)
    end = np.repeat(ends, sizes)  # one past the last character of each character's word

    start, state = np.arange(len(end)), np.full(len(end), _BASIS)
    hashes = np.zeros((len(end), max_n - min_n + 1), np.uint32)
    found = np.zeros(hashes.shape, bool)
    for n in range(1, max_n + 1):
        fits = start + n <= end[start]
        start, state = start[fits], state[fits]
        last = start + n - 1
        for step in range(width[last].max(initial=0)):
            has = width[last] > step
            state[has] = (state[has] ^ signed[byte[last[has]] + step]) * _PRIME
        if n >= min_n:
            hashes[start, n - min_n] = state
            found[start, n - min_n] = True
    if min_n == 1:
        found[ends - sizes, 0] = found[ends - 1, 0] = False  # "<" and ">" alone say nothing
    return hashes[found], np.add.reduceat(found.sum(1), ends - sizes)


def subword_ids(
    words: Sequence[str],
    *,
    min_n: int = 3,
    max_n: int = 6,
    num_buckets: int = 2_000_000,
    vocabulary: Mapping[str, int] | None = None,
) -> tuple[Int[Tensor, " n"], Int[Tensor, " w"]]:
    """Rows of each word's own vector and of its character n-grams, for :class:`SubwordEmbedding`.

    A word is written ``<word>``; its n-grams are all runs of min_n to max_n characters but "<" and
    ">" alone, and the row of one is len(vocabulary) + fnv1a32(n-gram) mod num_buckets. A word that
    ``vocabulary`` knows has its own row first. The table needs len(vocabulary) + num_buckets rows.

    Args:
        words: non-empty strings, repeats allowed. Nothing is lowered or stripped.
        min_n: characters of the shortest n-gram, brackets included.
        max_n: characters of the longest.
        num_buckets: rows that the n-grams share. fastText's 2,000,000 are 2.4 GB at width 300;
            choose fewer for a small vocabulary.
        vocabulary: word -> own row, from 0 to len(vocabulary) - 1. None: n-grams alone.

    Returns:
        (ids, offsets), both int64: the rows of all words one after the other, and where each word
        starts. The numbers are the same in every process. A word that is unknown and shorter than
        min_n - 2 characters has no rows: its bag is empty.

    Raises:
        TypeError: if ``words`` is one string.
        ValueError: if a word is empty, 1 <= min_n <= max_n does not hold, num_buckets is below 1,
            or ``vocabulary`` numbers a word outside its own range.

    Source: Bojanowski et al. 2017, Enriching Word Vectors with Subword Information, section 3.2;
        row numbers as in fastText, so its released tables can be read.

    >>> ids, offsets = subword_ids(["where", "her"], num_buckets=1000, vocabulary={"her": 0})
    >>> len(ids), offsets
    (21, tensor([ 0, 14]))
    """
    vocabulary = vocabulary or {}
    if isinstance(words, str):
        raise TypeError(
            f"words: expected a list of strings, got the string {words!r}. Put it in []."
        )
    check_at_least("subword_ids", "min_n", min_n, 1)
    check_at_least("subword_ids", "max_n", max_n, min_n, "It is the longest n-gram.")
    check_at_least("subword_ids", "num_buckets", num_buckets, 1)
    words = list(words)
    if strange := [word for word in words if not isinstance(word, str)]:
        raise TypeError(f"words: expected strings, got {strange[0]!r}. Replace what is missing.")
    if "" in words:
        raise ValueError(
            f"words: expected non-empty strings, got '' at place {words.index('')}. "
            "It has no characters to hash: drop it before."
        )
    if not words:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    hashes, counts = _ngram_hashes(words, min_n, max_n)
    own = np.array([vocabulary.get(word, -1) for word in words])
    known = np.array([word in vocabulary for word in words])
    if (own[known] < 0).any() or (own[known] >= len(vocabulary)).any():
        raise ValueError(
            f"vocabulary: expected rows from 0 to {len(vocabulary) - 1}, got {own[known].min()} to "
            f"{own[known].max()}. Number the words without gaps; the rows after are the n-grams'."
        )
    sizes = counts + known
    offsets = np.cumsum(sizes) - sizes
    ids = np.empty(sizes.sum(), np.int64)
    is_own = np.zeros(len(ids), bool)
    is_own[offsets[known]] = True
    ids[is_own] = own[known]
    ids[~is_own] = len(vocabulary) + hashes.astype(np.int64) % num_buckets
    return torch.from_numpy(ids), torch.from_numpy(offsets)


class SubwordEmbedding(nn.Module):
    """A word's vector as the mean of the rows of its n-grams and its own: a table of bags.

    v(word) = mean of weight[i] over the word's rows i, as :func:`subword_ids` gives them. Rows
    start as U(-1/d, 1/d), d = embedding_dim. Any other integers in bags will do as well.

    Args:
        num_embeddings: rows of the table: len(vocabulary) + num_buckets of :func:`subword_ids`.
        embedding_dim: width of a row.
        sparse: give the table a sparse gradient, which holds the rows in use alone: for
            ``torch.optim.SparseAdam`` or SGD, where a dense step would touch millions of idle rows.

    Raises:
        ValueError: if a size is below 1.

    Source: Bojanowski et al. 2017, Enriching Word Vectors with Subword Information, section 3.2.
    Differs: mean instead of sum, as in the authors' fastText.

    >>> ids, offsets = subword_ids(["where", "whereabouts"], num_buckets=1000)
    >>> SubwordEmbedding(1000, 8)(ids, offsets).shape
    torch.Size([2, 8])
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, sparse: bool = False) -> None:
        super().__init__()
        check_at_least("SubwordEmbedding", "num_embeddings", num_embeddings, 1)
        check_at_least("SubwordEmbedding", "embedding_dim", embedding_dim, 1)
        self.sparse = sparse
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all rows anew."""
        bound = 1 / self.weight.shape[1]
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, ids: Tensor, offsets: Tensor) -> Float[Tensor, "w d"]:
        """Vectors of words.

        Args:
            ids: (n,) rows of the table, word after word.
            offsets: (w,) where each word starts; the first is 0, none is below the one before.

        Returns:
            (w, embedding_dim); zeros for a word without rows.

        Raises:
            TypeError: if ``ids`` or ``offsets`` holds anything but integers.
            ValueError: if an id is no row of the table, or the offsets do not rise from 0 to at
                most n. On a GPU these two are device assertions.
        """
        check_bag("SubwordEmbedding: ids", ids, offsets)
        try:
            return combine_bags(ids.long(), offsets.long(), self.weight, "mean", self.sparse)
        except (IndexError, RuntimeError) as error:
            explain_offsets("SubwordEmbedding", offsets, ids.shape[0], error)
            explain_ids("SubwordEmbedding", ids, self.weight.shape[0], error)
            raise

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        rows, dim = self.weight.shape
        return f"num_embeddings={rows}, embedding_dim={dim}, sparse={self.sparse}"
