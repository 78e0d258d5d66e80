"""Notebooks of examples/: every code cell runs; what is kept in them is complete and small."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
SLOW = {"hyperbolic", "text_embeddings"}  # dozens of models, each for a few steps
each = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else [], id=path.stem)
        for path in NOTEBOOKS
    ],
)


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@each
@pytest.mark.examples
def test_code_cells_run(path, monkeypatch):
    monkeypatch.setenv("STEPS", "8")
    mpl.use("Agg")
    from matplotlib import pyplot

    space = {"__name__": "notebook"}
    with mpl.rc_context():
        for number, cell in enumerate(code_cells(path), start=1):
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), space)
    pyplot.close("all")


@each
def test_kept_outputs_are_complete_and_small(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert path.stat().st_size < 400_000
    assert "/home/" not in path.read_text(encoding="utf-8")
