"""Li et al. 2024 on text: depths and widths of a small encoder trained on STS-B from scratch.

A sentence is the mean of 128-wide vectors of its hashed words and character 3- and 4-grams, then
four residual blocks of that width; the state after each block through one final layer norm is an
embedding. Trained on the STS Benchmark's training pairs by one minus Pearson's correlation of
cosines with scores; Spearman on its test split after layers 1, 2 and 4, by the first 4, 16 and 128
coordinates, at the epoch that is best on the development split at full size. All ways share
initialisation, optimisers, batches of 64 and epochs: ``plain``: the loss on the last layer;
``nested``: its sum over widths there; ``2D``: Matryoshka2dLoss; ``pairs``: LayerDimPairsLoss on
(1, 4), (2, 16), (4, 128); ``separate``: for the two smaller of these sizes an encoder of that depth
whose prefix of that width alone is trained. Nothing was tuned.

Rule: "yes" if 2D beats plain by more than 0.05 after layer 1 by 4 coordinates and is less than 0.03
below plain at full size; "partly" if one of the two; otherwise "no".
"""

import sys
from statistics import mean

import torch
from _row import Row, spread
from codiemb import BUCKETS, embed, read
from torch import nn

from embedkit.analysis.correlation import spearman
from embedkit.heads import truncate_embedding
from embedkit.losses import MatryoshkaLoss, PearsonLoss
from embedkit.losses.depth.adaptive import Matryoshka2dLoss
from embedkit.losses.depth.sizes import LayerDimPairsLoss
from embedkit.ops import normalize

WIDTH, BLOCKS, BATCH = 128, 4, 64
LAYERS, WIDTHS, DIMS = (1, 2, 4), (4, 16, 128), [4, 8, 16, 32, 64, 128]
SIZES = [(layer, width) for layer in LAYERS for width in WIDTHS]
PAIRS = [(1, 4), (2, 16), (4, 128)]


class Graded(nn.Module):
    """One minus the correlation of cosines with wanted scores."""

    def __init__(self):
        super().__init__()
        self.loss = PearsonLoss()

    def forward(self, left, right, score):
        return self.loss((normalize(left) * normalize(right)).sum(1), score)


class Encoder(nn.Module):
    """Mean of feature vectors, residual blocks, and the states after each through a norm."""

    def __init__(self):
        super().__init__()
        self.table = nn.EmbeddingBag(BUCKETS, WIDTH, mode="mean", sparse=True)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH)),
                *(nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH)),
            )
            for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, side, rows):
        x, states = embed(self.table, side, rows), []
        for block in self.blocks:
            x = x + block(x)
            states.append(self.norm(x))
        return states


def ways():
    """How to make one number of both sides' states and the scores."""
    graded, nested = Graded(), MatryoshkaLoss(Graded(), DIMS)

    def alone(layer, width):
        return lambda u, v, score: graded(u[layer - 1][:, :width], v[layer - 1][:, :width], score)

    return {
        "plain": alone(BLOCKS, WIDTH),
        "nested": lambda u, v, score: nested(u[-1], v[-1], score),
        "2D": Matryoshka2dLoss(Graded(), DIMS),
        "pairs": LayerDimPairsLoss(Graded(), PAIRS),
        **{f"separate {size}": alone(*size) for size in PAIRS[:-1]},
    }


@torch.no_grad()
def measure(encoder, data):
    """Spearman of cosines at every size."""
    states = [encoder(side, torch.arange(len(data[2]))) for side in data[:2]]
    found = {}
    for layer, width in SIZES:
        u, v = (truncate_embedding(side[layer - 1], width) for side in states)
        found[layer, width] = spearman((u * v).sum(1), data[2])
    return found


def train(loss, chosen_by, fit, dev, test, epochs, seed):
    """Test Spearman at every size, at the epoch that is best by one of them on the other split."""
    torch.manual_seed(seed)
    encoder, best = Encoder(), (-1.0, None)
    table = set(encoder.table.parameters())
    optimizers = [
        torch.optim.SparseAdam(table, lr=3e-3),
        torch.optim.Adam([p for p in encoder.parameters() if p not in table], lr=1e-3),
    ]
    for _ in range(epochs):
        for rows in torch.randperm(len(fit[2])).split(BATCH):
            value = loss(*(encoder(side, rows) for side in fit[:2]), fit[2][rows])
            for optimizer in optimizers:
                optimizer.zero_grad()
            value.backward()
            for optimizer in optimizers:
                optimizer.step()
        score = measure(encoder, dev)[chosen_by]
        if score > best[0]:
            best = score, measure(encoder, test)
    return best[1]


def main(quick: bool = False) -> Row:
    """Train every way for every seed and judge the claim by the rule above."""
    seeds, epochs, limit = (1, 1, 600) if quick else (3, 5, None)
    fit, dev, test = (read(split, limit) for split in ("train", "dev", "test"))
    sizes = {f"separate {size}": size for size in PAIRS}
    results = {way: {size: [] for size in SIZES} for way in ways()}
    for seed in range(seeds):
        for way, loss in ways().items():
            chosen_by = sizes.get(way, (BLOCKS, WIDTH))
            found = train(loss, chosen_by, fit, dev, test, epochs, seed)
            for size, value in found.items():
                results[way][size].append(value)
            print(f"matryoshka_2d_text: {way}, seed {seed + 1} of {seeds}", file=sys.stderr)

    gain, loss = (
        mean(results["2D"][size]) - mean(results["plain"][size])
        for size in ((1, 4), (BLOCKS, WIDTH))
    )
    passed = (gain > 0.05) + (loss > -0.03)

    def table(way):
        """Widths 4 / 16 / 128 for each layer."""
        rows = (" / ".join(spread(results[way][n, d]) for d in WIDTHS) for n in LAYERS)
        return ", ".join(f"layer {n}: {row}" for n, row in zip(LAYERS, rows, strict=True))

    alone = ", ".join(f"{size}: {spread(results[f'separate {size}'][size])}" for size in PAIRS[:-1])
    return Row(
        paper="Li et al. 2024, 2D Matryoshka Sentence Embeddings (text)",
        claim="One encoder, trained at drawn layers and widths, serves every depth and width at "
        "next to no cost to the full size",
        data="STS Benchmark from scratch, hashed words and character n-grams and four residual "
        "blocks; Spearman on the test split, widths 4 / 16 / 128 after layers 1, 2, 4",
        ours=f"2D: {table('2D')}",
        baseline=f"plain: {table('plain')}; nested: {table('nested')}; pairs: {table('pairs')}; "
        f"separate models: {alone}",
        seeds=seeds,
        holds=("no", "partly", "yes")[passed],
        note=f"2D minus plain: {gain:+.3f} after layer 1 by 4 coordinates, {loss:+.3f} at full "
        "size.",
    )


if __name__ == "__main__":
    main().print()
