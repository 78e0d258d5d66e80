import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embedkit.plots import matryoshka_curve

SCORES = {"recall@1": [0.25, 0.31, 0.36], "recall@10": [0.44, 0.53, 0.60]}


def boxes(ax):
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return [text.get_window_extent(canvas.get_renderer()) for text in ax.texts]


def test_lines_ticks_and_names_are_those_given():
    ax = matryoshka_curve([32, 64, 256], SCORES, baseline={"TF-IDF": 0.288}, ylabel="recall")
    *curves, dashed = ax.get_lines()
    for line, values in zip(curves, SCORES.values(), strict=True):
        assert list(line.get_xdata()) == [32, 64, 256]
        assert list(line.get_ydata()) == values
    assert set(dashed.get_ydata()) == {0.288}
    assert dashed.is_dashed()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["32", "64", "256"]
    assert ax.get_xscale() == "log"
    assert not len(ax.get_xticks(minor=True))
    assert ax.get_ylim()[0] == 0
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("embedding width", "recall")
    assert [t.get_text() for t in ax.texts] == [
        "recall@1  0.360",
        "recall@10  0.600",
        "TF-IDF  0.288",
    ]
    assert [t.get_color() for t in ax.texts[:2]] == [line.get_color() for line in curves]


@settings(max_examples=12)
@given(last=st.lists(st.floats(-0.2, 1), min_size=1, max_size=9), low=st.floats(-0.2, 1))
def test_names_never_overlap_and_stay_in_the_order_of_their_lines(last, low):
    ax = matryoshka_curve(
        [64, 128], {f"s{i}": [0.5, v] for i, v in enumerate(last)}, baseline={"b": low}
    )
    placed = sorted(zip(boxes(ax), [*last, low], strict=True), key=lambda pair: pair[0].y0)
    for (below, small), (above, large) in pairwise(placed):
        assert below.y1 <= above.y0
        assert small <= large


def test_a_name_stands_at_its_line_where_there_is_room():
    ax = matryoshka_curve([64, 128], {"a": [0.1, 0.2], "b": [0.7, 0.9]})
    assert [text.xy[1] for text in ax.texts] == [0.2, 0.9]


def test_names_stay_inside_the_picture(tmp_path):
    ax = matryoshka_curve([8, 2048], {"a long name of a score": [0.0, 0.0], "b": [0.9, 0.9]})
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for box in boxes(ax):
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
    ax.figure.savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_draws_where_it_is_told():
    left, right = Figure(layout="constrained").subplots(1, 2)
    assert matryoshka_curve([64], {"a": [0.5]}, ax=right) is right
    assert not left.get_lines()


@pytest.mark.parametrize("values", [[0.1, 0.0], [-0.3, 0.4], [-0.3, -0.1]])
def test_zeros_and_negative_scores_are_in_view(values):
    ax = matryoshka_curve([64, 128], {"a": values})
    low, high = ax.get_ylim()
    assert low <= min(*values, 0)
    assert max(*values, 0) < high < 0.5


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_pyplot_is_left_alone():
    done = run(
        "import sys\nfrom embedkit.plots import matryoshka_curve\n"
        "matryoshka_curve([64, 128], {'a': [0.5, 0.6]})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_error_says_what_to_install():
    done = run("import sys\nsys.modules['matplotlib'] = None\nimport embedkit as ek\nek.plots")
    assert "ImportError: embedkit.plots draws with matplotlib" in done.stderr
    assert 'pip install "embedkit[plots]"' in done.stderr


@pytest.mark.parametrize(
    ("dims", "scores", "words"),
    [
        ([64, 32], {"a": [1.0, 2.0]}, "matryoshka_curve: dims must be positive, different and in"),
        ([], {"a": []}, "dims must be positive"),
        ([64], {}, "scores must name a curve or more, got none"),
        (
            [64, 128],
            {"a": [1.0]},
            r"scores\['a'\] needs one number for each of the 2 widths, got 1",
        ),
        ([64], {"a": [float("nan")]}, r"'a' must be finite, got \[nan\]"),
    ],
)
def test_bad_arguments_are_explained(dims, scores, words):
    with pytest.raises(ValueError, match=words):
        matryoshka_curve(dims, scores)


def test_a_baseline_must_be_finite():
    with pytest.raises(ValueError, match=r"'b' must be finite, got \[inf\]"):
        matryoshka_curve([64], {"a": [1.0]}, baseline={"b": float("inf")})
