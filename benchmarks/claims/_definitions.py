"""Definitions of WordNet's nouns find their entries: the same word vectors, pooled in many ways."""

import csv
import gzip
import random
from pathlib import Path

import torch
from _words import WordVectors, number_words, split
from torch import nn

from embedkit.losses import info_nce
from embedkit.ops import normalize
from embedkit.pooling import mean_pool
from embedkit.search import exact_search

PATH = Path(__file__).parents[2] / "examples" / "data" / "wordnet_nouns.tsv.gz"
DIM, LENGTH, BATCH, TEMPERATURE = 64, 16, 256, 0.05
RATE_OF_TABLE, RATES = 3e-2, (1e-3, 3e-3, 3e-2)  # of the pool: the best on the validation set


class Nouns:
    """``size`` nouns drawn by ``seed``: numbers of words of definitions and names, and a split."""

    def __init__(self, size, held_out, seed):
        with gzip.open(PATH, "rt", encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        rows = random.Random(seed).sample(rows, size)
        names = [" ".join(row["lemmas"].replace("|", " ").split("_")) for row in rows]
        texts = [row["definition"] for row in rows] + names
        numbers, self.words = number_words(texts, LENGTH)
        self.definitions, self.names = numbers[:size], numbers[size:]
        self.test, self.choose, self.fit = torch.arange(size).split(
            [held_out, held_out, size - 2 * held_out]
        )
        train = self.fit.tolist()
        known = {w for i in train for text in (texts[i], texts[size + i]) for w in split(text)}
        self.known = sorted(known)


class Towers(nn.Module):
    """Definitions through the pool, names through the mean, on one table of words."""

    def __init__(self, nouns, pool):
        super().__init__()
        self.words = WordVectors(nouns.words, nouns.known, DIM, std=0.5)
        self.pool = pool

    def forward(self, definitions, names):
        at, length = len(definitions), int((definitions > 0).sum(1).max())
        query = self.pool(self.words(definitions[:, :length]), definitions[:, :length] > 0)
        key = mean_pool(self.words(names), names > 0)
        return query[:at], key


@torch.no_grad()
def recall(towers, nouns, rows):
    """Share of definitions with their entry among the first 10 of all entries."""
    query, key = zip(
        *(
            towers(nouns.definitions[part], nouns.names[part])
            for part in torch.arange(len(nouns.names)).split(2048)
        ),
        strict=True,
    )
    found = exact_search(normalize(torch.cat(query)[rows]), normalize(torch.cat(key)), 10)
    return (found.index == rows[:, None]).any(1).double().mean().item()


def train(build, nouns, rate, steps, seed):
    """Recall on the validation set and on the test set."""
    torch.manual_seed(seed)
    pool = build(DIM)
    torch.manual_seed(seed)  # one table and one order for all pools
    towers = Towers(nouns, pool)
    optimizers = [(torch.optim.SparseAdam(towers.words.table.parameters()), RATE_OF_TABLE)]
    if list(pool.parameters()):
        optimizers.append((torch.optim.Adam(pool.parameters()), rate))
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(nouns.fit))
        rows, order = nouns.fit[order[:BATCH]], order[BATCH:]
        query, key = towers(nouns.definitions[rows], nouns.names[rows])
        loss = info_nce(query, key, temperature=TEMPERATURE)
        for optimizer, most in optimizers:
            optimizer.param_groups[0]["lr"] = most * (1 - step / steps)
            optimizer.zero_grad()
        loss.backward()
        for optimizer, _ in optimizers:
            optimizer.step()
    return recall(towers, nouns, nouns.choose), recall(towers, nouns, nouns.test)


def best(build, nouns, steps, seed):
    """Recall on the test set at the rate that is better on the validation set."""
    rates = RATES if list(build(DIM).parameters()) else RATES[:1]
    return max(train(build, nouns, rate, steps, seed) for rate in rates)[1]
