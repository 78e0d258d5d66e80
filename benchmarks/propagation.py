"""Graph layers on one sparse operator beside PyG's gather and scatter, both passes.

python benchmarks/propagation.py  (Amazon-book from EMBEDKIT_DATA, default ../shared/data)
"""

import ctypes
import multiprocessing
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "claims"))
from _graphs import clicks, folder
from _measure import compare, mib, peak_bytes, save

import embedkit as ek

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch.jit.script, deprecated, as PyG loads
    from torch_geometric.nn import LGConv, MessagePassing
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

WIDTH, LAYERS = 64, 3


def both_passes(layers, nodes, *edges):
    """Three layers forward, and back into the nodes and whatever learns."""

    def call():
        hidden = nodes
        for layer in layers:
            hidden = layer(hidden, *edges)
        hidden.sum().backward()
        nodes.grad = None
        for layer in layers:
            layer.zero_grad()

    return call


class GatheredNGCF(MessagePassing):
    """NGCF as its equation 3 reads: a message of two linear maps for every edge."""

    def __init__(self, width):
        super().__init__()
        self.neighbour, self.product = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, nodes, edges, weight):
        received = self.propagate(edges, nodes=nodes, weight=weight)
        return F.leaky_relu(self.neighbour(nodes) + received, 0.2)

    def message(self, nodes_i, nodes_j, weight):
        linear = F.linear(nodes_j, self.neighbour.weight)
        return weight[:, None] * (linear + self.product(nodes_i * nodes_j))


class SummedNGCF(GatheredNGCF):
    """The same with neighbours gathered and added up first, and the linear maps per node."""

    def forward(self, nodes, edges, weight):
        summed = self.propagate(edges, nodes=nodes, weight=weight)
        return F.leaky_relu(self.neighbour(nodes + summed) + self.product(summed * nodes), 0.2)

    def message(self, nodes_j, weight):
        return weight[:, None] * nodes_j


class GatheredBiInteraction(MessagePassing):
    """KGAT's layer with neighbours gathered and added up by their attention."""

    def __init__(self, width):
        super().__init__()
        self.added, self.multiplied = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, nodes, edges, weight):
        summed = self.propagate(edges, nodes=nodes, weight=weight)
        added = F.leaky_relu(self.added(nodes + summed), 0.2)
        return added + F.leaky_relu(self.multiplied(nodes * summed), 0.2)

    def message(self, nodes_j, weight):
        return weight[:, None] * nodes_j


class BiInteraction(nn.Module):
    """KGAT's layer on the operator: one product, then the aggregator."""

    def __init__(self, width):
        super().__init__()
        self.aggregate = ek.graph.BiInteractionAggregator(width, width)

    def forward(self, nodes, adjacency):
        return self.aggregate(nodes, ek.graph.propagate(nodes, adjacency))


def lightgcn(nodes, adjacency, edges):
    """LightGCN on the operator, on edge lists, and on PyG's own sparse path."""
    size = len(nodes)
    index, weight = gcn_norm(edges, num_nodes=size, add_self_loops=False)
    matrix = ek.graph.to_torch_sparse(ek.graph.build_adjacency(index, weight, size, norm="none"))
    ours, theirs = [ek.graph.LightGCNConv()] * LAYERS, [LGConv()] * LAYERS
    cached = [LGConv(normalize=False)] * LAYERS
    return {
        "embedkit, adjacency": both_passes(ours, nodes, adjacency),
        "embedkit, edge_index": both_passes(ours, nodes, edges),
        "PyG LGConv, edge_index": both_passes(theirs, nodes, edges),
        "PyG LGConv, edge_index normalised before": both_passes(cached, nodes, index, weight),
        "PyG LGConv, torch.sparse matrix": both_passes(cached, nodes, matrix),
    }


def interactions(nodes, adjacency):
    """NGCF and KGAT's layer beside their gather-scatter forms.

    KGAT's operator holds attention, which differs both ways: here random numbers.
    """
    width = nodes.shape[1]
    index, weight = ek.graph.to_edge_index(adjacency)
    attention = ek.graph.reweight(adjacency, torch.rand_like(weight))

    def layers(kind):
        return [kind(width) for _ in range(LAYERS)]

    ngcf = [ek.graph.NGCFConv(width, width, dropout=0.0) for _ in range(LAYERS)]
    return {
        "NGCF": {
            "embedkit, adjacency": both_passes(ngcf, nodes, adjacency),
            "PyG, a message per edge": both_passes(layers(GatheredNGCF), nodes, index, weight),
            "PyG, sums, then linear maps": both_passes(layers(SummedNGCF), nodes, index, weight),
        },
        "KGAT, bi-interaction": {
            "embedkit, adjacency": both_passes(layers(BiInteraction), nodes, attention),
            "PyG, sums, then linear maps": both_passes(
                layers(GatheredBiInteraction), nodes, index, attention.value
            ),
        },
    }


def amazon_book():
    """Numbers of users and items, and the training clicks."""
    pair = clicks(folder("amazon-book") / "train.txt.gz")
    return int(pair[0].max()) + 1, 24_915, pair


def dagnn_peaks(repeats=5):
    """Peak memory of 10 hops of DAGNN, several times, in units of n x c."""
    users, items, pair = amazon_book()
    book = ek.graph.bipartite_adjacency(*pair, users, items)
    nodes = torch.randn(users + items, WIDTH)
    hops = ek.graph.DAGNNPropagation(WIDTH, num_hops=10)
    ctypes.CDLL(None).mallopt(-3, 1 << 20)  # blocks of 1 MiB go back at once: no fragments counted
    with torch.no_grad():
        peaks = [peak_bytes(lambda: hops(nodes, book)) for _ in range(repeats)]
    return [peak / (nodes.numel() * nodes.element_size()) for peak in peaks]


def dagnn():
    """Print DAGNN's memory, in a process of its own: an old heap gives back late, and counts."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        peaks = sorted(pool.submit(dagnn_peaks).result())
    rows = [["Amazon-book, width 64", f"{peaks[0]:.1f}", f"{peaks[len(peaks) // 2]:.1f}"]]
    header = ["graph", "least of 5 peaks / (n x c)", "median"]
    save("dagnn", "DAGNN, 10 hops, inference", header, rows, "cpu")


def main(repeats=5):
    """Print time and memory of every form, and ours over it; then DAGNN's memory."""
    torch.manual_seed(0)
    users, items, pair = amazon_book()
    book = ek.graph.bipartite_adjacency(*pair, users, items)
    both = ek.graph.to_edge_index(book)[0]
    nodes = torch.randn(users + items, WIDTH, requires_grad=True)
    tables = {"LightGCN, Amazon-book": lightgcn(nodes, book, both)}
    for name, calls in interactions(nodes, book).items():
        tables[f"{name}, Amazon-book"] = calls
    half = torch.randint(0, 400_000, (2, 5_000_000))
    large = torch.cat([half, half.flip(0)], dim=1)
    many = torch.randn(400_000, WIDTH, requires_grad=True)
    built = ek.graph.build_adjacency(large, None, 400_000)
    tables["LightGCN, 400,000 nodes, 10 M edges"] = lightgcn(many, built, large)
    rows = []
    for case, calls in tables.items():
        costs = compare(calls, repeats if len(rows) < 10 else 2)
        ours = costs["embedkit, adjacency"]
        for name, cost in costs.items():
            time, memory = cost.seconds / ours.seconds, cost.peak / ours.peak
            here = [f"{cost.seconds * 1e3:.0f}", mib(cost.peak), f"{time:.1f}", f"{memory:.1f}"]
            rows.append([case, name, *here])
    header = ["graph", "layers", "ms", "peak extra MiB", "its time / ours", "its memory / ours"]
    title = f"{LAYERS} layers of width {WIDTH}, both passes"
    save("propagation", title, header, rows, "cpu")
    dagnn()


if __name__ == "__main__":
    main()
