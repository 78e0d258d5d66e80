"""How much of a graph embeddings rebuild: mAP against hops."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes

from embedkit.plots._labels import DASHES, INK, MARKERS, framed, name_lines


def _check(
    hops: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    chance: Sequence[float] | None,
    error: Mapping[str, Sequence[float]],
) -> None:
    if not hops or any(a >= b for a, b in pairwise(hops)) or hops[0] < 1:
        raise ValueError(
            "reconstruction_curve: hops must be 1 or more and in increasing order, got "
            f"{list(hops)}"
        )
    if not scores:
        raise ValueError(
            "reconstruction_curve: scores must name an embedder or more, got none. "
            'Pass {"HOPE": [0.97, 0.94, 0.91]}, one mAP per hop.'
        )
    if set(error) - set(scores):
        raise ValueError(f"reconstruction_curve: error names {sorted(set(error) - set(scores))}")
    named = [("scores", n, v) for n, v in scores.items()] + [
        ("error", n, v) for n, v in error.items()
    ]
    for what, name, values in [*named, *([("chance", "", chance)] if chance is not None else [])]:
        where = f"{what}[{name!r}]" if name else what
        if len(values) != len(hops):
            raise ValueError(
                f"reconstruction_curve: {where} needs one number for each of the {len(hops)} hops, "
                f"got {len(values)}"
            )
        if any(math.isinf(value) for value in values):
            raise ValueError(f"reconstruction_curve: {where} holds infinity: {list(values)}")


def reconstruction_curve(
    hops: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    *,
    chance: Sequence[float] | None = None,
    error: Mapping[str, Sequence[float]] | None = None,
    ylabel: str = "mAP",
    ax: Axes | None = None,
) -> Axes:
    """Draw mAP against hops, one line per embedder, over what a random order has.

    The area below chance is shaded, because mAP is only comparable between hops and graphs beside
    it, and every line carries its name and last value at its right end. A NaN, which
    :func:`embedkit.analysis.reconstruction_metrics` gives for a hop that no node is at, is a gap.

    Args:
        hops: in increasing order.
        scores: name -> one mAP per hop.
        chance: one per hop, of the same report.
        error: name -> one half-length of an error bar per hop.
        ylabel: name of the score axis, which runs from 0 to 1.
        ax: where to draw; None makes a figure of its own, outside pyplot. The names stand to the
            right of the Axes, so give its figure ``layout="constrained"``.

    Returns:
        The Axes; ``ax.figure.savefig("curve.png")`` writes it.

    Raises:
        ValueError: for hops that do not increase, no scores, a number of values that differs from
            the number of hops, infinity, or an error of an embedder that has no scores.

    Source: Yip 2023, RESTORE: Graph Embedding Assessment Through Reconstruction, mAP at k hops.

    >>> ax = reconstruction_curve([1, 2], {"HOPE": [0.97, 0.94]}, chance=[0.22, 0.60])
    >>> ax.figure.savefig("/dev/null", format="png")
    """
    error = error or {}
    _check(hops, scores, chance, error)
    ax = framed(ax)
    ax.set_ylim(0.0, 1.02)
    ax.set_xlim(hops[0] - 0.15, hops[-1] + 0.15)
    ax.set_xticks(list(hops), [str(hop) for hop in hops])
    ax.set_xlabel("hops")
    ax.set_ylabel(ylabel)

    labels = []
    for i, (name, values) in enumerate(scores.items()):
        drawn = ax.errorbar(
            hops,
            values,
            yerr=error.get(name),
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            linewidth=2,
            elinewidth=1,
            capsize=2,
        )
        labels.append((f"{name}  {values[-1]:.3f}", values[-1], drawn.lines[0].get_color()))
    if chance is not None:
        ax.fill_between(hops, 0.0, chance, color=INK, alpha=0.08, linewidth=0)
        ax.plot(hops, chance, color=INK, linestyle=DASHES, linewidth=1.2)
        labels.append((f"chance  {chance[-1]:.3f}", chance[-1], INK))

    name_lines(ax, labels)
    return ax
