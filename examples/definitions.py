"""Sentence embeddings from a dictionary alone: every definition finds its entry among all entries.

DefSent+ on the multi-word nouns of WordNet ("ice cream", "Alan Turing"): an entry's vector is the
mean of its definitions' embeddings, so that it needs no token of its own. Those vectors are fixed,
the encoder learns to point at them, better vectors are made with it, and the next round starts from
the first weights again. No pair was ever labelled. Measured on definitions that were held out: how
often is a definition closer to that of a noun of the same kind than to that of any other noun?

    python examples/definitions.py
    python examples/definitions.py --steps 800
"""

import argparse
import copy
import gzip
import json
import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import nn

import embedkit as ek

HERE = Path(__file__).parent
BUCKETS, DIM, BATCH, ENTRIES, HELD_OUT, ROUNDS = 2**15, 128, 128, 10_000, 2000, 2
ASKED = ["a frozen dessert made of cream and sugar", "an English mathematician who broke codes"]


# --- Definitions, and the numbers of their words and character 3- and 4-grams.


def read():
    """(definition, its names of several words, its parents) of every noun."""
    with gzip.open(HERE / "data" / "wordnet_nouns.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    for names, definition, parents in rows:
        several = [name.replace("_", " ") for name in names.split("|")]
        yield definition, [name for name in several if " " in name], parents.split()


def bags(texts):
    """Ragged numbers: (values, offsets)."""
    number, values, sizes = {}, [], []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        grams = [f"<{w}>"[i : i + n] for w in words for n in (3, 4) for i in range(len(w) + 3 - n)]
        found = [*words, *grams] or [""]
        values += [number.setdefault(feature, len(number)) for feature in found]
        sizes.append(len(found))
    size = torch.tensor(sizes)
    hashed = ek.ops.stable_string_hash(list(number)) % BUCKETS
    return hashed[torch.tensor(values)], size.cumsum(0) - size


def dictionary(seed):
    """Entries and their definitions for training, and triples of definitions for measuring."""
    draw = torch.Generator().manual_seed(seed)
    nouns = [noun for noun in read() if noun[1]]
    nouns = [nouns[i] for i in torch.randperm(len(nouns), generator=draw).tolist()]
    held_out, rest = nouns[: 2 * HELD_OUT], nouns[2 * HELD_OUT :]
    meanings = defaultdict(list)
    for definition, names, _ in rest:
        for name in names:
            meanings[name].append(definition)
    # Entries with several definitions first: they say most.
    names = sorted(meanings, key=lambda name: -len(meanings[name]))[:ENTRIES]
    pairs = [(text, entry) for entry, name in enumerate(names) for text in meanings[name]]
    of_kind = defaultdict(list)
    for row, (_, _, parents) in enumerate(held_out):
        of_kind[" ".join(parents)].append(row)
    same = [(rows[0], row) for rows in of_kind.values() for row in rows[1:]]
    other = torch.randint(0, len(held_out), (len(same), 1), generator=draw)
    triples = torch.cat([torch.tensor(same), other], dim=1)
    definitions = bags([definition for definition, _, _ in held_out])
    return names, bags([text for text, _ in pairs]), torch.tensor([e for _, e in pairs]), (
        definitions, triples
    )  # fmt: skip


# --- The encoder, one round, and the rounds.


class Encoder(nn.Module):
    """Mean of the vectors of a text's features, then an MLP beside it."""

    def __init__(self):
        super().__init__()
        self.table = nn.EmbeddingBag(BUCKETS, DIM, mode="mean", sparse=True)
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))

    def forward(self, texts, rows):
        pooled = 4 * self.table(*ek.ops.select_segments(*texts, rows))
        return pooled + self.mlp(pooled)


@torch.no_grad()
def embed(encoder, texts):
    """Vectors of all texts."""
    rows = torch.arange(len(texts[1])).split(4096)
    return torch.cat([encoder(texts, some) for some in rows])


def entries(encoder, texts, ids):
    """The mean of each entry's definitions, made a batch at a time."""
    rows = torch.arange(len(ids)).split(4096)
    return ek.heads.entry_embeddings(
        ((encoder(texts, some), ids[some]) for some in rows), int(ids.max()) + 1
    )


def train(encoder, texts, ids, targets, steps):
    """One round. The layer between encoder and targets is for training alone, and is dropped."""
    loss_of = ek.losses.PrototypeCrossEntropyLoss(targets)
    to_target = nn.Sequential(nn.Linear(DIM, DIM), nn.Tanh())
    dense = [*encoder.mlp.parameters(), *to_target.parameters()]
    optimisers = [
        torch.optim.SparseAdam(encoder.table.parameters(), lr=3e-2),
        torch.optim.AdamW(dense, lr=1e-3),
    ]
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(ids))
        rows, order = order[:BATCH], order[BATCH:]
        loss = loss_of(to_target(encoder(texts, rows)), ids[rows])
        for optimiser, rate in zip(optimisers, (3e-2, 1e-3), strict=True):
            optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()


def measure(encoder, held_out, targets):
    """Share of held-out definitions that are closer to one of their kind; cosine of entries."""
    definitions, triples = held_out
    own, kin, other = (ek.ops.normalize(embed(encoder, definitions))[rows] for rows in triples.T)
    closer = ((own * kin).sum(1) > (own * other).sum(1)).double().mean()
    return {"closer to its kind": closer.item(), "cosine": ek.analysis.mean_cosine(targets)}


def main(steps=300, out=HERE / "out" / "definitions", seed=0):
    """All rounds; their numbers go to ``out``."""
    torch.manual_seed(seed)
    names, texts, ids, held_out = dictionary(seed)
    print(f"{len(names):,} entries of several words, {len(ids):,} definitions")
    first = Encoder()
    targets = entries(first, texts, ids)
    result = {"untrained": measure(first, held_out, targets)}
    for number in range(1, ROUNDS + 1):
        encoder = copy.deepcopy(first)  # from the first weights: only the targets are better
        train(encoder, texts, ids, targets, steps)
        targets = entries(encoder, texts, ids)
        result[f"round {number}"] = measure(encoder, held_out, targets)
    for name, row in result.items():
        print(f"{name:>10}" + "".join(f"   {key} {value:.3f}" for key, value in row.items()))
    asked = ek.ops.normalize(embed(encoder, bags(ASKED)))
    found = ek.search.exact_search(asked, targets, 3)
    for text, best in zip(ASKED, found.index.tolist(), strict=True):
        print(f"? {text}\n  " + ", ".join(names[entry] for entry in best))
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "definitions.json").write_text(json.dumps(result, indent=1) + "\n")
    torch.save(encoder.state_dict(), out / "definitions.pt")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "definitions")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
