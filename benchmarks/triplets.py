"""Semi-hard triplets and all triplets, B rows of width 128, beside pytorch-metric-learning.

python benchmarks/triplets.py
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

import embedkit as ek


def rivals(x, labels):
    """Mining and loss, both passes, ours and theirs; theirs only where it fits."""
    from pytorch_metric_learning import distances, losses, miners

    def backward(loss):
        loss.backward()
        x.grad = None  # so that gradients count as memory of this call

    squared = distances.LpDistance(power=2)
    miner = miners.TripletMarginMiner(0.2, type_of_triplets="semihard", distance=squared)
    theirs = losses.TripletMarginLoss(margin=0.2, distance=squared)
    return {
        "embedkit, semi-hard": lambda: backward(
            ek.losses.triplet_loss(x, ek.mining.semihard_triplets(x, labels))
        ),
        "pytorch-metric-learning, semi-hard": lambda: backward(theirs(x, labels, miner(x, labels))),
        "embedkit, all triplets": lambda: backward(ek.losses.batch_all_triplet_loss(x, labels)),
        "pytorch-metric-learning, all triplets": lambda: backward(theirs(x, labels)),
    }


def main(repeats=3):
    """Print time and memory of every rival over ours."""
    rows = []
    for size, per_class in ((512, 4), (2048, 4), (2048, 8)):
        torch.manual_seed(0)
        x = torch.randn(size, 128, requires_grad=True)
        costs = compare(rivals(x, torch.arange(size) // per_class), repeats)
        for name, cost in costs.items():
            ours = costs["embedkit, " + name.split(", ")[1]]
            rows.append(
                [
                    f"{size}, {per_class} per class",
                    name,
                    f"{cost.seconds * 1e3:.1f}",
                    mib(cost.peak),
                    f"{ours.seconds / cost.seconds:.3f}",
                    f"{ours.peak / max(cost.peak, 1):.3f}",
                ]
            )
    header = ["B", "triplets", "ms", "peak extra MiB", "ours / its time", "ours / its memory"]
    save("triplets", "Triplets, width 128, mining and both passes", header, rows, "cpu")


if __name__ == "__main__":
    main()
