"""Yu et al. 2023: GRACE, and GRACE with a loss on node compactness (POT), on Cora.

Two graph convolutions (1433 -> 256 -> 128, ReLU), projector of the same width, temperature 0.7,
edges dropped at 0.4 and 0.3, features whole, Adam at 5e-4 with weight decay 1e-5, 200 epochs: the
settings of the released code for Cora. Every epoch a random half of the nodes, in both views, is
contrasted, which costs a quarter; compactness is that of all nodes. The same seed gives every
variant the same weights, augmentations and halves. Frozen embeddings, standardised, then logistic
regression on the public split; C is chosen on its 500 validation nodes, accuracy is that of its
1000 test nodes.

Also measured with the same encoders and without training anything again: compactness and margin on
fixed views (drop rate 0.4 against 0.3), and accuracy of the same probe when edges are missing at
test time (half of them, and all of them, the probe fitted on the whole graph), which is what a
guarantee over edge drops should help with, and on the whole graph for nodes with at most 2 edges.

Rule: the claim has two halves. A variant with k > 0 raises compactness if the share of nodes with
positive "sampled" compactness, the bound that the claim is about, goes from below 0.2 in GRACE to
above 0.4; it raises accuracy if test accuracy on the whole graph gains more than 0.5 points over
GRACE on average and gains for every seed. "yes" if one variant does both: of those that raise
compactness, the best by validation accuracy. "partly" if only one half holds: some variant raises
compactness, or the best of all by validation accuracy raises accuracy; otherwise "no".
"""

import json
import sys
from statistics import mean
from time import perf_counter

import torch
from _graphs import cora
from _row import Row, spread
from torch import nn

from embedkit.graph import Adjacency, adjacency_from_entries, build_adjacency
from embedkit.graph.contrast.bounds import clip_to_range, edge_drop_bounds
from embedkit.graph.contrast.compactness import NodeCompactness, node_margin
from embedkit.graph.propagation.encoder import GCNEncoder
from embedkit.losses import SupConLoss
from embedkit.losses.scores.compactness import pot_loss

RATES, WIDTH, TEMPERATURE, RATE, DECAY, EPOCHS = (0.4, 0.3), 128, 0.7, 5e-4, 1e-5, 200
PENALTIES = [10.0**power for power in range(-4, 2)]
VARIANTS = {
    "GRACE": ("sampled", 0.0),
    '"source_weights" k 0.4': ("source_weights", 0.4),
    '"sampled" k 0.4': ("sampled", 0.4),
    '"sampled" k 0.1': ("sampled", 0.1),
}


def dropped(edges, rate, generator):
    """Each directed edge is left out with this probability."""
    return edges[:, torch.rand(edges.shape[1], generator=generator) >= rate]


def views(data, generator):
    """Two augmented adjacencies."""
    return [
        build_adjacency(dropped(data.edge_index, rate, generator), None, len(data.y), norm="gcn")
        for rate in RATES
    ]


def train(data, x, bounds, variant, seed, epochs):
    """An encoder trained with a share k of the POT loss."""
    mode, share = variant
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = GCNEncoder([data.x.shape[1], 2 * WIDTH, WIDTH])
    projector = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ELU(), nn.Linear(WIDTH, WIDTH))
    compactness, grace = NodeCompactness(encoder, mode), SupConLoss(TEMPERATURE)
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *projector.parameters()], lr=RATE, weight_decay=DECAY
    )
    ids = torch.arange(len(data.y) // 2).repeat(2)
    for _ in range(epochs):
        pair = views(data, generator)
        left, right = (encoder(x, view) for view in pair)
        half = torch.randperm(len(data.y), generator=generator)[: len(ids) // 2]
        loss = grace(projector(torch.cat([left[half], right[half]])), ids)
        if share:
            there = compactness(x, pair[0], right, bounds[0])
            back = compactness(x, pair[1], left, bounds[1])
            loss = (1 - share) * loss + share * pot_loss(there, back)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


def probe(data, seen, shown):
    """Accuracy on validation and test nodes, all and those with at most 2 edges, of ``shown``.

    The probe is fitted on the training nodes of ``seen``, C chosen on its validation nodes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(seen[data.train_mask].double())
    rows = {name: scaler.transform(z.double()) for name, z in shown.items()}
    own = scaler.transform(seen.double())
    best = None
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=2000)
        model.fit(own[data.train_mask], data.y[data.train_mask])
        found = model.score(own[data.val_mask], data.y[data.val_mask])
        if best is None or found > best[0]:
            best = found, model
    degree = data.edge_index[1].bincount(minlength=len(data.y))
    masks = {"": torch.ones_like(degree, dtype=torch.bool), "few ": degree <= 2}
    return {
        f"{name} {which}{split}": 100 * best[1].score(z[mask & some], data.y[mask & some])
        for name, z in rows.items()
        for which, some in masks.items()
        for split, mask in (("val", data.val_mask), ("test", data.test_mask))
    }


@torch.no_grad()
def measure(data, x, bounds, encoder):
    """Scores on fixed views, and accuracies."""
    generator = torch.Generator().manual_seed(1000)
    pair, result = views(data, generator), {}
    left, right = (encoder(x, view) for view in pair)
    for mode in ("sampled", "source_weights", "certified"):
        score = NodeCompactness(encoder, mode)(x, pair[0], right, bounds[0])
        result[mode], result[f"{mode} > 0"] = float(score.mean()), float((score > 0).float().mean())
    result["margin > 0"] = float((node_margin(left, right) > 0).float().mean())
    size = len(data.y)
    whole = build_adjacency(data.edge_index, None, size, norm="gcn")
    half = build_adjacency(dropped(data.edge_index, 0.5, generator), None, size, norm="gcn")
    none = build_adjacency(data.edge_index[:, :0], None, size, norm="gcn")
    graphs = {"whole": whole, "half": half, "no edges": none}
    shown = {name: encoder(x, graph) for name, graph in graphs.items()}
    return result | probe(data, shown["whole"], shown)


def sparse(x) -> Adjacency:
    """The bags of words, 1.3 % of whose entries are not 0."""
    row, col = x.nonzero(as_tuple=True)
    return adjacency_from_entries(row, col, x[row, col], *x.shape)


def shown(results, key, digits=1):
    """A measurement of every variant."""
    return "; ".join(f"{n}: {spread([r[key] for r in rs], digits)}" for n, rs in results.items())


def main(quick: bool = False) -> Row:
    """Train every variant for every seed and judge the claim by the rule above."""
    seeds, epochs = (1, 4) if quick else (3, EPOCHS)
    data = cora()
    x, size = sparse(data.x), len(data.y)
    bounds = [edge_drop_bounds(data.edge_index, size, rate) for rate in RATES]
    outside = mean(
        float(clip_to_range(view, box)[1].float().mean())
        for view, box in zip(views(data, torch.Generator().manual_seed(1000)), bounds, strict=True)
    )
    results = {name: [] for name in VARIANTS}
    for seed in range(seeds):
        for name, variant in VARIANTS.items():
            start = perf_counter()
            encoder = train(data, x, bounds, variant, seed, epochs)
            results[name].append(measure(data, x, bounds, encoder))
            took = perf_counter() - start
            print(f"{name} {seed} {took:.0f} s", json.dumps(results[name][-1]), file=sys.stderr)

    return judge(results, outside)


def judge(results, outside):
    """The row, by the rule above, of what was measured."""

    def average(name, key):
        return mean(result[key] for result in results[name])

    def gains(name, key):
        pairs = zip(results[name], results["GRACE"], strict=True)
        return [ours[key] - plain[key] for ours, plain in pairs]

    def best(names):
        return max(names, key=lambda name: average(name, "whole val"))

    def accurate(name):
        gain = gains(name, "whole test")
        return mean(gain) > 0.5 and min(gain) > 0

    source, sound = '"source_weights" k 0.4', '"sampled" k 0.4'
    factor = average(source, "source_weights") / average("GRACE", "source_weights")
    trained = [name for name in VARIANTS if name != "GRACE"]
    low = average("GRACE", "sampled > 0") < 0.2
    compact = [name for name in trained if low and average(name, "sampled > 0") > 0.4]
    chosen = best(trained)
    if compact and accurate(best(compact)):
        holds = "yes"
    else:
        holds = "partly" if compact or accurate(chosen) else "no"
    gain = gains(chosen, "whole test")
    raised = "No variant raises the share from below 0.2 to above 0.4"
    if compact:
        raised = (
            f"The share rises from below 0.2 to above 0.4 with {best(compact)}, which changes test "
            f"accuracy by {mean(gains(best(compact), 'whole test')):+.1f} points"
        )
    ours = {name: rows for name, rows in results.items() if name != "GRACE"}
    base = {"GRACE": results["GRACE"]}
    return Row(
        paper="Yu et al. 2023, Provable Training for Graph Contrastive Learning (POT)",
        claim="Training on node compactness raises it, and with it accuracy",
        data="Cora, public split; test accuracy (%) of logistic regression on frozen embeddings; "
        'share of nodes with positive "sampled" compactness',
        ours=f"accuracy {shown(ours, 'whole test')}; share {shown(ours, 'sampled > 0', 2)}",
        baseline=f"accuracy {shown(base, 'whole test')}; share {shown(base, 'sampled > 0', 2)}",
        seeds=len(gain),
        holds=holds,
        note=f"{raised}. "
        f'The mean score of "source_weights" rises by a factor of {factor:.2f} where it is '
        f"trained; it is positive for {average('GRACE', 'source_weights > 0'):.1%} of the nodes of "
        "plain GRACE, so it is not the bound that its name suggests. The best variant by "
        f"validation accuracy, {chosen}, changes test accuracy by {mean(gain):+.1f} points "
        f"({min(gain):+.1f} to {max(gain):+.1f}). {source} against GRACE, same probe: "
        f"{spread(gains(source, 'half test'), 1)} points with half of the edges missing at test "
        f"time, {spread(gains(source, 'no edges test'), 1)} with all missing, "
        f"{spread(gains(source, 'whole few test'), 1)} for nodes with at most 2 edges; {sound}: "
        f"{spread(gains(sound, 'half test'), 1)}, {spread(gains(sound, 'no edges test'), 1)}, "
        f'{spread(gains(sound, "whole few test"), 1)}. Mean "sampled" compactness: '
        f"{shown(results, 'sampled', 3)}; share of nodes whose margin itself is positive: "
        f"{shown(results, 'margin > 0', 2)}. Independent draws take {outside:.0%} of the nodes out "
        "of the box that the bounds are for.",
    )


if __name__ == "__main__":
    main().print()
