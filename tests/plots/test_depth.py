from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embedkit.plots.depth import depth_curve

ACCURACY = {"DAGNN": [0.80, 0.84, 0.83], "GCN": [0.82, 0.70, 0.13]}
SMOOTH = {"GCN": [0.5, 0.3, 0.05]}


def boxes(ax):
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return [text.get_window_extent(canvas.get_renderer()) for text in ax.texts]


def test_lines_ticks_and_names_are_those_given():
    ax = depth_curve([2, 8, 64], ACCURACY, smoothness=SMOOTH)
    first, second, dashed = ax.get_lines()
    for line, values in zip(
        (first, second, dashed), [*ACCURACY.values(), SMOOTH["GCN"]], strict=True
    ):
        assert list(line.get_xdata()) == [2, 8, 64]
        assert list(line.get_ydata()) == values
    assert [line.is_dashed() for line in (first, second, dashed)] == [False, False, True]
    assert first.get_color() != second.get_color() == dashed.get_color()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "8", "64"]
    assert ax.get_xscale() == "log"
    assert not len(ax.get_xticks(minor=True))
    assert ax.get_ylim() == (0, 1.02)
    assert ax.get_xlabel() == "hops or layers"
    assert ax.get_ylabel() == "accuracy, smoothness (dashed)"
    names = ["DAGNN  0.83", "GCN  0.13", "GCN, smoothness  0.05"]
    assert [text.get_text() for text in ax.texts] == names
    colors = [line.get_color() for line in (first, second, dashed)]
    assert [text.get_color() for text in ax.texts] == colors


@settings(max_examples=6)
@given(last=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_names_never_overlap_and_stay_inside_the_picture(last):
    accuracy = {f"model {i}": [0.5, value] for i, value in enumerate(last)}
    ax = depth_curve([1, 2], accuracy, smoothness={name: [0.4, 0.0] for name in accuracy})
    placed = sorted(boxes(ax), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in pairwise(placed))
    width, height = ax.figure.canvas.get_width_height()
    assert all(box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in placed)


def test_it_draws_where_it_is_told_and_smoothness_may_be_left_out():
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    assert depth_curve([5], {"a": [0.5]}, ax=right, xlabel="hops") is right
    assert not left.get_lines()
    assert (right.get_ylabel(), right.get_xlabel()) == ("accuracy", "hops")


@pytest.mark.parametrize(
    ("depths", "accuracy", "smoothness", "words"),
    [
        ([4, 2], {"a": [0.1, 0.2]}, None, "depth_curve: depths must be positive, different"),
        ([0, 2], {"a": [0.1, 0.2]}, None, r"in increasing order, got \[0, 2\]"),
        ([], {"a": []}, None, "depths must be positive"),
        ([2], {}, None, "accuracy must name a model or more, got none"),
        ([2, 4], {"a": [0.1]}, None, r"accuracy\['a'\] needs one number for each of the 2 depths"),
        ([2], {"a": [81.0]}, None, r"accuracy\['a'\] must lie in \[0, 1\], got \[81.0\]. Divide"),
        ([2], {"a": [float("nan")]}, None, r"must lie in \[0, 1\], got \[nan\]"),
        ([2], {"a": [0.1]}, {"a": []}, r"smoothness\['a'\] needs one number for each of the 1"),
        ([2], {"a": [0.1]}, {"b": [0.1]}, "smoothness must name models of accuracy, a, got b"),
    ],
)
def test_bad_arguments_are_explained(depths, accuracy, smoothness, words):
    with pytest.raises(ValueError, match=words):
        depth_curve(depths, accuracy, smoothness=smoothness)
