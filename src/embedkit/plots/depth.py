"""What depth does to a graph network: accuracy and smoothness against the number of hops."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes

from embedkit.plots._labels import DASHES, MARKERS, framed, name_lines


def _check(
    depths: Sequence[int],
    accuracy: Mapping[str, Sequence[float]],
    smoothness: Mapping[str, Sequence[float]],
) -> None:
    if not depths or depths[0] < 1 or any(a >= b for a, b in pairwise(depths)):
        raise ValueError(
            f"depth_curve: depths must be positive, different and in increasing order, "
            f"got {list(depths)}. Doubling depths such as [2, 4, 8] are usual."
        )
    if not accuracy:
        raise ValueError(
            "depth_curve: accuracy must name a model or more, got none. "
            'Pass {"GCN": [0.81, 0.79]}, one number per depth.'
        )
    if unknown := [name for name in smoothness if name not in accuracy]:
        raise ValueError(
            f"depth_curve: smoothness must name models of accuracy, {', '.join(accuracy)}, "
            f"got {', '.join(unknown)}"
        )
    for what, curves in (("accuracy", accuracy), ("smoothness", smoothness)):
        for name, values in curves.items():
            if len(values) != len(depths):
                raise ValueError(
                    f"depth_curve: {what}[{name!r}] needs one number for each of the "
                    f"{len(depths)} depths, got {len(values)}"
                )
            if not all(0 <= value <= 1 for value in values):
                raise ValueError(
                    f"depth_curve: {what}[{name!r}] must lie in [0, 1], got {list(values)}. "
                    "Divide percents by 100."
                )


def depth_curve(
    depths: Sequence[int],
    accuracy: Mapping[str, Sequence[float]],
    *,
    smoothness: Mapping[str, Sequence[float]] | None = None,
    xlabel: str = "hops or layers",
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy, and smoothness if given, of several models against their depth.

    Each model has one colour: accuracy is its full line, smoothness
    (:func:`embedkit.analysis.smoothness`) its dashed one; both lie in [0, 1] and share the axis. A
    model whose rows collapse onto one direction shows a dashed line that falls to 0. The depth axis
    is logarithmic, and every line carries its name and last value at its right end.

    Args:
        depths: numbers of hops or layers, in increasing order, from 1.
        accuracy: model -> one share of right answers per depth.
        smoothness: model -> one smoothness per depth, for all models, some or none.
        xlabel: name of the depth axis.
        ax: where to draw; None makes a figure of its own, outside pyplot. The names stand to the
            right of the Axes, so give its figure ``layout="constrained"``.

    Returns:
        The Axes; ``ax.figure.savefig("depth.png")`` writes it.

    Raises:
        ValueError: for depths that do not increase, no model, another number of values than
            depths, or a value outside of [0, 1].

    Source: Liu et al. 2020, Towards Deeper Graph Neural Networks, figures 2 and 3.
    Differs: both in one picture.

    >>> ax = depth_curve([2, 4, 8], {"GCN": [0.8, 0.7, 0.2]}, smoothness={"GCN": [0.5, 0.3, 0.1]})
    >>> ax.figure.savefig("/dev/null", format="png")
    """
    smoothness = smoothness or {}
    _check(depths, accuracy, smoothness)
    ax = framed(ax)
    ax.set_ylim(0, 1.02)
    ax.set_xscale("log", base=2)
    ax.set_xlim(depths[0] / 2**0.15, depths[-1] * 2**0.15)
    ax.set_xticks(list(depths), [str(depth) for depth in depths])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("accuracy, smoothness (dashed)" if smoothness else "accuracy")

    labels = []
    for i, (name, values) in enumerate(accuracy.items()):
        marker = MARKERS[i % len(MARKERS)]
        (line,) = ax.plot(depths, values, marker=marker, markersize=5, linewidth=2)
        color = line.get_color()
        labels.append((f"{name}  {values[-1]:.2f}", values[-1], color))
        if name in smoothness:
            ax.plot(depths, smoothness[name], color=color, linestyle=DASHES, linewidth=1.2)
            last = smoothness[name][-1]
            labels.append((f"{name}, smoothness  {last:.2f}", last, color))

    name_lines(ax, labels)
    return ax
