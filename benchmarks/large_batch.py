"""Large batches on one machine: loss memory and time, GradientCache, gathering on two processes.

python benchmarks/large_batch.py [--largest 65536]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, peak_bytes, save

import embedkit as ek

WIDTH = 256


def loss_alone(size):
    """Seconds and peak extra bytes of one forward and backward."""
    query, key = (torch.randn(size, WIDTH, requires_grad=True) for _ in range(2))

    def step():
        ek.losses.info_nce(query, key).backward()
        query.grad = key.grad = None  # so that gradients count as memory of this call

    peak = peak_bytes(step)
    start = time.perf_counter()
    step()
    return time.perf_counter() - start, peak


def in_a_process(size):
    """The same in a process of its own: what earlier sizes left in memory doesn't count."""
    command = [sys.executable, __file__, "--one", str(size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def growth(largest):
    """The loss alone, up to batches whose full matrix takes 16 GiB."""
    rows, points = [], []
    size = 4096
    while size <= largest:
        seconds, peak = in_a_process(size)
        points.append((size, peak))
        rows.append([str(size), f"{seconds:.2f}", mib(peak), mib(4 * size * size)])
        size *= 2
    header = ["B", "s", "peak extra MiB", "one B x B matrix, MiB"]
    save("large_batch", f"InfoNCE of B pairs, width {WIDTH}, both passes", header, rows, "cpu")
    return points


def draw(points):
    """Memory against B, with the line through the origin and the last point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes, peaks = zip(*points, strict=True)
    _, axes = plt.subplots(figsize=(6, 4))
    axes.plot(sizes, [p / 2**20 for p in peaks], "o-", label="embedkit, both passes")
    matrix = [4 * s * s / 2**20 for s in sizes]
    axes.plot(sizes, matrix, "--", label="one B x B float32 matrix")
    axes.set(xscale="log", yscale="log", xlabel="pairs in the batch B", ylabel="peak extra MiB")
    axes.set_xticks(sizes, [str(s) for s in sizes])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False)
    path = Path(__file__).parents[1] / "docs" / "assets" / "large_batch.png"
    axes.figure.savefig(path, dpi=120, bbox_inches="tight")


def encoder():
    return nn.Sequential(
        *(layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.GELU())),
        nn.Linear(512, WIDTH),
    )


def caching():
    """GradientCache against the plain step: time, and memory as the batch grows."""
    rows = []
    for size in (1024, 2048, 4096, 8192):
        torch.manual_seed(0)
        towers = [encoder(), encoder()]
        query, key = torch.randn(size, 512), torch.randn(size, 512)
        loss = ek.losses.InfoNCELoss()
        cache = ek.batch.GradientCache(towers, loss, chunk_size=256)

        def plain(towers=towers, query=query, key=key, loss=loss):
            for tower in towers:
                tower.zero_grad()
            loss(towers[0](query), towers[1](key)).backward()

        def cached(towers=towers, query=query, key=key, cache=cache):
            for tower in towers:
                tower.zero_grad()
            cache.step(query, key)

        costs = compare({"plain": plain, "cached": cached}, repeats=5)
        p, c = costs["plain"], costs["cached"]
        rows.append(
            [
                str(size),
                f"{p.seconds * 1e3:.0f}",
                f"{c.seconds * 1e3:.0f}",
                f"{c.seconds / p.seconds:.2f}",
                mib(p.peak),
                mib(c.peak),
            ]
        )
    header = ["B", "plain ms", "cached ms", "cached / plain", "plain MiB", "cached MiB"]
    title = "GradientCache, two towers of five linear layers, chunks of 256, one step"
    save("gradient_cache", title, header, rows, "cpu")


def on_a_rank(rank, store, size, results):
    """Local rows against gathered columns, and the whole matrix on every rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    torch.manual_seed(rank)
    query, key = (torch.randn(size, WIDTH, requires_grad=True) for _ in range(2))
    target = torch.arange(2 * size)

    def backward(loss):
        loss.backward()
        query.grad = key.grad = None

    def ours():
        backward(ek.losses.info_nce(query, key, gather=True))

    def ring():
        backward(ek.losses.ring_info_nce(query, key))

    def whole():
        left, right = ek.ops.gather_rows(query), ek.ops.gather_rows(key)
        logits = F.normalize(left) @ F.normalize(right).T / 0.05
        backward(F.cross_entropy(logits, target))

    calls = {"gather=True": ours, "ring_info_nce": ring, "whole matrix on every rank": whole}
    for name, cost in compare(calls, repeats=3).items():
        if rank == 0:
            results.put([str(2 * size), name, f"{cost.seconds * 1e3:.0f}", mib(cost.peak)])
    dist.destroy_process_group()


def gathering():
    """Two gloo processes, one thread each."""
    rows = []
    for size in (2048, 4096):
        with tempfile.TemporaryDirectory() as folder:
            results = mp.get_context("spawn").SimpleQueue()
            mp.spawn(on_a_rank, (f"{folder}/store", size, results), nprocs=2)
            while not results.empty():
                rows.append(results.get())
    header = ["pairs in all", "scheme", "ms", "peak extra MiB per rank"]
    save("gathering", f"InfoNCE on two processes, width {WIDTH}, both passes", header, rows, "cpu")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=65536)
    parser.add_argument("--one", type=int)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(loss_alone(options.one)))
    else:
        draw(growth(options.largest))
        caching()
        gathering()
