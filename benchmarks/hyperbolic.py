"""All pairs of hyperbolic distances, both passes, beside geoopt's; the error of the forms.

python benchmarks/hyperbolic.py
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _measure import compare, mib, save

from embedkit.geometry import poincare

ASSET = Path(__file__).parents[1] / "docs" / "assets" / "hyperbolic_error.png"


def rivals(x, y, theirs=True):
    """The calls, both passes; geoopt's only where its n x m x d tensors fit."""

    def backward(distance):
        distance.sum().backward()
        x.grad = y.grad = None  # so that gradients count as memory of this call

    calls = {
        "embedkit, pairwise_distance": lambda: backward(poincare.pairwise_distance(x, y)),
        "embedkit, tangent_distance": lambda: backward(poincare.tangent_distance(x, y)),
    }
    if theirs:
        import geoopt

        rival = geoopt.PoincareBall()
        calls["geoopt, broadcast"] = lambda: backward(rival.dist(x[:, None], y))
    return calls


def speed(size=2048, dim=64, repeats=3):
    torch.manual_seed(0)
    x, y = (torch.randn(size, dim) for _ in range(2))
    x, y = (poincare.expmap0(t / t.norm(dim=1, keepdim=True)).requires_grad_() for t in (x, y))
    costs = compare(rivals(x, y), repeats)
    rival = costs["geoopt, broadcast"]
    rows = [
        [
            name,
            f"{cost.seconds * 1e3:.0f}",
            mib(cost.peak),
            f"{rival.seconds / cost.seconds:.1f}",
            f"{rival.peak / max(cost.peak, 1):.1f}",
        ]
        for name, cost in costs.items()
    ]
    header = ["form", "ms", "peak extra MiB", "times faster", "times less memory"]
    save("hyperbolic", f"All pairs {size} x {size}, width {dim}, both passes", header, rows, "cpu")


def gram(x, y):
    """The plain Gram form in float32, for its error."""
    gap = [1 - t.square().sum(1) for t in (x, y)]
    squared = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)
    return 2 * (squared / (gap[0][:, None] * gap[1])).sqrt().asinh()


def broadcast(x, y):
    import geoopt

    return geoopt.PoincareBall().dist(x[:, None], y)


def from_logarithms(x, y):
    return poincare.tangent_distance(poincare.logmap0(x), poincare.logmap0(y))


FORMS = {
    "pairwise_distance": poincare.pairwise_distance,
    "tangent_distance of logmap0": from_logarithms,
    "geoopt": broadcast,
    "plain Gram form": gram,
}


def truth(x, y):
    """float64 distances of float32 rows from their differences: right to ten digits here."""
    return poincare.distance(x.double()[:, None], y.double())


def errors(radii, count=64, dim=32):
    """Largest relative error of each form in float32, against radius, of near and far pairs.

    Near: the same points, one ten-thousandth of their length apart in a random direction.
    """
    torch.manual_seed(0)
    result = {name: {"far": [], "near": []} for name in FORMS}
    for radius in radii:
        v = torch.randn(2, count, dim)
        v = v / v.norm(dim=-1, keepdim=True)
        x, far = poincare.expmap0(v * radius / 2)
        step = torch.randn(count, dim) * 1e-4 / dim**0.5 * x.norm(dim=1, keepdim=True)
        near = poincare.project(x + step)
        for kind, y in (("far", far), ("near", near)):
            want = truth(x, y)
            for name, form in FORMS.items():
                error = (form(x, y).double() - want).abs() / want
                error = error if kind == "far" else error.diagonal()
                result[name][kind].append(float(error.nan_to_num(nan=torch.inf).max()))
    return result


def draw(path=ASSET):
    """Error against radius: far pairs left, near pairs right."""
    from matplotlib.figure import Figure

    radii = [0.1, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    found = errors(radii)
    figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, kind in zip(axes, ("far", "near"), strict=True):
        for marker, (name, values) in zip("os^v", found.items(), strict=True):
            shown = [min(max(value, 1e-9), 1e6) for value in values[kind]]
            ax.plot(radii, shown, marker=marker, markersize=4, label=name)
        ax.axhline(1e-5, color="#555555", linestyle=(0, (4, 3)), linewidth=1)
        ax.set_yscale("log")
        ax.set_xlabel("hyperbolic radius of the points")
        ax.set_title(f"{kind} pairs")
        ax.grid(color="#e5e5e5", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("largest relative error, float32")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)
    return found


def main(repeats=3):
    """Print time and memory, and draw the error plot."""
    for name, kinds in draw().items():
        print(name, {kind: [f"{e:.1e}" for e in values] for kind, values in kinds.items()})
    speed(repeats=repeats)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
