"""Zero-shot classes of a graph of texts, in hyperbolic space: shrink what is too far out.

H4G's recipe on WordNet's nouns. Nodes are nouns with their definitions, edges lead to what lies
above them; a class is a noun with 300 to 1,500 others below it, known by its own name and
definition alone. Frozen features of texts pass along the graph and become tangent vectors, so that
the longer a text, the farther out its point; by hyperbolic distance such classes are hardly ever
chosen. A block-diagonal matrix, trained on half of the classes, brings all points nearer to the
origin. The other half of the classes, which no training saw, says what that is worth. Cosine,
printed beside it, never looks at lengths, which say nothing about classes here: where it is ahead,
take it.

    python examples/hyperbolic_zero_shot.py
    python examples/hyperbolic_zero_shot.py --steps 1000
"""

import argparse
import gzip
import json
import re
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F

import embedkit as ek
from embedkit.geometry import poincare

HERE = Path(__file__).parent
DIM, BLOCK, HOPS, BATCH = 128, 4, 2, 512
LEAST, MOST = 300, 1500  # nouns below a class
LENGTH = 5.0  # mean length of tangent vectors: radius 10


# --- Nodes, edges, classes.


def read():
    """(names, definition, rows of parents) of every noun."""
    with gzip.open(HERE / "data" / "wordnet_nouns.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    return [(names, text, [*map(int, parents.split())]) for names, text, parents in rows]


def classes(nouns):
    """{row of a class: rows below it}, no class below another."""
    children = [[] for _ in nouns]
    for row, (_, _, parents) in enumerate(nouns):
        for parent in parents:
            children[parent].append(row)

    def below(row):
        found, queue = set(), list(children[row])
        while queue:
            one = queue.pop()
            if one not in found:
                found.add(one)
                queue += children[one]
        return found

    chosen, queue, seen = {}, [0], {0}
    for row in queue:
        rows = below(row)
        if len(rows) <= MOST:
            if len(rows) >= LEAST:
                chosen[row] = rows
            continue
        queue += [child for child in children[row] if child not in seen]
        seen.update(children[row])
    return chosen


# --- Frozen features: latent semantic analysis of all definitions.


def words(names, text):
    return re.findall(r"[a-z]+", f"{names} {text}".lower())


def features(texts):
    """(n, DIM): counts of words, rare ones more, along their first singular directions."""
    count = Counter(word for text in texts for word in set(text))
    known = {word: i for i, word in enumerate(w for w, n in count.items() if n > 1)}
    pairs = [(i, known[word]) for i, text in enumerate(texts) for word in text if word in known]
    rarity = torch.tensor([len(texts) / count[word] for word in known]).log()
    index = torch.tensor(pairs).T
    size = (len(texts), len(known))
    counts = torch.sparse_coo_tensor(index, rarity[index[1]], size, check_invariants=True)
    left, values, _ = torch.svd_lowrank(counts.coalesce(), DIM)
    return left * values.sqrt()


# --- The recipe.


def train(scaling, temperature, v, label, prototypes, steps):
    """Your loop: distances of scaled points to scaled classes, cross-entropy."""
    optimizer = torch.optim.Adam([*scaling.parameters(), *temperature.parameters()], lr=0.05)
    for _ in range(steps):
        rows = torch.randint(len(v), (BATCH,))
        distance = poincare.tangent_distance(scaling(v[rows]), scaling(prototypes))
        loss = F.cross_entropy(-distance / temperature(), label[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def measure(scaling, v, label, prototypes):
    """Accuracy, mean radius, and how many classes are ever chosen."""
    v, prototypes = scaling(v), scaling(prototypes)
    found = torch.cat([poincare.tangent_distance(x, prototypes).argmin(1) for x in v.split(4096)])
    return {
        "accuracy": (found == label).double().mean().item(),
        "radius": 2 * v.double().norm(dim=1).mean().item(),
        "classes chosen": len(found.unique()) / len(prototypes),
    }


def main(steps=400, out=HERE / "out" / "hyperbolic_zero_shot", seed=0):
    """Frozen points, scaled ones, and cosine; their numbers go to ``out``."""
    torch.manual_seed(seed)
    nouns = read()
    chosen = classes(nouns)
    nodes = {row: i for i, row in enumerate(sorted(set().union(*chosen.values()) - set(chosen)))}
    label = torch.empty(len(nodes), dtype=torch.long)
    for number, rows in enumerate(chosen.values()):
        label[[nodes[row] for row in rows if row in nodes]] = number
    edges = torch.tensor(
        [(nodes[row], nodes[p]) for row in nodes for p in nouns[row][2] if p in nodes]
    ).T
    print(f"{len(nodes):,} nouns, {edges.shape[1]:,} edges, {len(chosen)} classes")

    every = features([words(*noun[:2]) for noun in nouns])
    v, prototypes = every[list(nodes)], every[list(chosen)]
    adjacency = ek.graph.build_adjacency(
        torch.cat([edges, edges.flip(0)], dim=1), num_nodes=len(nodes), norm="gcn"
    )
    for _ in range(HOPS):  # classes have no edge: only their own text is known
        v = ek.graph.propagate(v, adjacency)
    v, prototypes = (LENGTH * x / x.norm(dim=1).mean() for x in (v, prototypes))

    shuffled = torch.randperm(len(chosen))
    seen, unseen = shuffled.tensor_split(2)
    place = torch.full((len(chosen),), -1)
    place[seen] = torch.arange(len(seen))
    training = place[label] >= 0
    scaling = ek.heads.BlockDiagonalMobius(DIM, BLOCK, space="tangent")
    temperature = ek.losses.LearnableTemperature(1.0)

    place_unseen = torch.full((len(chosen),), -1)
    place_unseen[unseen] = torch.arange(len(unseen))
    held_out = v[~training], place_unseen[label[~training]], prototypes[unseen]
    result = {"as it is": measure(scaling, *held_out)}
    train(scaling, temperature, v[training], place[label[training]], prototypes[seen], steps)
    result["scaled"] = measure(scaling, *held_out)
    cosine = F.normalize(held_out[0]) @ F.normalize(held_out[2]).T
    result["cosine"] = {"accuracy": (cosine.argmax(1) == held_out[1]).double().mean().item()}
    for name, row in result.items():
        print(f"{name:>10}" + "".join(f"   {key} {value:.3f}" for key, value in row.items()))
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "hyperbolic_zero_shot.json").write_text(json.dumps(result, indent=1) + "\n")
    torch.save(scaling.state_dict(), out / "scaling.pt")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "hyperbolic_zero_shot")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
