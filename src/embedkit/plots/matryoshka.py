"""What a narrower embedding costs: scores against width."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from embedkit._checks import check_widths
from embedkit.plots._labels import DASHES, INK, MARKERS, framed, name_lines


def _check(
    dims: Sequence[int], scores: Mapping[str, Sequence[float]], baseline: Mapping[str, float]
) -> None:
    check_widths("matryoshka_curve", dims)
    if not scores:
        raise ValueError(
            "matryoshka_curve: scores must name a curve or more, got none. "
            'Pass {"recall@10": [0.52, 0.60]}, one number per width.'
        )
    for name, values in scores.items():
        if len(values) != len(dims):
            raise ValueError(
                f"matryoshka_curve: scores[{name!r}] needs one number for each of the "
                f"{len(dims)} widths, got {len(values)}"
            )
    for name, values in [*scores.items(), *((n, [v]) for n, v in baseline.items())]:
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"matryoshka_curve: {name!r} must be finite, got {list(values)}")


def matryoshka_curve(
    dims: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    *,
    baseline: Mapping[str, float] | None = None,
    ylabel: str = "score",
    ax: Axes | None = None,
) -> Axes:
    """Draw scores against the width embeddings are cut to, one line per score.

    The width axis is logarithmic with a tick at each width, the score axis starts at 0 (below it
    where a score is negative), and every line carries its name and last value at its right end.

    Args:
        dims: widths in increasing order.
        scores: name -> one score per width, e.g. ``{"recall@10": [0.51, 0.58, 0.61]}``.
        baseline: name -> score of a method without widths, drawn as a dashed horizontal line.
        ylabel: name of the score axis.
        ax: where to draw; None makes a figure of its own, outside pyplot. The names stand to the
            right of the Axes, so give its figure ``layout="constrained"``.

    Returns:
        The Axes; ``ax.figure.savefig("curve.png")`` writes it.

    Raises:
        ValueError: for widths that do not increase, no scores, a number of scores that differs
            from the number of widths, NaN or infinity.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, figure 2.

    >>> ax = matryoshka_curve([64, 128, 256], {"recall@10": [0.51, 0.58, 0.61]})
    >>> ax.figure.savefig("/dev/null", format="png")
    """
    baseline = baseline or {}
    _check(dims, scores, baseline)
    ax = framed(ax)
    every = [value for values in scores.values() for value in values] + list(baseline.values())
    low, high = min(0.0, *every), max(0.0, *every)
    margin = 0.06 * (high - low or 1.0)
    low, high = low - margin * (low < 0), high + margin
    ax.set_ylim(low, high)
    ax.set_xscale("log", base=2)
    ax.set_xlim(dims[0] / 2**0.15, dims[-1] * 2**0.15)
    ax.set_xticks(list(dims), [str(dim) for dim in dims])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("embedding width")
    ax.set_ylabel(ylabel)

    labels = []
    for i, (name, values) in enumerate(scores.items()):
        (line,) = ax.plot(dims, values, marker=MARKERS[i % len(MARKERS)], markersize=5, linewidth=2)
        labels.append((f"{name}  {values[-1]:.3f}", values[-1], line.get_color()))
    for name, value in baseline.items():
        ax.axhline(value, color=INK, linestyle=DASHES, linewidth=1.2)
        labels.append((f"{name}  {value:.3f}", value, INK))

    name_lines(ax, labels)
    return ax
