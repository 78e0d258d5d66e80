"""Docstring examples, README blocks and examples run; the paper index finds its sources."""

import doctest
import importlib
import inspect
import operator
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import embedkit

ROOT = Path(__file__).parents[1]
MODULES = [m.name for m in pkgutil.walk_packages(embedkit.__path__, "embedkit.") if not m.ispkg]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    torch.manual_seed(0)
    module = importlib.import_module(name)
    outcome = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=FLAGS)
    assert outcome.failed == 0


def public():
    for package in embedkit.__all__:
        module = importlib.import_module(f"embedkit.{package}")
        for name in module.__all__:
            yield pytest.param(getattr(module, name), id=f"{package}.{name}")


@pytest.mark.parametrize("value", list(public()))
def test_public_names_are_documented(value):
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    text = inspect.getdoc(value)
    assert text
    if inspect.isclass(value) and issubclass(value, torch.nn.Module):
        assert ">>>" in text, "a Module shows one call"


def test_the_pages_name_what_is_public_and_nothing_else():
    directive = re.compile(r"^\.\. auto(?:class|function|module):: +embedkit\.(\S+)", re.M)
    named = {
        n for page in (ROOT / "docs").glob("*.md") for n in directive.findall(page.read_text())
    }
    for name in named:
        operator.attrgetter(name)(embedkit)
    calls = {p.id for p in public() if callable(p.values[0]) or inspect.ismodule(p.values[0])}
    assert calls - named == set()


@pytest.mark.examples
def test_readme_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.slow
@pytest.mark.examples
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(path.parent)  # as python itself does for a script
    monkeypatch.setattr(sys, "argv", [str(path), "--steps", "8", "--out", str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    assert any(tmp_path.iterdir())
    if path.stem == "quickstart":  # what was saved answers
        question = "a large cat with black stripes that lives in Asian forests"
        monkeypatch.setattr(sys, "argv", [str(path), "--ask", question, "--out", str(tmp_path)])
        runpy.run_path(str(path), run_name="__main__")
        assert question in capsys.readouterr().out


@pytest.mark.examples
def test_asking_without_a_model_teaches(tmp_path, monkeypatch):
    path = str(ROOT / "examples" / "quickstart.py")
    monkeypatch.setattr(sys, "argv", [path, "--ask", "a large cat", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"expected a trained model at .* found none. Train one"):
        runpy.run_path(path, run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [p for p in sorted((ROOT / "benchmarks/claims").glob("[!_]*.py")) if p.stem != "run"],
    ids=lambda p: p.stem,
)
def test_claims_run_at_reduced_size(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))
    row = runpy.run_path(str(path))["main"](quick=True)
    assert row.holds in ("yes", "no", "partly")
    assert all((row.paper, row.claim, row.data, row.ours, row.baseline))
    assert row.seeds >= 1


def test_the_paper_index_finds_its_sources(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    papers = importlib.import_module("_papers")
    text = "Does.\n\nSource: Ann et al. 2018, A Title, eq. 4; Bo and Cy 2020, Other: Title, sec. 2."
    assert list(papers.sources(text)) == [
        "Ann et al. 2018, *A Title*",
        "Bo and Cy 2020, *Other: Title*",
    ]
