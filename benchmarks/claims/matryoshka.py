"""Kusupati et al. 2022: prefixes of one nested embedding against separately trained widths.

Scikit-learn's digits; an MLP to 64 dimensions; one-nearest-neighbour accuracy by cosine on a
held-out quarter at each width. Three ways, with the same encoder, optimiser, batches and epochs:
``plain``: cross-entropy on all 64 dimensions, truncated afterwards; ``nested``: the sum of one
cross-entropy per width; ``separate``: one model trained per width. Nothing was tuned.

Rule: with tolerance 0.01, "partly" needs nested to beat plain by more than that at the two smallest
widths and to be no worse than plain by more than that at full width; "yes" needs in addition to be
no worse than the separate models by more than that at every width.
"""

import sys
from statistics import mean

import torch
import torch.nn.functional as F
from _row import Row, spread
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from embedkit.heads import MatryoshkaHead, truncate_embedding

DIMS = [2, 4, 8, 16, 32, 64]
TOLERANCE = 0.01


def train(x, y, head_dims, loss_dims, epochs, seed):
    """An encoder to ``head_dims[-1]`` trained with one linear classifier per width of the loss."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(
        *(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
        MatryoshkaHead(256, head_dims),
    )
    classifiers = nn.ModuleList(nn.Linear(dim, 10) for dim in loss_dims)
    optimizer = torch.optim.Adam([*encoder.parameters(), *classifiers.parameters()], lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            z = encoder(x[rows])
            loss = sum(
                F.cross_entropy(classify(truncate_embedding(z, dim, normalize=False)), y[rows])
                for dim, classify in zip(loss_dims, classifiers, strict=True)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder


@torch.no_grad()
def accuracy(encoder, gallery, labels, queries, targets, dim):
    """Share of queries whose nearest training vector by cosine has their label."""
    nearest = (
        truncate_embedding(encoder(queries), dim) @ truncate_embedding(encoder(gallery), dim).T
    ).argmax(dim=1)
    return (labels[nearest] == targets).double().mean().item()


def main(quick: bool = False) -> Row:
    """Train every model for every seed and judge the claim by the rule above."""
    seeds, epochs = (2, 4) if quick else (5, 40)
    pixels, digits = load_digits(return_X_y=True)
    results = {way: {dim: [] for dim in DIMS} for way in ("plain", "nested", "separate")}
    for seed in range(seeds):
        parts = train_test_split(
            *(pixels / 16, digits), test_size=0.25, stratify=digits, random_state=seed
        )
        x, queries = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
        y, targets = (torch.tensor(part) for part in parts[2:])
        split = (x, y, queries, targets)
        plain = train(x, y, DIMS, DIMS[-1:], epochs, seed)
        nested = train(x, y, DIMS, DIMS, epochs, seed)
        for dim in DIMS:
            separate = train(x, y, [dim], [dim], epochs, seed)
            for way, model in (("plain", plain), ("nested", nested), ("separate", separate)):
                results[way][dim].append(accuracy(model, *split, dim))
        print(f"matryoshka: seed {seed + 1} of {seeds}", file=sys.stderr)

    average = {way: {dim: mean(values[dim]) for dim in DIMS} for way, values in results.items()}
    beats_plain = all(
        average["nested"][dim] > average["plain"][dim] + TOLERANCE for dim in DIMS[:2]
    )
    keeps_full = average["nested"][64] >= average["plain"][64] - TOLERANCE
    behind = [d for d in DIMS if average["nested"][d] < average["separate"][d] - TOLERANCE]
    holds = ("partly" if behind else "yes") if beats_plain and keeps_full else "no"

    def table(way):
        return ", ".join(f"{dim}: {spread(results[way][dim])}" for dim in DIMS)

    return Row(
        paper="Kusupati et al. 2022, Matryoshka Representation Learning",
        claim="Prefixes of one nested embedding match models trained for each width, "
        "at no cost to the full width",
        data="scikit-learn digits, 1-NN cosine accuracy per width on a held-out quarter",
        ours=f"nested: {table('nested')}",
        baseline=f"plain, truncated: {table('plain')}; separate models: {table('separate')}",
        seeds=seeds,
        holds=holds,
        note=f"More than {TOLERANCE} behind the separate models at widths {behind}."
        if behind
        else f"Within {TOLERANCE} of the separate models, or above, at every width.",
    )


if __name__ == "__main__":
    main().print()
