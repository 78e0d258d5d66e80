"""What two sentences share, as numbers: the features of a scorer that sees both."""

import math
import re
from collections import Counter
from itertools import pairwise

import numpy as np
from codiemb import features


class Overlap:
    """Numbers of a pair; the rarity of a word or n-gram is that in ``texts``."""

    def __init__(self, texts):
        self.parts = {}
        count = Counter(f for text in texts for f in set(features(text)))
        self.rarity = {f: math.log(len(texts) / c) for f, c in count.items()}
        self.rarest = math.log(len(texts))

    def split(self, text):
        """Words in order, then sets of words, of pairs of words, of n-grams and of numbers."""
        if text not in self.parts:
            words = re.findall(r"\w+", text.lower())
            grams = set(features(text))
            numbers = {word for word in words if word[0].isdigit()}
            self.parts[text] = words, set(words), set(pairwise(words)), grams, numbers
        return self.parts[text]

    def weigh(self, grams):
        return sum(self.rarity.get(f, self.rarest) for f in grams)

    def __call__(self, pair):
        a, b = (self.split(text) for text in pair)
        row = [len(x & y) / max(1, len(x | y)) for x, y in zip(a[1:], b[1:], strict=True)]
        for x, y in ((a[1], b[1]), (a[3], b[3])):
            shared, own, other = (self.weigh(part) for part in (x & y, x - y, y - x))
            row += [shared / max(1e-9, shared + own + other), max(own, other), min(own, other)]
        sizes = sorted((len(a[0]), len(b[0])))
        negated = [bool({"not", "no", "never"} & side[1]) for side in (a, b)]
        return [*row, *sizes, sizes[1] - sizes[0], len(a[1] & b[1]) / max(1, sizes[0]),
                a[0][:1] == b[0][:1], a[0][-1:] == b[0][-1:], negated[0] != negated[1]]  # fmt: skip

    def table(self, pairs):
        return np.array([self(pair) for pair in pairs], dtype=float)
