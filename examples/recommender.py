"""Recommend what people of your taste chose: MF, NGCF and LightGCN in a training loop of your own.

Users click on items. Matrix factorisation learns a vector for each and never looks at the graph of
clicks; NGCF and LightGCN pass those vectors along it. Items are ranked by inner products, for every
user all of them, without those clicked before.

    python examples/recommender.py                                  # generated clicks
    python examples/recommender.py --data lastfm --folder data/lastfm
    python examples/recommender.py --data amazon-book --folder data/amazon-book --steps 1600

The generated clicks: 300 users and 300 items in 6 groups of taste; every user clicks on 8 items,
mostly of the own group, and 3 of them are for testing. The files of Last.FM are those of
LightGCN's released code (data1.txt and test1.txt, a line each click), those of Amazon-book NGCF's
and KGAT's (train.txt and test.txt, a line each user and the items); either may end in .gz.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import embedkit as ek

HERE = Path(__file__).parent
# Steps, width, batch, learning rate, and weight of the penalty for MF and LightGCN.
SETTINGS = {
    "generated": (180, 32, 512, 5e-3, 1e-3),
    "lastfm": (2000, 64, 2048, 1e-3, 1e-4),
    "amazon-book": (1600, 64, 2048, 1e-3, 1e-4),
}
FILES = {"lastfm": ("data1.txt", "test1.txt"), "amazon-book": ("train.txt", "test.txt")}


# --- Clicks: (2, e) tensors, users above items, each numbered from 0.


def generate(seed, users=300, items=300, groups=6, clicks=8, train=5):
    """Distinct clicks; with probability 0.85 inside the user's own group."""
    draw = torch.Generator().manual_seed(seed)
    parts = [], []
    for user in range(users):
        chosen = []
        while len(chosen) < clicks:
            item = torch.randint(items, (), generator=draw)
            if torch.rand((), generator=draw) < 0.85:
                item = item // groups * groups + user % groups
            if int(item) not in chosen:
                chosen.append(int(item))
        for part, some in zip(parts, (chosen[:train], chosen[train:]), strict=True):
            part += [(user, item) for item in some]
    return [torch.tensor(part).T for part in parts]


def read(data, folder):
    """Training and test clicks of real files."""
    result = []
    for name in FILES[data]:
        path = Path(folder or HERE / "data" / data) / name
        path = path if path.exists() else path.with_name(f"{name}.gz")
        if not path.exists():
            raise SystemExit(f"expected {name} or {name}.gz in {path.parent}; --folder names it")
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            rows = [line.split() for line in file]
        if data == "lastfm":  # user, item, how often; numbered from 1
            pairs = [(int(user) - 1, int(item) - 1) for user, item, _ in rows]
        else:
            pairs = [(int(row[0]), int(item)) for row in rows for item in row[1:]]
        result.append(torch.tensor(pairs).T)
    return result


# --- Models: a table, layers, and what all layers add up to.


def build(name, size, dim):
    table = nn.Embedding(size, dim)
    if name == "NGCF":
        nn.init.xavier_uniform_(table.weight)
        convs = [ek.graph.NGCFConv(dim, dim) for _ in range(3)]
        together = ek.graph.LayerCombination("concat", normalize_layers=True)
        return ek.graph.PropagatedEmbedding(table, convs, together)
    nn.init.normal_(table.weight, std=0.1)
    convs = [ek.graph.LightGCNConv()] * (3 if name == "LightGCN" else 0)
    return ek.graph.PropagatedEmbedding(table, convs)


# --- Training.


def train(name, clicks, num_users, num_items, steps, settings):
    """Your loop: a batch of clicks, a negative for each, one propagation, BPR, a penalty."""
    dim, batch, rate, penalty = settings
    user, item = clicks
    model = build(name, num_users + num_items, dim)
    adjacency = ek.graph.bipartite_adjacency(user, item, num_users, num_items)
    negatives = ek.mining.UniformNegativeSampler(user, item, num_items)
    optimiser = torch.optim.Adam(model.parameters(), rate, fused=True)
    order, losses = torch.empty(0, dtype=torch.long), []
    for _ in range(steps):
        if len(order) == 0:
            order = torch.randperm(len(user))
        rows, order = order[:batch], order[batch:]
        nodes = model(adjacency)  # all users, then all items
        ids = [user[rows], item[rows] + num_users, negatives(user[rows])[:, 0] + num_users]
        u, positive, negative = (F.embedding(some, nodes) for some in ids)
        loss = ek.losses.bpr_loss((u * positive).sum(1), (u * negative).sum(1))
        if name == "NGCF":  # penalises what it scores; the others the rows of the table
            loss = loss + 1e-5 * ek.losses.batch_l2_penalty(u, positive, negative)
        else:
            loss = loss + penalty * ek.losses.batch_l2_penalty(*map(model.table, ids))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        users, items = model(adjacency).split([num_users, num_items])
    return users, items, sum(losses[-20:]) / len(losses[-20:])


def main(steps=None, out=HERE / "out" / "recommender", seed=0, data="generated", folder=None):
    """Train all three, rank all items, and write what was found to ``out``."""
    usual, *settings = SETTINGS[data]
    steps = steps or usual
    clicks, test = generate(seed) if data == "generated" else read(data, folder)
    num_users, num_items = (int(torch.cat([clicks, test], 1)[side].max()) + 1 for side in (0, 1))
    print(f"{data}: {num_users:,} users, {num_items:,} items, {clicks.shape[1]:,} clicks")
    result = {"data": data, "steps": steps, "seed": seed}
    for name in ("MF", "NGCF", "LightGCN"):
        torch.manual_seed(seed)
        start = time.perf_counter()
        users, items, loss = train(name, clicks, num_users, num_items, steps, settings)
        took = time.perf_counter() - start
        found = ek.analysis.all_ranking_metrics(users, items, clicks, test)
        result[name] = found
        print(
            f"{name:>9}: recall@20 {found['recall@20']:.4f}, NDCG@20 {found['ndcg@20']:.4f}, "
            f"loss {loss:.3f}, {took:.0f} s"
        )
    best = ek.search.exact_search(
        users[:1], items, 5, similarity="dot", exclude=clicks[1][clicks[0] == 0][None]
    )
    print(f"LightGCN to user 0: items {best.index[0].tolist()}")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{data}.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="of each model; None: what the data needs")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "recommender")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=list(SETTINGS), default="generated")
    parser.add_argument("--folder", type=Path, help="of the files of lastfm or amazon-book")
    main(**vars(parser.parse_args()))
