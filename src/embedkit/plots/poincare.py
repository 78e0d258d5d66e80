"""A hierarchy in the Poincaré disk: points, and their edges as shortest paths."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from embedkit._checks import check_floating, check_integer
from embedkit.geometry import poincare

STEPS = 33  # points of a drawn path
INK = "#555555"


def _check(
    points: Tensor,
    edges: Tensor | None,
    labels: Sequence[str] | None,
    color: Sequence[float] | None,
) -> None:
    check_floating("points", points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f"poincare_disk: points must be (n, 2), got {tuple(points.shape)}. A disk has two "
            "dimensions: train in two, or project tangent vectors to their first two directions."
        )
    for name, values in (("labels", labels), ("color", color)):
        if values is not None and len(values) != len(points):
            raise ValueError(
                f"poincare_disk: {name} must have one entry for each of the {len(points)} points, "
                f"got {len(values)}"
            )
    if edges is None:
        return
    check_integer("edges", edges)
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(
            f"poincare_disk: edges must be (2, e), source above target, got {tuple(edges.shape)}"
        )
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < len(points):
        raise ValueError(
            f"poincare_disk: edges must name points 0 to {len(points) - 1}, got "
            f"{int(edges.min())} to {int(edges.max())}"
        )


def poincare_disk(
    points: Float[Tensor, "n 2"],
    edges: Int[Tensor, "2 e"] | None = None,
    *,
    labels: Sequence[str] | None = None,
    color: Sequence[float] | None = None,
    curvature: float = 1.0,
    ax: Axes | None = None,
) -> Axes:
    """Draw points of the Poincaré disk, and edges as the shortest paths between them.

    Paths are arcs of circles that meet the rim at right angles, straight only through the centre.
    The rim is infinitely far away.

    Args:
        points: rows inside the disk of radius 1/sqrt(c), on any device.
        edges: pairs of row numbers, e.g. child above parent; None: points alone.
        labels: a name beside each point, "" for none.
        color: a number per point, mapped to colours, e.g. its depth. None: one colour.
        curvature: c > 0 of a space of curvature -c.
        ax: where to draw; None makes a figure of its own, outside pyplot.

    Returns:
        The Axes; ``ax.figure.savefig("disk.png")`` writes it.

    Raises:
        ValueError: for points that are not (n, 2) or not inside the disk, edges that name others,
            or another number of labels or colours than points.
        TypeError: for points that are not floating, or edges that are not integers.

    Source: Nickel and Kiela 2017, Poincaré Embeddings for Learning Hierarchical Representations,
    figure 2.

    >>> ax = poincare_disk(torch.tensor([[0.0, 0.0], [0.6, 0.3]]), torch.tensor([[1], [0]]))
    >>> ax.figure.savefig("/dev/null", format="png")
    """
    _check(points, edges, labels, color)
    points = points.detach().double().cpu()
    poincare.check_inside(points, curvature=curvature)
    radius = curvature**-0.5
    if ax is None:
        ax = Figure(figsize=(5, 5), dpi=150, layout="constrained").add_subplot()
    ax.add_patch(Circle((0, 0), radius, facecolor="#fafafa", edgecolor=INK, linewidth=1))
    if edges is not None and edges.numel():
        start, end = points[edges.long().cpu()][:, :, None]
        share = torch.linspace(0, 1, STEPS, dtype=points.dtype).expand(start.shape[0], STEPS)
        paths = poincare.geodesic(share, start, end, curvature=curvature)
        ax.add_collection(
            LineCollection(list(paths.numpy()), colors="#9a9a9a", linewidths=0.7, zorder=1)
        )
    ax.scatter(points[:, 0].numpy(), points[:, 1].numpy(), c=color, s=14, zorder=2, linewidths=0)
    for name, (x, y) in zip(labels or (), points.tolist(), strict=bool(labels)):
        ax.annotate(name, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=7, color=INK)
    ax.set_xlim(-1.03 * radius, 1.03 * radius)
    ax.set_ylim(-1.03 * radius, 1.03 * radius)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax
