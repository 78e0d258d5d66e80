"""InfoNCE of B pairs, width 256, forward and backward: embedkit beside the dense formulations.

python benchmarks/info_nce.py [--device cuda] [--largest 16384]
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

import embedkit as ek


def rivals(query, key):
    """Each rival's loss as a function of nothing, on the same leaves."""
    target = torch.arange(len(query), device=query.device)

    def backward(loss):
        loss.backward()
        query.grad = key.grad = None  # so that gradients count as memory of this call

    def dense():
        unit = F.normalize(query) @ F.normalize(key).T
        backward(F.cross_entropy(unit.float() / 0.05, target))

    calls = {
        "embedkit": lambda: backward(ek.losses.info_nce(query, key, temperature=0.05)),
        "cross_entropy on the full matrix": dense,
    }
    if query.is_cuda:
        return calls
    try:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    except ImportError:
        print("sentence-transformers is not installed: left out", file=sys.stderr)
    else:
        peer = MultipleNegativesRankingLoss(None, scale=20.0)
        calls["sentence-transformers"] = lambda: backward(
            peer.compute_loss_from_embeddings([query, key], None)
        )
    try:
        from pytorch_metric_learning.losses import NTXentLoss
    except ImportError:
        print("pytorch-metric-learning is not installed: left out", file=sys.stderr)
    else:
        if len(query) <= 256:  # it builds (2B)^3 entries: one mask of 34 GB at B = 1024
            ntxent, labels = NTXentLoss(temperature=0.05), target.repeat(2)
            calls["pytorch-metric-learning (2B rows)"] = lambda: backward(
                ntxent(torch.cat([query, key]), labels)
            )
    return calls


def main(device="cpu", largest=16384, repeats=3):
    """Print time and memory of every rival over ours."""
    rows = []
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    sizes = (4096, 8192, 16384, 32768) if device == "cuda" else (256, 1024, 2048, 4096, 8192, 16384)
    for size in (s for s in sizes if s <= largest):
        torch.manual_seed(0)
        query, key = (
            torch.randn(size, 256, device=device, dtype=dtype).requires_grad_() for _ in range(2)
        )
        costs = compare(rivals(query, key), repeats if size > 4096 else 3 * repeats, device)
        ours = costs["embedkit"]
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
    title = f"InfoNCE, width 256, {str(dtype).split('.')[1]}, forward and backward"
    save("info_nce", title, header, rows, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--largest", type=int, default=16384)
    options = parser.parse_args()
    main(options.device, max(options.largest, 32768 if options.device == "cuda" else 0))
