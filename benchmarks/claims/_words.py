"""Texts as rows of words, and a word as the mean of vectors of its own row and its n-grams'."""

import re

import torch
import torch.nn.functional as F
from torch import nn

from embedkit.ops import select_segments
from embedkit.tables import SubwordEmbedding, subword_ids

BUCKETS = 2**15


def split(text):
    """Words in lower case, or one sign where there is none."""
    return re.findall(r"\w+", text.lower()) or ["<>"]


def number_words(texts, length):
    """Numbers (n, length) of the words of texts, 0 after the last; and the words, padding first."""
    number, rows = {"<padding>": 0}, []
    for text in texts:
        found = [number.setdefault(word, len(number)) for word in split(text)[:length]]
        rows.append(found + [0] * (length - len(found)))
    return torch.tensor(rows), list(number)


class WordVectors(nn.Module):
    """A vector for every number of ``words``: the mean over hashed 3- and 4-grams and its own.

    Only words of ``known`` have a row of their own; others are made of n-grams.
    """

    def __init__(self, words, known, dim, std):
        super().__init__()
        own = {word: row for row, word in enumerate(sorted(known))}
        self.ids, self.offsets = subword_ids(
            words, min_n=3, max_n=4, num_buckets=BUCKETS, vocabulary=own
        )
        self.table = SubwordEmbedding(len(own) + BUCKETS, dim, sparse=True)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, numbers):
        """(...) -> (..., dim); a word that occurs often is made once."""
        seen, at = numbers.unique(return_inverse=True)
        return F.embedding(at, self.table(*select_segments(self.ids, self.offsets, seen)))
