"""Latent attention pooling beside torch's MultiheadAttention of the same sizes, both passes.

python benchmarks/latent_attention.py
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import gelu

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

import embedkit as ek

LATENTS, HEADS = 512, 8


class Rival(nn.Module):
    """The attention part from torch's own module, and the same feed-forward and mean behind it."""

    def __init__(self, dim):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(LATENTS, dim))
        self.attention = nn.MultiheadAttention(dim, HEADS, bias=False, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.expand, self.contract = nn.Linear(dim, 8 * dim), nn.Linear(4 * dim, dim)

    def attend(self, tokens):
        latents = self.norms[1](self.latents).expand(tokens.shape[0], -1, -1)
        return self.attention(self.norms[0](tokens), latents, latents, need_weights=False)[0]

    def forward(self, tokens):
        tokens = tokens + self.attend(tokens)
        value, gate = self.expand(self.norms[2](tokens)).chunk(2, dim=-1)
        return (tokens + self.contract(value * gelu(gate))).mean(dim=1)


def main(repeats=5):
    """Print time and memory over those of the rival."""
    rows = []
    for batch, length, dim in ((16, 128, 768), (16, 512, 768)):
        torch.manual_seed(0)
        tokens = torch.randn(batch, length, dim, requires_grad=True)
        ours, theirs = ek.pooling.LatentAttentionPool(dim, LATENTS, HEADS), Rival(dim)

        def backward(result, tokens=tokens, models=(ours, theirs)):
            result.sum().backward()
            tokens.grad = None
            for model in models:
                model.zero_grad()

        calls = {
            "attention part": (
                lambda x=tokens, m=ours: backward(m._attend(x)),
                lambda x=tokens, m=theirs: backward(m.attend(x)),
            ),
            "whole pool": (
                lambda x=tokens, m=ours: backward(m(x)),
                lambda x=tokens, m=theirs: backward(m(x)),
            ),
        }
        for part, (mine, other) in calls.items():
            costs = compare({"ours": mine, "rival": other}, repeats)
            a, b = costs["ours"], costs["rival"]
            rows.append(
                [
                    f"{batch} x {length} x {dim}",
                    part,
                    f"{a.seconds * 1e3:.0f}",
                    f"{b.seconds * 1e3:.0f}",
                    f"{a.seconds / b.seconds:.2f}",
                    mib(a.peak),
                    mib(b.peak),
                ]
            )
    header = ["tokens", "", "ms", "MultiheadAttention ms", "ratio", "peak extra MiB", "its MiB"]
    title = f"Latent attention, {LATENTS} latents, {HEADS} heads, both passes, float32"
    save("latent_attention", title, header, rows, "cpu")


if __name__ == "__main__":
    main()
