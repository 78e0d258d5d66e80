"""Searches in quantised corpora beside the exact search in float32: time, memory, recall.

python benchmarks/quantized.py
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

import embedkit as ek
from embedkit.search.binary import hamming_search, quantize_binary
from embedkit.search.quantized import quantize_int8, quantized_search

ROWS, WIDTH, QUERIES, K = 100_000, 256, 100, 10


def data(kind):
    """Corpus and queries: without structure, or around 1,000 centres, a spread of half theirs."""
    if kind == "random":
        return torch.randn(ROWS, WIDTH), torch.randn(QUERIES, WIDTH)
    centre = torch.randn(1000, WIDTH)
    chosen = torch.randint(1000, (ROWS + QUERIES,))
    both = centre[chosen] + 0.5 * torch.randn(ROWS + QUERIES, WIDTH)
    return both[:ROWS], both[ROWS:]


def searches(corpus, query):
    """Every way to search, and the bytes that it reads."""
    rows, codes, own = quantize_int8(corpus), quantize_binary(corpus), quantize_binary(query)
    full, byte, bit = corpus.nbytes, rows.codes.nbytes + rows.scale.nbytes, codes.nbytes
    return {
        "float32, exact": (full, lambda: ek.search.exact_search(query, corpus, K)),
        "int8": (byte, lambda: quantized_search(query, rows, K)),
        "binary, Hamming": (bit, lambda: hamming_search(own, codes, K)),
        "binary": (bit, lambda: quantized_search(query, codes, K)),
        "binary, rescored by int8": (
            bit + byte,
            lambda: quantized_search(query, codes, K, rescore=rows),
        ),
        "binary, rescored by float32": (
            bit + full,
            lambda: quantized_search(query, codes, K, rescore=corpus),
        ),
        "binary, shortlist of 500, by int8": (
            bit + byte,
            lambda: quantized_search(query, codes, K, rescore=rows, shortlist=50),
        ),
    }


def main(repeats=3):
    """Print one table for both kinds of data."""
    table = []
    for kind in ("random", "clustered"):
        torch.manual_seed(0)
        calls = searches(*data(kind))
        truth = calls["float32, exact"][1]().index
        costs = compare({name: call for name, (_, call) in calls.items()}, repeats)
        for name, cost in costs.items():
            index = calls[name][1]().index
            hits = (index[:, :, None] == truth[:, None]).any(dim=2).float().mean()
            table.append(
                [
                    kind,
                    name,
                    f"{calls[name][0] / 2**20:.1f}",
                    f"{float(hits):.3f}",
                    f"{cost.seconds * 1e3:.0f}",
                    mib(cost.peak),
                ]
            )
    header = ["data", "corpus", "corpus MiB", f"recall@{K}", "ms", "peak extra MiB"]
    title = f"{QUERIES} queries, {ROWS:,} rows of width {WIDTH}"
    save("quantized", title, header, table, "cpu")


if __name__ == "__main__":
    main()
