"""Fixed prototypes beside a dense cross-entropy, Matryoshka logits beside a layer for each width.

python benchmarks/classifiers.py
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

import embedkit as ek

WIDTHS = [8, 16, 32, 64, 128, 256, 512, 1024, 2048]


def prototypes(rows, entries, width):
    """Both passes of a cross-entropy against vectors that never learn."""
    x = torch.randn(rows, width, requires_grad=True)
    vectors, target = torch.randn(entries, width), torch.randint(0, entries, (rows,))

    def backward(loss):
        loss.backward()
        x.grad = None  # so that gradients count as memory of this call

    return {
        "embedkit": lambda: backward(ek.losses.prototype_cross_entropy(x, vectors, target)),
        "F.cross_entropy(x @ prototypes.T, target)": lambda: backward(
            F.cross_entropy(x @ vectors.T, target)
        ),
    }


def classifiers(rows=256, classes=1000):
    """Both passes of classifiers over nine widths, and of one layer of the whole width."""
    x, target = torch.randn(rows, WIDTHS[-1]), torch.randint(0, classes, (rows,))
    shared = ek.heads.MatryoshkaClassifier(WIDTHS[-1], classes, WIDTHS, shared=True)
    each = nn.ModuleList(nn.Linear(width, classes) for width in WIDTHS)
    whole = nn.Linear(WIDTHS[-1], classes)
    loss = ek.losses.MatryoshkaCrossEntropyLoss()

    def backward(value, module):
        value.backward()
        module.zero_grad()

    def separately():
        losses = [F.cross_entropy(layer(x[:, : layer.in_features]), target) for layer in each]
        backward(torch.stack(losses).sum(), each)

    return {
        "embedkit, shared=True": lambda: backward(loss(shared(x), target), shared),
        "a layer for each width": separately,
        "one layer of the whole width": lambda: backward(F.cross_entropy(whole(x), target), whole),
    }


def main(repeats=7):
    """Print time and memory of every rival, and ours over it."""
    torch.manual_seed(0)
    cases = {
        f"fixed prototypes, {r} x {e:,} x {d}": prototypes(r, e, d)
        for r, e, d in ((32, 100_000, 768), (256, 100_000, 256))
    }
    cases["256 rows, 1,000 classes, 9 widths to 2048"] = classifiers()
    rows = []
    for case, calls in cases.items():
        costs = compare(calls, repeats)
        ours = next(iter(costs.values()))
        for name, cost in costs.items():
            time, memory = ours.seconds / cost.seconds, ours.peak / max(cost.peak, 1)
            here = [f"{cost.seconds * 1e3:.1f}", mib(cost.peak), f"{time:.2f}", f"{memory:.2f}"]
            rows.append([case, name, *here])
    header = ["rows x entries x width", "call", "ms", "peak extra MiB"]
    header += ["ours / its time", "ours / its memory"]
    save("classifiers", "Classifiers of many classes, both passes", header, rows, "cpu")


if __name__ == "__main__":
    main()
