"""Lee et al. 2024: latent attention pooling against mean pooling, on key tokens and definitions.

Key tokens, synthetic. Each sequence holds 8 to 24 noise tokens and one of 8 key tokens at a random
place; the label is the key. Token vectors are random, frozen and of width 16; a linear classifier
reads the pooled vector. This shows what the pool can express. All pools see the same data, order
and epochs; each takes the better of two learning rates on a validation set; accuracies are on a
test set that nothing else touches. Beside mean pooling: mean pooling followed by a feed-forward of
as many parameters as the pool, attention pooling, and the pool with one latent, where attention is
constant and what remains is its feed-forward on every token.

Definitions. 12,000 nouns of WordNet, drawn anew for each seed; from a definition (16 words at most)
find its entry, that is the words of its names, among all 12,000: recall@10 on 1,000 definitions
that were held out. A word is the mean of 64-wide vectors of its hashed character n-grams and its
own; definitions go through the pool, names through the mean, trained by InfoNCE at 0.05 for 150
steps of 256. Table, order and steps are the same for all pools; the rate of the table (3e-2 out of
3e-3, 1e-2 and 3e-2) was chosen for mean pooling and that of a pool is the best of three, both on
1,000 other definitions.

Rule: "partly" if on key tokens latent attention is above mean pooling and above mean pooling with a
feed-forward by more than 0.3 for every seed; "yes" if on average it is also above the pool with one
latent there by more than 0.01, so that the dictionary itself is seen to help, and above mean
pooling and attention pooling on definitions by more than 0.01; otherwise "no".
"""

import sys
from statistics import mean

import torch
import torch.nn.functional as F
from _definitions import Nouns, best
from _row import Row, spread
from torch import nn

from embedkit.pooling import AttentionPool, LatentAttentionPool, MeanPool

WIDTH, KEYS, NOISE, SHORTEST, LONGEST = 16, 8, 64, 8, 24
RATES = (3e-3, 1e-2)


class Widened(nn.Module):
    """Mean pooling, then a residual feed-forward with as many parameters as the latent pool."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.pool = MeanPool()
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
        )

    def forward(self, tokens, mask):
        pooled = self.pool(tokens, mask)
        return pooled + self.feedforward(pooled)


POOLS = {
    "mean": MeanPool,
    "mean + feed-forward": lambda: Widened(WIDTH, 120),
    "attention": lambda: AttentionPool(WIDTH, num_heads=2),
    "one latent": lambda: latent_pool(1),
    "latent attention": lambda: latent_pool(16),
}
DEFINITION_POOLS = {
    "mean": lambda _: MeanPool(),
    "mean + feed-forward": lambda dim: Widened(dim, 340),
    "attention": lambda dim: AttentionPool(dim, num_heads=2),
    "one latent": lambda dim: LatentAttentionPool(dim, 1, num_heads=2, ff_mult=2),
    "latent attention": lambda dim: LatentAttentionPool(dim, 32, num_heads=2, ff_mult=2),
}


def latent_pool(num_latents):
    return LatentAttentionPool(WIDTH, num_latents, num_heads=2, head_dim=16, ff_mult=2)


def sequences(count, vocabulary, generator):
    """Token vectors (count, LONGEST + 1, WIDTH), their mask, and which key each one hides."""
    noise = torch.randint(KEYS, KEYS + NOISE, (count, LONGEST + 1), generator=generator)
    length = torch.randint(SHORTEST + 1, LONGEST + 2, (count, 1), generator=generator)
    key = torch.randint(KEYS, (count,), generator=generator)
    place = (torch.rand(count, 1, generator=generator) * length).long()
    ids = noise.scatter(1, place, key[:, None])
    return vocabulary[ids], torch.arange(LONGEST + 1) < length, key


def train(build, data, rate, epochs, seed):
    """A pool and a linear classifier; the order of batches depends on the seed alone."""
    torch.manual_seed(seed)
    pool, classify = build(), nn.Linear(WIDTH, KEYS)
    optimizer = torch.optim.Adam([*pool.parameters(), *classify.parameters()], lr=rate)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(data[0]), generator=order).split(128):
            tokens, mask, key = (part[rows] for part in data)
            loss = F.cross_entropy(classify(pool(tokens, mask)), key)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return pool, classify


@torch.no_grad()
def accuracy(model, data):
    pool, classify = model
    return (classify(pool(*data[:2])).argmax(1) == data[2]).double().mean().item()


def main(quick: bool = False) -> Row:
    """Train every pool for every seed and judge the claim by the rule above."""
    seeds, epochs, size, rates = (1, 4, 1000, RATES[:1]) if quick else (3, 30, 4000, RATES)
    nouns, held_out, steps = (2000, 200, 8) if quick else (12000, 1000, 150)
    results, found = {name: [] for name in POOLS}, {name: [] for name in DEFINITION_POOLS}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        vocabulary = torch.randn(KEYS + NOISE, WIDTH, generator=generator)
        fit, choose, test = (
            sequences(count, vocabulary, generator) for count in (size, 1000, 1000)
        )
        for name, build in POOLS.items():
            models = [train(build, fit, rate, epochs, seed) for rate in rates]
            chosen = max(models, key=lambda model: accuracy(model, choose))
            results[name].append(accuracy(chosen, test))
        drawn = Nouns(nouns, held_out, seed)
        for name, build in DEFINITION_POOLS.items():
            found[name].append(best(build, drawn, steps, seed))
        print(f"latent_attention: seed {seed + 1} of {seeds}", file=sys.stderr)

    ours = results["latent attention"]
    gaps = [
        value - max(results["mean"][seed], results["mean + feed-forward"][seed])
        for seed, value in enumerate(ours)
    ]
    single = results["one latent"]
    dictionary_helps = mean(ours) > mean(single) + 0.01
    above = {name: mean(found["latent attention"]) - mean(values) for name, values in found.items()}
    text = dictionary_helps and min(above["mean"], above["attention"]) > 0.01
    holds = ("yes" if text else "partly") if min(gaps) > 0.3 else "no"
    verdict = "so the dictionary helps" if dictionary_helps else "so the dictionary shows no gain"
    return Row(
        paper="Lee et al. 2024, NV-Embed",
        claim="Latent attention pooling keeps what mean pooling dilutes",
        data=f"synthetic: one of {KEYS} key tokens among {SHORTEST}-{LONGEST} noise tokens, random "
        f"frozen vectors of width {WIDTH}, test accuracy of a linear classifier; WordNet, a "
        f"definition finds its entry among {nouns:,}, recall@10",
        ours=f"latent attention: {spread(ours)}; definitions: {spread(found['latent attention'])}",
        baseline="; ".join(f"{name}: {spread(results[name])}" for name in list(POOLS)[:3])
        + "; definitions: "
        + "; ".join(f"{name}: {spread(found[name])}" for name in list(found)[:4]),
        seeds=seeds,
        holds=holds,
        note=f"Synthetic. One latent (attention is constant): {spread(single)}, {verdict} here "
        "beyond transforming every token before the mean. Definitions, latent attention above: "
        + ", ".join(f"{name} {value:+.3f}" for name, value in list(above.items())[:4])
        + ".",
    )


if __name__ == "__main__":
    main().print()
