"""The picture of mAP against hops holds what it was given."""

import pytest
from matplotlib.figure import Figure

from embedkit.plots.reconstruction import reconstruction_curve

SCORES = {"HOPE": [0.97, 0.94, 0.91], "SDNE": [0.87, 0.86, float("nan")]}


def test_lines_names_and_chance_are_those_given():
    ax = reconstruction_curve(
        [1, 2, 4], SCORES, chance=[0.2, 0.6, 0.7], error={"HOPE": [0.01, 0.02, 0.03]}
    )
    curves = [line for line in ax.get_lines() if line.get_marker() in "os"]
    for line, values in zip(curves, SCORES.values(), strict=True):
        assert list(line.get_xdata()) == [1, 2, 4]
        assert str(list(line.get_ydata())) == str(values)
    bars = ax.containers[0].lines[2][0].get_segments()  # of HOPE, the only one with an error
    assert [float(high - low) for low, high in (bar[:, 1] for bar in bars)] == pytest.approx(
        [0.02, 0.04, 0.06]
    )
    assert not ax.containers[1].has_yerr
    dashed = ax.get_lines()[-1]
    assert list(dashed.get_ydata()) == [0.2, 0.6, 0.7]
    assert dashed.is_dashed()
    assert [t.get_text() for t in ax.texts] == ["HOPE  0.910", "SDNE  nan", "chance  0.700"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "4"]
    assert ax.get_ylim() == (0.0, 1.02)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("hops", "mAP")


def test_draws_where_it_is_told(tmp_path):
    left, right = Figure(layout="constrained").subplots(1, 2)
    assert reconstruction_curve([1], {"a": [0.5]}, ax=right) is right
    assert not left.get_lines()
    right.figure.savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("hops", "scores", "more", "words"),
    [
        ([2, 1], {"a": [1.0, 1.0]}, {}, r"hops must be 1 or more and in increasing order, got \[2"),
        ([], {"a": []}, {}, "hops must be 1 or more"),
        ([1], {}, {}, "scores must name an embedder or more, got none"),
        ([1, 2], {"a": [1.0]}, {}, r"scores\['a'\] needs one number for each of the 2 hops, got 1"),
        ([1], {"a": [1.0]}, {"chance": []}, "chance needs one number for each of the 1 hops"),
        ([1], {"a": [1.0]}, {"error": {"b": [0.1]}}, r"error names \['b'\]"),
        ([1], {"a": [float("inf")]}, {}, r"scores\['a'\] holds infinity"),
    ],
)
def test_bad_arguments_are_explained(hops, scores, more, words):
    with pytest.raises(ValueError, match=words):
        reconstruction_curve(hops, scores, **more)
