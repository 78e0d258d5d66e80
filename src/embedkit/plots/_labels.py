"""What all curves share: marks, a plain frame, and names at the right end of their lines."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

MARKERS = "osD^vP"
INK = "#555555"
DASHES = (0, (4, 3))
_SIZE = 9.0


def framed(ax: Axes | None) -> Axes:
    """``ax``, or one of a figure of its own outside pyplot, without its upper and right border."""
    if ax is None:
        ax = Figure(figsize=(6.4, 3.8), dpi=150, layout="constrained").add_subplot()
    ax.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def name_lines(ax: Axes, labels: Sequence[tuple[str, float, Any]]) -> None:
    """Write (text, height, colour) beside the Axes, moved as little as it takes to be read."""
    low, high = ax.get_ylim()
    gap = 1.35 * _SIZE / 72 / (ax.bbox.height / ax.figure.dpi) * (high - low)
    heights = [0.0 if math.isnan(height) else height for _, height, _ in labels]
    places = _apart(heights, gap, low, high)
    for (text, _, color), place in zip(labels, places, strict=True):
        ax.annotate(
            text,
            xy=(1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=_SIZE,
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights moved as little as it takes to lie ``gap`` apart, if possible in [low, high]."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    groups: list[list[float]] = []  # of labels that touch: [centre, how many]
    for i in order:
        groups.append([min(max(heights[i], low), high), 1])
        while len(groups) > 1:
            (below, m), (above, n) = groups[-2:]
            if above - below >= gap * (m + n) / 2:
                break
            size = m + n
            centre = (below * m + above * n) / size
            reach = gap * (size - 1) / 2
            groups[-2:] = [[max(min(centre, high - reach), low + reach), size]]
    placed = [c + gap * (j - (size - 1) / 2) for c, size in groups for j in range(int(size))]
    return [place for _, place in sorted(zip(order, placed, strict=True))]
