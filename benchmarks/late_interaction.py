"""MaxSim beside the maximum of a tensor (q, n, k, m): training steps and a search.

python benchmarks/late_interaction.py
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

import embedkit as ek
from embedkit.ops.late_interaction import max_sim
from embedkit.search.late_interaction import late_interaction_search

QUERY, DOCUMENT, WIDTH = 32, 128, 128  # tokens of a query, tokens of a document, their width


def dense(query, key):
    """The usual form: cosines of all pairs of tokens, then their maximum."""
    query, key = (torch.nn.functional.normalize(x, dim=-1) for x in (query, key))
    return torch.einsum("qnd,kmd->qknm", query, key).amax(dim=-1).sum(dim=-1)


def training(size):
    """Both passes of InfoNCE over a batch of pairs."""
    query = torch.randn(size, QUERY, WIDTH, requires_grad=True)
    key = torch.randn(size, DOCUMENT, WIDTH, requires_grad=True)
    positive = torch.eye(size, dtype=torch.bool)

    def step(score):
        similarity = score(query, key) / QUERY
        ek.losses.info_nce_from_similarity(similarity, positive, temperature=0.05).backward()
        query.grad = key.grad = None  # so that gradients count as memory of this call

    return {"dense": lambda: step(dense), "embedkit": lambda: step(max_sim)}


@torch.no_grad()
def searching(queries, documents):
    """Top 10 of a corpus whose documents have 16 to 128 tokens."""
    query, corpus = torch.randn(queries, QUERY, WIDTH), torch.randn(documents, DOCUMENT, WIDTH)
    lengths = torch.randint(16, DOCUMENT + 1, (documents,))
    mask = torch.arange(DOCUMENT) < lengths[:, None]
    packed, offsets = corpus[mask], torch.tensor([0, *lengths]).cumsum(0)
    return {
        "dense": lambda: torch.no_grad()(dense)(query, corpus).topk(10),
        "embedkit, padded": lambda: late_interaction_search(query, corpus, 10, corpus_mask=mask),
        "embedkit, packed": lambda: late_interaction_search(
            query, packed, 10, corpus_offsets=offsets
        ),
    }


def main(repeats=3):
    """Print time and memory of every form over the dense one."""
    torch.manual_seed(0)
    rows = []
    for what, calls in (
        ("training, 32 pairs", training(32)),
        ("training, 96 pairs", training(96)),
        ("search, 8 queries, 4,000 documents", searching(8, 4000)),
    ):
        costs = compare(calls, repeats)
        for name, cost in costs.items():
            rival = costs["dense"]
            rows.append(
                [
                    what,
                    name,
                    f"{cost.seconds * 1e3:.0f}",
                    mib(cost.peak),
                    f"{cost.seconds / rival.seconds:.2f}",
                    f"{cost.peak / rival.peak:.3f}",
                ]
            )
    header = ["work", "form", "ms", "peak extra MiB", "time / dense", "memory / dense"]
    title = f"MaxSim, {QUERY} query tokens, {DOCUMENT} document tokens, width {WIDTH}, float32"
    save("late_interaction", title, header, rows, "cpu")


if __name__ == "__main__":
    main()
