"""Windels 2024: how two nodes occur together tells labels that walks miss.

Planted triangles: 600 nodes in 6 classes, triangles inside the classes (each node in about 2) and
random edges among all nodes (about 6 per node). Vectors are the PPMI of a matrix, factorised;
classes are read by logistic regression in 5 stratified folds (macro F1). Ours is the orbit
adjacency that is best of 28 by cross-validation inside the training folds; the walks are given the
best of windows 1, 2, 3, 5 and 10 on the test folds themselves. Cora, its graph alone, is the
counter-example.

Rule: "yes" if ours is ahead by 0.10 on the planted graphs, in the mean over seeds and by 0.05 in
each, and also ahead on Cora; "partly" if only the first; else "no".
"""

import sys
from statistics import mean

import networkx as nx
import numpy as np
import torch
from _graphs import cora
from _row import Row, spread
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from embedkit.graph import build_adjacency
from embedkit.graph.structure.factorize import netmf, ppmi_factorize
from embedkit.graph.structure.orbits import orbit_adjacencies

WINDOWS = (1, 2, 3, 5, 10)


def planted(seed: int, nodes: int = 600, classes: int = 6) -> tuple[Tensor, np.ndarray]:
    """Triangles inside classes under random edges, and the classes."""
    draw = np.random.default_rng(seed)
    label = np.arange(nodes) % classes
    graph = nx.gnm_random_graph(nodes, 3 * nodes, seed=seed)
    for of in range(classes):
        members = np.flatnonzero(label == of)
        for _ in range(2 * len(members) // 3):
            a, b, c = draw.choice(members, 3, replace=False)
            graph.add_edges_from([(a, b), (b, c), (c, a)])
    edges = torch.tensor([[int(a), int(b)] for a, b in graph.edges]).T
    return torch.cat([edges, edges.flip(0)], dim=1), label


def score(features: np.ndarray, label: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Macro F1 on ``test`` of a logistic regression on ``train``."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit(features[train], label[train])
    return float(f1_score(label[test], model.predict(features[test]), average="macro"))


def folds(rows: np.ndarray, label: np.ndarray, seed: int, k: int = 5):
    """(train, test) rows of k stratified folds."""
    split = StratifiedKFold(k, shuffle=True, random_state=seed)
    return [(rows[a], rows[b]) for a, b in split.split(rows, label[rows])]


def compare(
    edges: Tensor, label: np.ndarray, dim: int, seed: int, inner: int
) -> tuple[float, float, str, list[str]]:
    """F1 of ours (nested choice) and of the best walks (choice on the test), and who they were."""
    nodes = len(label)
    fixed = torch.Generator().manual_seed(seed)
    orbit = {
        key: ppmi_factorize(counts, dim, generator=fixed).source.numpy()
        for key, counts in orbit_adjacencies(edges, nodes).items()
        if len(counts.value)
    }
    graph = build_adjacency(edges, None, nodes, norm="none", dtype=torch.float64)
    walks = {w: netmf(graph, dim, window=w, generator=fixed).source.numpy() for w in WINDOWS}
    ours, rival, chosen = [], {w: [] for w in WINDOWS}, []
    for train, test in folds(np.arange(nodes), label, seed):
        within = folds(train, label, seed, k=3)[:inner]
        valid = {k: mean(score(x, label, *fold) for fold in within) for k, x in orbit.items()}
        chosen.append(max(valid, key=valid.__getitem__))
        ours.append(score(orbit[chosen[-1]], label, train, test))
        for w, x in walks.items():
            rival[w].append(score(x, label, train, test))
        print(f"seed {seed} {chosen[-1]} {ours[-1]:.3f}", file=sys.stderr, flush=True)
    best = max(rival, key=lambda w: mean(rival[w]))
    return mean(ours), mean(rival[best]), f"window {best}", [str(key) for key in chosen]


def main(quick: bool = False) -> Row:
    seeds = 1 if quick else 5
    size = 120 if quick else 600
    ours, walks, keys = [], [], []
    for seed in range(seeds):
        found, rival, _, chosen = compare(*planted(seed, size), 32, seed, 1 if quick else 3)
        ours.append(found)
        walks.append(rival)
        keys += chosen
    data = cora()
    edges, label = data.edge_index, data.y.numpy()
    if quick:  # the first papers only
        edges, label = edges[:, (edges < 300).all(0)], label[:300]
    real, real_walks, window, real_keys = compare(edges, label, 16 if quick else 64, 0, 1)
    gaps = [a - b for a, b in zip(ours, walks, strict=True)]
    planted_holds = mean(gaps) >= 0.10 and min(gaps) >= 0.05
    both = "yes" if real > real_walks else "partly"
    common = max(set(keys), key=keys.count)
    return Row(
        paper="Windels 2024, Graphlets correct for the topological information missed by walks",
        claim="Orbit adjacencies tell labels that random walks miss",
        data="Planted triangles (600 nodes, 6 classes), macro F1 of 5 folds",
        ours=f"best of 28 by nested validation: {spread(ours)}",
        baseline=f"NetMF, best of windows {WINDOWS} on the test: {spread(walks)}",
        seeds=seeds,
        holds=both if planted_holds else "no",
        note=f"Chosen most often: {common}. Counter-example, Cora's graph alone, width 64: "
        f"{real:.3f} ({max(set(real_keys), key=real_keys.count)}) against {real_walks:.3f} "
        f"({window}): where neighbours share labels, broad walks win.",
    )


if __name__ == "__main__":
    main().print()
