"""Peak memory of InfoNCE against the batch: ours is a line, the matrix a parabola.

python benchmarks/memory.py
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from _measure import machine, mib, peak_bytes, save

import embedkit as ek

SIZES = (1024, 2048, 4096, 8192, 16384, 32768)
PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "memory.png"


def measure(size):
    """Extra bytes of one training step of the loss: ours, and the full matrix up to 16,384 rows."""
    query, key = (torch.randn(size, 256).requires_grad_() for _ in range(2))

    def ours():
        ek.losses.info_nce(query, key).backward()

    def dense():
        unit = F.normalize(query) @ F.normalize(key).T
        F.cross_entropy(unit / 0.05, torch.arange(size)).backward()

    query.grad, key.grad = torch.zeros_like(query), torch.zeros_like(key)
    return peak_bytes(ours), peak_bytes(dense) if size <= 16384 else None


def main():
    """Measure, print, keep and draw."""
    torch.manual_seed(0)
    measure(256)  # what is loaded at the first call is not the loss's memory
    costs = {size: measure(size) for size in SIZES}
    rows = [[str(s), mib(o), "" if d is None else mib(d)] for s, (o, d) in costs.items()]
    title = "Peak extra memory of InfoNCE, width 256, forward and backward (MiB)"
    save("memory", title, ["B", "embedkit", "full matrix"], rows, "cpu")
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    dense = {s: d for s, (_, d) in costs.items() if d is not None}
    axes.loglog([*dense], [d / 2**20 for d in dense.values()], "o--", color="0.5", base=2)
    axes.loglog([*costs], [o / 2**20 for o, _ in costs.values()], "o-", color="#1f6feb", base=2)
    axes.annotate(
        "full matrix", (16384, dense[16384] / 2**20), (-66, -2), textcoords="offset points"
    )
    axes.annotate(
        "embedkit", (32768, costs[32768][0] / 2**20), (-58, 6), textcoords="offset points"
    )
    axes.set(xlabel="batch size", ylabel="peak extra memory, MiB", title=machine())
    axes.title.set_size(8)
    axes.set_xticks(SIZES, [f"{s:,}" for s in SIZES])
    axes.grid(alpha=0.3)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    main()
