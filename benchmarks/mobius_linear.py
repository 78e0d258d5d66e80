"""Linear layers of the Poincaré ball beside nn.Linear, both passes.

python benchmarks/mobius_linear.py
"""

import importlib

import torch
from _measure import compare, mib, save
from torch import nn

import embedkit as ek
from embedkit.geometry import poincare

ROWS, WIDTH = 8192, 512


def both_passes(layer, x):
    """Forward, and back into points and parameters."""

    def call():
        layer(x).sum().backward()
        x.grad = None
        layer.zero_grad()

    return call


class Composed(nn.Module):
    """The same mathematics from geoopt's operations, as HGCN's layer is written."""

    def __init__(self, width):
        super().__init__()
        self.ball = importlib.import_module("geoopt").PoincareBall()
        self.weight, self.bias = nn.Linear(width, width).parameters()

    def forward(self, x):
        moved = self.ball.mobius_matvec(self.weight, x)
        return self.ball.mobius_add(moved, self.ball.expmap0(self.bias))


def main(repeats=7):
    """Print the time of every layer, and over that of nn.Linear, compiled as well."""
    torch.manual_seed(0)
    x = poincare.expmap0(torch.randn(ROWS, WIDTH) / WIDTH**0.5).requires_grad_()
    layers = {
        "nn.Linear": nn.Linear(WIDTH, WIDTH),
        "embedkit, MobiusLinear": ek.heads.MobiusLinear(WIDTH, WIDTH),
        "embedkit, PoincareLinear": ek.heads.PoincareLinear(WIDTH, WIDTH),
        "geoopt, mobius_matvec and mobius_add": Composed(WIDTH),
    }
    calls = {
        f"{name}, compiled": both_passes(torch.compile(layer), x) for name, layer in layers.items()
    }
    calls |= {f"{name}, as it is": both_passes(layer, x) for name, layer in layers.items()}
    for call in calls.values():
        call()  # compiles
    costs = compare(calls, repeats)
    linear = costs["nn.Linear, compiled"]
    rows = [
        [name, f"{c.seconds * 1e3:.0f}", mib(c.peak), f"{c.seconds / linear.seconds:.2f}"]
        for name, c in costs.items()
    ]
    header = ["layer", "ms", "peak extra MiB", "its time / nn.Linear"]
    title = f"Linear layers, {ROWS} rows of width {WIDTH}, both passes"
    save("mobius_linear", title, header, rows, "cpu")


if __name__ == "__main__":
    main()
