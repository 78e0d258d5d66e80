"""Li et al. 2024: stop an encoder at any layer, cut at any width; against last-layer training.

Scikit-learn's digits; six residual blocks of width 64, the state after each block through one
final layer norm an embedding; one-nearest-neighbour accuracy by cosine on a held-out quarter after
layers 1, 3 and 6, by the first 4, 16 and 64 coordinates. All ways share encoder, initialisation,
optimiser, batches, epochs and the supervised contrastive loss. ``plain``: the loss on the last
layer; ``nested``: its sum over widths there; ``2D``: Matryoshka2dLoss; ``pairs``: LayerDimPairsLoss
on (1, 4), (3, 16), (6, 64); ``ESE``: EspressoLoss with 4 coordinates; ``ESE, express``: the same
without learn-to-compress. Nothing was tuned; the final norm is there because learn-to-compress
makes the states of an encoder without one grow without end.

Rule: "yes" if 2D beats plain by more than 0.2 after layer 1 by 4 coordinates and is less than 0.03
below plain at full size; "partly" if one of the two; otherwise "no".
"""

import sys
from statistics import mean

import torch
from _row import Row, spread
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from embedkit.heads import truncate_embedding
from embedkit.losses import MatryoshkaLoss, SupConLoss
from embedkit.losses.depth.adaptive import Matryoshka2dLoss
from embedkit.losses.depth.espresso import EspressoLoss
from embedkit.losses.depth.sizes import LayerDimPairsLoss

LAYERS, WIDTHS, BLOCKS, BATCH = (1, 3, 6), (4, 16, 64), 6, 128
SIZES = [(layer, width) for layer in LAYERS for width in WIDTHS]
DIMS = [4, 8, 16, 32, 64]


class Block(nn.Module):
    """x + MLP(x), the MLP after a layer norm."""

    def __init__(self):
        super().__init__()
        layers = nn.LayerNorm(64), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)
        self.change = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.change(x)


class Encoder(nn.Module):
    """The states after each of six blocks, each through the final norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(64)

    def forward(self, x):
        x, states = self.first(x), []
        for block in self.blocks:
            x = block(x)
            states.append(self.norm(x))
        return states


def ways():
    """How to make one number of all states and the labels."""
    plain, nested = SupConLoss(0.1), MatryoshkaLoss(SupConLoss(0.1), DIMS)
    return {
        "plain": lambda states, y: plain(states[-1], y),
        "nested": lambda states, y: nested(states[-1], y),
        "2D": Matryoshka2dLoss(SupConLoss(0.1), DIMS),
        "pairs": LayerDimPairsLoss(SupConLoss(0.1), [(1, 4), (3, 16), (6, 64)]),
        "ESE": EspressoLoss(SupConLoss(0.1), dim=4),
        "ESE, express": EspressoLoss(SupConLoss(0.1), dim=4, compress_weight=0.0),
    }


def train(loss, x, y, epochs, seed):
    torch.manual_seed(seed)
    encoder = Encoder()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            value = loss(encoder(x[rows]), y[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return encoder


@torch.no_grad()
def accuracy(encoder, gallery, labels, queries, targets):
    """Share of queries whose nearest training vector has their label, at every size."""
    found = {}
    states = [encoder(rows) for rows in (queries, gallery)]
    for layer, width in SIZES:
        query, key = (truncate_embedding(side[layer - 1], width) for side in states)
        found[layer, width] = (labels[(query @ key.T).argmax(1)] == targets).double().mean().item()
    return found


def main(quick: bool = False) -> Row:
    """Train every way for every seed and judge the claim by the rule above."""
    seeds, epochs = (1, 3) if quick else (3, 40)
    pixels, digits = load_digits(return_X_y=True)
    results = {way: {size: [] for size in SIZES} for way in ways()}
    for seed in range(seeds):
        parts = train_test_split(
            *(pixels / 16, digits), test_size=0.25, stratify=digits, random_state=seed
        )
        x, queries = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
        y, targets = (torch.tensor(part) for part in parts[2:])
        for way, loss in ways().items():
            encoder = train(loss, x, y, epochs, seed)
            for size, value in accuracy(encoder, x, y, queries, targets).items():
                results[way][size].append(value)
            print(f"matryoshka_2d: {way}, seed {seed + 1} of {seeds}", file=sys.stderr)

    gain, loss = (
        mean(results["2D"][size]) - mean(results["plain"][size]) for size in ((1, 4), (6, 64))
    )
    compress = mean(results["ESE"][1, 4]) - mean(results["ESE, express"][1, 4])
    passed = (gain > 0.2) + (loss > -0.03)

    def table(way):
        """Widths 4 / 16 / 64 for each layer."""
        rows = (" / ".join(spread(results[way][n, d]) for d in WIDTHS) for n in LAYERS)
        return ", ".join(f"layer {n}: {row}" for n, row in zip(LAYERS, rows, strict=True))

    others = "; ".join(f"{way}: {table(way)}" for way in results if way not in ("2D", "plain"))
    return Row(
        paper="Li et al. 2024, 2D Matryoshka Sentence Embeddings",
        claim="One encoder, trained at drawn layers and widths, serves every depth and width at "
        "next to no cost to the full size",
        data="scikit-learn digits, 1-NN cosine accuracy on a held-out quarter; six residual "
        "blocks; widths 4 / 16 / 64 after layers 1, 3, 6",
        ours=f"2D: {table('2D')}",
        baseline=f"plain: {table('plain')}; {others}",
        seeds=seeds,
        holds=("no", "partly", "yes")[passed],
        note=f"2D minus plain: {gain:+.3f} after layer 1 by 4 coordinates, {loss:+.3f} at full "
        f"size. Learn-to-compress: {compress:+.3f} after layer 1 by 4 coordinates.",
    )


if __name__ == "__main__":
    main().print()
