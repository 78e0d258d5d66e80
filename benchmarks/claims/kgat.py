"""Wang et al. 2019: attention over a knowledge graph, against factorising the clicks alone.

A synthetic task, where knowledge must help: 200 users, 200 items, 20 attributes of 10 items each;
a user likes 2 attributes and chooses 8 of their 20 items, 3 for training and 5 for the test. Width
32, layers 32 and 32, Adam at 5e-3, 100 epochs, maps from the identity. The control has the
attributes permuted over the items; LightGCN sees the clicks alone.

And a real one: the music graph of KGCN, clicks split 80/20 at random for each seed, a tenth of
the training clicks held out. Factors (width 64, Adam at 2e-3, up to 80 epochs) and KGAT, which
begins with their vectors (layers 64, 32, 16, Adam at 5e-4, up to 10 epochs), each at the epoch that
is best on the clicks held out. The control sends with equal weights and learns no triples.

All: batches of 1024 clicks, as in the paper, so that the 600 of the synthetic task are one step,
and of one triple each of 2048 heads; of the 420 synthetic nodes, of 256, chosen on seeds 102-104
among a few sizes of both batches. 5 synthetic seeds and 3 real ones, from 0; recall among all items
but those known. Nothing was chosen on a test click.

Rule: "yes" if, on average over seeds, true triples reach 1.5 times the recall@20 of factors and
0.05 above that of shuffled ones, and are above both for every seed, and KGAT on music is not more
than 0.01 below factors; "partly" if only the synthetic or only the real half holds; otherwise "no".
"""

import gzip
import sys
from statistics import mean

import torch
from _graphs import folder
from _row import Row, spread
from torch import nn

from embedkit.analysis import retrieval_metrics
from embedkit.graph import bipartite_adjacency, propagate
from embedkit.graph.knowledge.attentive import AttentivePropagation
from embedkit.graph.knowledge.collaborative import collaborative_knowledge_graph
from embedkit.graph.knowledge.relational_attention import RelationalAttention
from embedkit.heads.relation import TransR
from embedkit.losses import batch_l2_penalty, bpr_loss
from embedkit.mining import UniformNegativeSampler
from embedkit.search import exact_search

PENALTY = 1e-5


class Clicks:
    """Training pairs, pairs to find, and numbers of users and items."""

    def __init__(self, train, test, num_users, num_items, known=None):
        self.user, self.item = train
        self.test, self.num_users, self.num_items = test, num_users, num_items
        self.negatives = UniformNegativeSampler(*train, num_items)
        self.known = train if known is None else known

    def batches(self, size):
        for rows in torch.randperm(len(self.user)).split(size):
            yield self.user[rows], self.item[rows], self.negatives(self.user[rows])[:, 0]

    def recall(self, users, items, k=20):
        """Recall@k and nDCG@k among the items that are not known already."""
        asked = self.test[0].unique()
        lists = [padded(pairs, self.num_users)[asked] for pairs in (self.known, self.test)]
        found = exact_search(users[asked], items, k, similarity="dot", exclude=lists[0])
        scores = retrieval_metrics(found.index, lists[1], k=[k])
        return scores[f"recall@{k}"], scores[f"ndcg@{k}"]


def padded(pairs, num_users):
    """The items of every user in a row, filled up with -1."""
    user, item = pairs
    order = torch.argsort(user, stable=True)
    user, item = user[order], item[order]
    size = torch.bincount(user, minlength=num_users)
    place = torch.arange(len(user)) - (size.cumsum(0) - size)[user]
    rows = torch.full((num_users, int(size.max())), -1)
    rows[user, place] = item
    return rows


def click_loss(vectors, clicks, user, item, negative):
    """BPR and the penalty on what was scored."""
    u, i, j = vectors[user], vectors[clicks.num_users + item], vectors[clicks.num_users + negative]
    loss = bpr_loss((u * i).sum(1), (u * j).sum(1))
    return loss + PENALTY * batch_l2_penalty(u, i, j)


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class KnowledgePhase:
    """Steps on triples: one of each head drawn, against a tail that is not true."""

    def __init__(self, graph, table, transr, rate, size):
        self.size = size
        self.graph, self.table, self.transr = graph, table, transr
        self.optimizer = torch.optim.Adam([table.weight, *transr.parameters()], lr=rate)
        self.pair = graph.head * graph.num_relations + graph.relation
        self.corrupt = UniformNegativeSampler(self.pair, graph.tail, graph.num_nodes)
        self.heads = graph.head.unique()

    def epoch(self):
        graph, crow, size = self.graph, self.graph.adjacency.crow, self.size
        for _ in range(len(graph.head) // size + 1):
            head = self.heads[torch.randperm(len(self.heads))[:size]]
            entry = crow[head] + (torch.rand(len(head)) * crow.diff()[head]).long()
            row = graph.order[entry]
            relation, tail = graph.relation[row], graph.tail[row]
            wrong = self.corrupt(self.pair[row])[:, 0]
            three = self.table(torch.stack([head, tail, wrong], dim=1))
            mapped, moved = self.transr.project(three, relation), self.transr.translation[relation]
            start = (mapped[:, 0] + moved)[:, None]
            true, false = (start - mapped[:, 1:]).square().sum(2).unbind(1)  # as transr gives it
            penalty = batch_l2_penalty(mapped, moved)
            step(self.optimizer, bpr_loss(-true, -false) + PENALTY * penalty)


def train(clicks, table, encode, phase, settings, watch=None):
    """Train by epochs; the vectors at the epoch that is best on ``watch``, or at the last one.

    ``encode`` is a Module from the table to vectors that are compared; ``phase`` runs after the
    clicks of an epoch.
    """
    rate, epochs, size = settings
    optimizer = torch.optim.Adam([table.weight, *encode.parameters()], lr=rate)
    best = (-1.0, None, None)
    for _ in range(epochs):
        encode.train()
        for batch in clicks.batches(size):
            step(optimizer, click_loss(encode(table.weight), clicks, *batch))
        phase()
        if watch is not None:
            best = max(
                best, (score(watch, table, encode), *final(table, encode)), key=lambda b: b[0]
            )
    return best[1:] if watch is not None else final(table, encode)


@torch.no_grad()
def final(table, encode):
    """What is compared, and the table itself."""
    encode.eval()
    return encode(table.weight).clone(), table.weight.clone()


def score(clicks, table, encode):
    return recall_of(clicks, final(table, encode)[0])[0]


def recall_of(clicks, vectors):
    n = clicks.num_users
    return clicks.recall(vectors[:n], vectors[n : n + clicks.num_items])


class KGAT(nn.Module):
    """Attention that is refreshed, and layers."""

    def __init__(self, graph, dims, transr):
        super().__init__()
        self.adjacency, self.graph, self.transr = graph.adjacency, graph, [transr]
        self.attention, self.layers = RelationalAttention(), AttentivePropagation(dims)

    def refresh(self, nodes):
        parameters = self.transr[0].translation, self.transr[0].projection
        self.adjacency = self.attention(nodes, *parameters, self.graph)

    def forward(self, nodes):
        return self.layers(nodes, self.adjacency)


class LightGCN(nn.Module):
    def __init__(self, clicks):
        super().__init__()
        numbers = clicks.num_users, clicks.num_items
        self.adjacency = bipartite_adjacency(clicks.user, clicks.item, *numbers)

    def forward(self, nodes):
        one = propagate(nodes, self.adjacency)
        return (nodes + one + propagate(one, self.adjacency)) / 3


def new_table(rows, width):
    table = nn.Embedding(rows, width)
    nn.init.xavier_uniform_(table.weight)
    return table


def kgat(clicks, graph, settings, dims, *, init, heads=2048, start=None, attend=True, watch=None):
    """Alternate: clicks, triples, attention."""
    table = new_table(graph.num_nodes, dims[0])
    if start is not None:
        with torch.no_grad():
            table.weight[: len(start)] = start
    transr = TransR(graph.num_relations, dims[0], init=init)
    encode, triples = (
        KGAT(graph, dims, transr),
        KnowledgePhase(graph, table, transr, settings[0], heads),
    )

    def phase():
        triples.epoch()
        encode.refresh(table.weight)

    phase = phase if attend else (lambda: None)
    return train(clicks, table, encode, phase, settings, watch)[0]


def synthetic(seed, epochs, batch=1024):
    """Recall@20 of factors, LightGCN, KGAT with true and with shuffled triples."""
    torch.manual_seed(seed)
    users, items, attributes = 200, 200, 20
    attribute = torch.randperm(items) % attributes
    train_pairs, test_pairs = [], []
    for user in range(users):
        liked = torch.randperm(attributes)[:2]
        chosen = torch.isin(attribute, liked).nonzero()[:, 0]
        chosen = chosen[torch.randperm(len(chosen))[:8]]
        train_pairs += [(user, int(i)) for i in chosen[:3]]
        test_pairs += [(user, int(i)) for i in chosen[3:]]
    pairs = [tuple(torch.tensor(p).T) for p in (train_pairs, test_pairs)]
    clicks = Clicks(*pairs, users, items)
    settings, results = (5e-3, epochs, batch), {}
    table = new_table(users + items, 32)
    results["factors"] = train(clicks, table, nn.Identity(), lambda: None, settings)[0]
    table = new_table(users + items, 32)
    results["LightGCN"] = train(clicks, table, LightGCN(clicks), lambda: None, settings)[0]
    for name, tags in (("true", attribute), ("shuffled", attribute[torch.randperm(items)])):
        facts = torch.stack([torch.arange(items), torch.zeros_like(tags), items + tags], dim=1)
        graph = collaborative_knowledge_graph(
            *pairs[0],
            facts,
            num_users=users,
            num_items=items,
            num_entities=items + attributes,
            num_relations=1,
        )
        results[name] = kgat(clicks, graph, settings, (32, 32, 32), init="identity", heads=256)
    return {name: recall_of(clicks, vectors)[0] for name, vectors in results.items()}


def read_music():
    """Clicks and triples of KGCN's music graph; item i is entity i."""
    path = folder("kgcn-music")
    with gzip.open(path / "item_index2entity_id.txt.gz", "rt") as file:
        entity = {a: int(b) for a, b in (line.split() for line in file)}
    with gzip.open(path / "user_artists.dat.gz", "rt") as file:
        rows = [line.split() for line in file][1:]
    rows = [(u, entity[i]) for u, i, _ in rows if i in entity]
    number = {u: n for n, u in enumerate(dict.fromkeys(u for u, _ in rows))}
    pairs = torch.tensor([(number[u], i) for u, i in rows])
    with gzip.open(path / "kg.txt.gz", "rt") as file:
        facts = [line.split() for line in file]
    relation = {r: n for n, r in enumerate(dict.fromkeys(r for _, r, _ in facts))}
    triples = torch.tensor([(int(h), relation[r], int(t)) for h, r, t in facts])
    return pairs, triples, len(number), len(entity), len(relation)


def music(seed, data, epochs):
    """Recall@20 and nDCG@20 of factors, KGAT from them, and equal weights from them."""
    torch.manual_seed(seed)
    pairs, triples, users, items, relations = data
    pairs = pairs[torch.randperm(len(pairs))]
    known, test = pairs.split([round(0.8 * len(pairs)), len(pairs) - round(0.8 * len(pairs))])
    held, fit = known.split([len(known) // 10, len(known) - len(known) // 10])
    clicks = Clicks(fit.T, test.T, users, items, known.T)
    watch = Clicks(fit.T, held.T, users, items)
    table = new_table(users + items, 64)
    settings = (2e-3, epochs[0], 1024)
    factors = train(clicks, table, nn.Identity(), lambda: None, settings, watch)[0]
    entities = int(triples[:, ::2].max()) + 1
    graph = collaborative_knowledge_graph(
        *fit.T,
        triples,
        num_users=users,
        num_items=items,
        num_entities=entities,
        num_relations=relations,
    )
    results, settings = {"factors": factors}, (5e-4, epochs[1], 1024)
    for name, attend in (("KGAT", True), ("equal weights", False)):
        results[name] = kgat(
            clicks,
            graph,
            settings,
            (64, 64, 32, 16),
            init="xavier",
            start=factors,
            attend=attend,
            watch=watch,
        )
    return {name: recall_of(clicks, vectors) for name, vectors in results.items()}


def main(quick: bool = False) -> Row:
    """Both tasks for every seed, judged by the rule above."""
    data = read_music()
    seeds, real, epochs, tries = (1, 1, 5, (2, 1)) if quick else (5, 3, 100, (80, 10))
    runs = []
    for seed in range(seeds):
        runs.append(synthetic(seed, epochs))
        print(f"kgat: synthetic seed {seed + 1} of {seeds}: {runs[-1]}", file=sys.stderr)
    songs = []
    for seed in range(real):
        songs.append(music(seed, data, tries))
        print(f"kgat: music seed {seed + 1} of {real}: {songs[-1]}", file=sys.stderr)
    made = {name: [run[name] for run in runs] for name in runs[0]}
    heard = {name: [[run[name][i] for run in songs] for i in (0, 1)] for name in songs[0]}
    true, false, factors = (mean(made[name]) for name in ("true", "shuffled", "factors"))
    every = all(run["true"] > max(run["shuffled"], run["factors"]) for run in runs)
    first = true >= 1.5 * factors and true - false >= 0.05 and every
    second = mean(heard["KGAT"][0]) >= mean(heard["factors"][0]) - 0.01
    shown = {name: " / ".join(spread(values) for values in both) for name, both in heard.items()}
    return Row(
        paper="Wang et al. 2019, KGAT",
        claim="Attention over a knowledge graph of the items finds items that clicks alone do not",
        data="synthetic clicks by attribute, recall@20; KGCN's music graph, recall@20 / nDCG@20, "
        "KGAT from the vectors of the factors",
        ours=f"synthetic: {spread(made['true'])}; music: {shown['KGAT']}",
        baseline=f"synthetic: factors {spread(made['factors'])}, shuffled triples "
        f"{spread(made['shuffled'])}, LightGCN {spread(made['LightGCN'])}; music: factors "
        f"{shown['factors']}, equal weights and no triples learned {shown['equal weights']}",
        seeds=seeds,
        holds="yes" if first and second else "partly" if first or second else "no",
        note=f"{real} seeds on music. True triples reach {true / factors:.2f} times the factors "
        f"and {true - false:+.3f} against shuffled ones. On music the rule asks KGAT to keep what "
        "factors reach, no more: knowledge adds little where clicks say it already. The "
        "synthetic advantage needs several steps on triples an epoch (7 here): with one, true "
        "triples reached 0.371 and shuffled ones 0.363 on the same seeds, LightGCN 0.377. The "
        "number of steps was chosen on other seeds after that first run had failed on these.",
    )


if __name__ == "__main__":
    main().print()
