"""Zhao et al. 2025: distillation of similarities, focal weights and mixed negatives.

Distillation, on the STS Benchmark. A sentence is the mean of vectors of its hashed words and
character n-grams. Teacher: 128 wide, 2^15 rows, trained by Pearson correlation on the graded scores
of the training pairs (it sees neither other split; the development split chooses its epoch).
Student: 32 wide, 2^13 rows, from scratch, same batches of 64 pairs, one of
``CL``: InfoNCE, pairs scored 4 or more as matches; ``KL``: divergence from the teacher's softmax
over all second sentences of the batch, no labels; ``CL+KL``: their sum;
``KL, pairs of CL``: KL among the sentences that CL sees; ``labels``: Pearson correlation with the
scores themselves, for comparison. Temperature 0.05 throughout. The development split chooses the
epoch, and chose the learning rate (the best of 3e-3, 1e-2 and 3e-2 for CL, KL and CL+KL in the
first seed), which all take; Spearman on the test split.

Focal weights and mixing, on WordNet. A definition finds its entry (the synset's words) among all
entries in use; hashed as above, 64 wide. Three epochs with the batch as negatives, then 7 hard
negatives per definition from ranks 50-99, then three epochs from that point by InfoNCE with them
and with what each way adds. The epoch is chosen on 2,000 definitions, recall at 10 is measured on
2,000 others; neither is trained on. Entries with equal words are one. The learning rate
is that of above; without hard negatives it beat 1e-2 on the 2,000 for choices, of fewer entries.

Rule: "partly" if KL and CL+KL are above CL by 0.03 Spearman on average and above it for every seed;
"yes" if, too, focal weights and both ways of mixing raise recall for every seed; otherwise "no".
"""

import gzip
import random
import sys
from statistics import mean
from unittest import SkipTest

import torch
from _row import Row, spread
from codiemb import DATA, embed, features, measure, read
from torch import nn

from embedkit.losses import info_nce, pearson_loss, similarity_distillation
from embedkit.mining import focal_weights, mine_negatives, mix_negative_lists, mix_negative_pairs
from embedkit.ops import normalize, stable_string_hash

TEMPERATURE, RATE, BATCH = 0.05, 3e-2, 64
TEACHER, STUDENT, WORDS = (2**15, 128), (2**13, 32), (2**15, 64)
HELD_OUT, HARD = 2000, 7


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# --- Distillation


def fold(data, buckets):
    """The same bags in fewer rows."""
    left, right, score = data
    return (left[0] % buckets, left[1]), (right[0] % buckets, right[1]), score


def sts_loss(way, left, right, score, goal):
    """The loss of a batch of pairs; ``goal`` holds the teacher's cosines."""
    keep = score >= 0.8
    if way == "labels":
        return pearson_loss((left * right).sum(1), score)
    if way == "KL, pairs of CL":
        return similarity_distillation(
            left[keep] @ right[keep].T, goal[keep][:, keep], temperature=TEMPERATURE
        )
    loss = left.sum() * 0.0
    if "CL" in way:
        loss = loss + info_nce(left[keep], right[keep], temperature=TEMPERATURE)
    if "KL" in way:
        loss = loss + similarity_distillation(left @ right.T, goal, temperature=TEMPERATURE)
    return loss


def train_sts(way, shape, splits, teacher, epochs, seed):
    """(development, test) Spearman at the best epoch on the development split, and the vectors."""
    torch.manual_seed(seed)
    table = nn.EmbeddingBag(*shape, mode="mean", sparse=True)
    fit, dev, test = (fold(data, shape[0]) for data in splits)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=RATE)
    best = (measure(table, dev), measure(table, test), None)
    for _ in range(epochs):
        for rows in torch.randperm(len(fit[2])).split(BATCH):
            left, right = (normalize(embed(table, side, rows)) for side in fit[:2])
            goal = None if teacher is None else teacher[0][rows] @ teacher[1][rows].T
            step(optimizer, sts_loss(way, left, right, fit[2][rows], goal))
        now = measure(table, dev)
        if now > best[0]:
            rows = torch.arange(len(fit[2]))
            with torch.no_grad():
                vectors = [normalize(embed(table, side, rows)) for side in fit[:2]]
            best = (now, measure(table, test), vectors)
    return best


def distillation(quick):
    """Test Spearman of every way and seed, the teacher's included."""
    seeds, epochs = (1, 1) if quick else (3, 5)
    splits = [read(split, 600 if quick else None) for split in ("train", "dev", "test")]
    ways = ("CL", "KL", "CL+KL", "KL, pairs of CL", "labels")
    results = {way: [] for way in ("teacher", *ways)}
    for seed in range(seeds):
        best = train_sts("labels", TEACHER, splits, None, epochs, seed)
        results["teacher"].append(best[1])
        for way in ways:
            results[way].append(train_sts(way, STUDENT, splits, best[2], epochs, seed)[1])
        print(f"kalm: distillation, seed {seed + 1} of {seeds}", file=sys.stderr)
    return results


# --- Focal weights and mixing


def wordnet(limit):
    """Definitions and entries of a random sample of synsets, as bags."""
    path = DATA.parent / "wordnet" / "wordnet.tsv.gz"
    if not path.exists():
        raise SkipTest(f"kalm: found no {path}. EMBEDKIT_DATA names the folder of wordnet/")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines][1:]
    texts = {row[2].replace("|", " "): row[3] for row in rows}  # one synset of equal words
    chosen = random.Random(0).sample(sorted(texts), limit)
    return [bags([texts[entry] for entry in chosen]), bags(chosen)]


def bags(texts):
    found = [features(text) or ["<>"] for text in texts]
    size = torch.tensor([len(bag) for bag in found])
    ids = stable_string_hash([f for bag in found for f in bag]) % WORDS[0]
    return ids, size.cumsum(0) - size


@torch.no_grad()
def recall(table, sides, splits):
    """Share of each split's definitions whose entry is among the 10 nearest of all entries."""
    keys, shares = normalize(embed(table, sides[1], torch.arange(len(sides[1][1])))), []
    for rows in splits:
        scores = normalize(embed(table, sides[0], rows)) @ keys.T
        better = (scores > scores.gather(1, rows[:, None])).sum(dim=1)
        shares.append((better < 10).double().mean().item())
    return tuple(shares)


def mixed(query, negative, way):
    """Hard negatives with what the way adds to them."""
    if "pairs" in way:
        return torch.cat([negative, mix_negative_pairs(negative).negative], dim=1)
    if "lists" in way:
        more = mix_negative_lists(query, negative, temperature=TEMPERATURE)
        return torch.cat([negative, more.negative], dim=1)
    return negative


def train_words(way, table, sides, hard, fit, epochs):
    """Train on; ``hard`` holds rows of entries per definition."""
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=RATE)
    for _ in range(epochs):
        for rows in fit[torch.randperm(len(fit))].split(4 * BATCH):
            query, key = (embed(table, side, rows) for side in sides)
            negative = None
            if hard is not None:
                flat = embed(table, sides[1], hard[rows].flatten())
                negative = mixed(query, flat.unflatten(0, (-1, HARD)), way)
            loss = info_nce(
                query, key, temperature=TEMPERATURE, negative=negative, reduction="none"
            )
            if "focal" in way:
                loss = loss * focal_weights(loss, gamma=0.5)
            step(optimizer, loss.mean())
        yield table


def mixing(quick):
    """Test recall at 10 of every way and seed, and of the point they start from."""
    seeds, epochs, limit = (1, 1, 5000) if quick else (3, 3, 16000)
    sides = wordnet(limit)
    dev, test, fit = torch.arange(limit).split([HELD_OUT, HELD_OUT, limit - 2 * HELD_OUT])
    ways = ("hard", "hard, focal", "hard, mixed pairs", "hard, mixed lists")
    results = {way: [] for way in ("start", *ways)}
    for seed in range(seeds):
        torch.manual_seed(seed)
        table = nn.EmbeddingBag(*WORDS, mode="mean", sparse=True)
        for _ in train_words("", table, sides, None, fit, epochs):
            pass
        start = {name: value.clone() for name, value in table.state_dict().items()}
        results["start"].append(recall(table, sides, [test])[0])
        every = torch.arange(limit)
        query, corpus = (embed(table, side, every).detach() for side in sides)
        hard = torch.zeros(limit, HARD, dtype=torch.long)
        hard[fit] = fit[
            mine_negatives(
                *(query[fit], corpus[fit], torch.arange(len(fit)), HARD),
                relative_margin=None,
                skip=50,
                sample_from=50,
            ).index
        ]
        for way in ways:
            torch.manual_seed(seed)
            table.load_state_dict(start)
            best = recall(table, sides, [dev, test])
            for now in train_words(way, table, sides, hard, fit, epochs):
                best = max(best, recall(now, sides, [dev, test]))
            results[way].append(best[1])
        print(f"kalm: mixing, seed {seed + 1} of {seeds}", file=sys.stderr)
    return results


def main(quick: bool = False) -> Row:
    """Train every way for every seed and judge the claim by the rule above."""
    sts, words = distillation(quick), mixing(quick)
    gains = {way: mean(sts[way]) - mean(sts["CL"]) for way in ("KL", "CL+KL", "KL, pairs of CL")}
    added = {
        way: [a - b for a, b in zip(words[way], words["hard"], strict=True)]
        for way in words
        if way not in ("start", "hard")
    }
    distils = all(
        gains[way] >= 0.03 and all(a > b for a, b in zip(sts[way], sts["CL"], strict=True))
        for way in ("KL", "CL+KL")
    )
    hardens = all(min(gaps) > 0 for gaps in added.values())

    def table(results, ways):
        return "; ".join(f"{way}: {spread(results[way])}" for way in ways)

    return Row(
        paper="Zhao et al. 2025, KaLM-Embedding-V2",
        claim="Distilling a stronger model's similarities beats contrast alone; focal weights and "
        "mixed hard negatives add to contrast",
        data="STS Benchmark, student of 32 numbers, teacher of 128 trained on the graded scores of "
        "the same pairs, test Spearman; WordNet, definition to entry, test recall at 10 of "
        "16,000 entries",
        ours=f"STS {table(sts, ('KL', 'CL+KL', 'KL, pairs of CL'))}; WordNet {table(words, added)}",
        baseline=f"STS {table(sts, ('CL', 'labels', 'teacher'))}; "
        f"WordNet {table(words, ('hard', 'start'))}",
        seeds=len(sts["CL"]),
        holds=("yes" if hardens else "partly") if distils else "no",
        note="Above CL: "
        + ", ".join(f"{way} {gain:+.3f}" for way, gain in gains.items())
        + ". The teacher has seen graded scores that CL turns into matches; training on them "
        f"directly ('labels') is {mean(sts['labels']) - mean(sts['CL']):+.3f} above CL. Above hard "
        "negatives alone, per seed: "
        + "; ".join(f"{way[6:]} {', '.join(f'{g:+.3f}' for g in v)}" for way, v in added.items())
        + ". The paper's own gains of focal weights and mixing, without the other, are 0.4 to 1.5 "
        "points on a model of 494M parameters.",
    )


if __name__ == "__main__":
    main().print()
