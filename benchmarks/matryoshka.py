"""Matryoshka InfoNCE over 64, 128, 256, 512 and 768 entries: fused widths beside five losses.

python benchmarks/matryoshka.py [--device cuda] [--largest 8192]
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

import embedkit as ek

DIMS = [64, 128, 256, 512, 768]


def rivals(query, key):
    """The sum of five dense losses, one dense full-width loss, and ours."""
    target = torch.arange(len(query), device=query.device)
    fused = ek.losses.MatryoshkaLoss(ek.losses.InfoNCELoss(temperature=0.05), DIMS)

    def backward(loss):
        loss.backward()
        query.grad = key.grad = None  # so that gradients count as memory of this call

    def dense(width):
        unit = F.normalize(query[:, :width]) @ F.normalize(key[:, :width]).T
        return F.cross_entropy(unit.float() / 0.05, target)

    return {
        "embedkit, five widths": lambda: backward(fused(query, key)),
        "sum of five dense losses": lambda: backward(sum(dense(d) for d in DIMS)),
        "one dense loss, full width": lambda: backward(dense(DIMS[-1])),
    }


def main(device="cpu", largest=8192, repeats=3):
    """Print time and memory of every rival over ours."""
    rows = []
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    for size in (s for s in (1024, 2048, 4096, 8192, 16384) if s <= largest):
        torch.manual_seed(0)
        query, key = (
            torch.randn(size, DIMS[-1], device=device, dtype=dtype).requires_grad_()
            for _ in range(2)
        )
        costs = compare(rivals(query, key), repeats if size > 4096 else 3 * repeats, device)
        ours = costs["embedkit, five widths"]
        for name, cost in costs.items():
            rows.append(
                [
                    str(size),
                    name,
                    f"{cost.seconds * 1e3:.1f}",
                    mib(cost.peak),
                    f"{ours.seconds / cost.seconds:.2f}",
                    f"{ours.peak / max(cost.peak, 1):.3f}",
                ]
            )
    header = ["B", "loss", "ms", "peak extra MiB", "ours / its time", "ours / its memory"]
    title = f"Matryoshka InfoNCE, widths {DIMS}, {str(dtype).split('.')[1]}, forward and backward"
    save("matryoshka", title, header, rows, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--largest", type=int, default=8192)
    options = parser.parse_args()
    main(options.device, options.largest)
