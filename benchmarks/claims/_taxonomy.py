"""Hierarchies of WordNet: the synsets below a root, each with all that lies above it."""

import csv
import gzip

import torch
from _graphs import folder


class Taxonomy:
    """Synsets below ``root`` breadth-first: names, parents, depths and ancestors.

    ``ancestors`` is (n, most), ids padded with -1: the transitive closure of "is a kind of".
    """

    def __init__(self, root, size=None, instances=False):
        path = folder("wordnet") / "wordnet.tsv.gz"
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        links = {row["synset"]: [w.split(":") for w in row["relations"].split()] for row in rows}
        name = {row["synset"]: row["lemmas"].split("|")[0] for row in rows}
        down, up = (("~", "~i"), ("@", "@i")) if instances else (("~",), ("@",))
        number, queue = {root: 0}, [root]
        for synset in queue:
            for symbol, other in links[synset]:
                if symbol in down and other not in number and len(number) < (size or len(rows)):
                    number[other] = len(number)
                    queue.append(other)
        self.names = [name[synset] for synset in queue]
        self.parents = [
            [number[other] for symbol, other in links[synset] if symbol in up and other in number]
            for synset in queue
        ]
        self.depth, above = [0] * len(queue), [set() for _ in queue]

        def climb(node):
            if self.parents[node] and not above[node]:
                for parent in self.parents[node]:
                    above[node] |= {parent} | climb(parent)
                self.depth[node] = 1 + min(self.depth[p] for p in self.parents[node])
            return above[node]

        for node in range(len(queue)):
            climb(node)
        most = max(map(len, above))
        self.ancestors = torch.tensor([sorted(a) + [-1] * (most - len(a)) for a in above])

    def __len__(self):
        return len(self.names)


@torch.no_grad()
def reconstruction(points, ancestors, distance, rows=512):
    """(mAP, mean rank) of finding every node's ancestors among all other nodes by distance.

    The rank of an ancestor is 1 plus the nodes nearer than it that are none.
    """
    precision, rank = [], []
    for nodes in torch.arange(len(points)).split(rows):
        above = ancestors[nodes]
        hit = torch.zeros(len(nodes), len(points) + 1, dtype=torch.bool)
        hit = hit.scatter(1, above + 1, True)[:, 1:]
        apart = distance(points[nodes], points)
        apart[torch.arange(len(nodes)), nodes] = torch.inf
        found = hit.gather(1, apart.argsort(dim=1))
        place = torch.arange(1, len(points) + 1)
        of = found.cumsum(dim=1)
        real = found.any(dim=1)
        mean = (of / place * found).sum(dim=1) / found.sum(dim=1).clamp(min=1)
        precision.append(mean[real])
        rank.append((place - of + 1)[found])
    return torch.cat(precision).mean().item(), torch.cat(rank).double().mean().item()
