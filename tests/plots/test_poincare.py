import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from embedkit.geometry import poincare
from embedkit.plots.poincare import poincare_disk

POINTS = torch.tensor([[0.0, 0.0], [0.6, 0.3], [-0.2, 0.8], [0.1, -0.9]])
EDGES = torch.tensor([[1, 2, 3], [0, 1, 1]])


@pytest.mark.parametrize("curvature", [1.0, 0.25])
def test_points_paths_and_rim_are_those_given(curvature):
    ax = poincare_disk(POINTS, EDGES, labels=list("abcd"), curvature=curvature)
    lines, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), POINTS, atol=1e-7)
    assert [text.get_text() for text in ax.texts] == list("abcd")
    assert ax.patches[0].get_radius() == curvature**-0.5
    paths = lines.get_segments()
    assert len(paths) == 3
    for path, edge in zip(paths, EDGES.T, strict=True):
        path = torch.from_numpy(np.array(path))
        ends = POINTS[edge].double()
        torch.testing.assert_close(path[[0, -1]], ends, atol=1e-9, rtol=0)
        # equal steps, which add up to the distance: a shortest path
        steps = poincare.distance(path[1:], path[:-1], curvature=curvature)
        torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=1e-9)
        want = poincare.distance(*ends, curvature=curvature)
        torch.testing.assert_close(steps.sum(), want)


def test_draws_where_it_is_told_and_colours():
    left, right = Figure(layout="constrained").subplots(1, 2)
    assert poincare_disk(POINTS, color=[0.0, 1.0, 1.0, 2.0], ax=right) is right
    assert not left.collections
    assert list(right.collections[0].get_array()) == [0, 1, 1, 2]
    poincare_disk(POINTS[:0], EDGES[:, :0])


@pytest.mark.wording
def test_bad_arguments_are_explained():
    for call, words in [
        (lambda: poincare_disk(torch.rand(3, 5)), r"points must be \(n, 2\), got \(3, 5\). A disk"),
        (lambda: poincare_disk(POINTS * 2), "check_inside: points must lie in the ball"),
        (lambda: poincare_disk(POINTS, EDGES + 2), "edges must name points 0 to 3, got 2 to 5"),
        (lambda: poincare_disk(POINTS, EDGES.T), r"edges must be \(2, e\), source above target"),
        (lambda: poincare_disk(POINTS, labels=["a"]), "labels must have one entry for each of the"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
