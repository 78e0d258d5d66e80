"""The paper index, made from the ``Source:`` lines of public docstrings."""

import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from pathlib import Path

import embedkit

ROOT = Path(__file__).parents[1]
HEAD = """# Papers

Find a block by the paper you know it from. This page is made from the `Source:` lines of the
docstrings; claims that were measured again stand in {doc}`claims`.

| paper | blocks | claim measured by | example |
| --- | --- | --- | --- |
"""


def public():
    """Every public name of every package, with its object."""
    for package in pkgutil.iter_modules(embedkit.__path__):
        if not package.name.startswith("_"):
            module = importlib.import_module(f"embedkit.{package.name}")
            for name in getattr(module, "__all__", ()):
                yield f"{package.name}.{name}", getattr(module, name)


def sources(docstring):
    """The works of a ``Source:`` paragraph as (authors and year, title)."""
    found = re.search(
        r"^Source:(.*?)(?:\n\s*\n|\n(?:Differs|Args|Raises):|\Z)", docstring, re.S | re.M
    )
    for part in " ".join((found.group(1) if found else "").split()).split(";"):
        match = re.match(
            r"\s*(.+? \d{4}),\s*(.+?)(?:, (?:sec|eq|fig|table|alg|app|the |prop|def)|$|\. )", part
        )
        if match:
            yield re.sub(r"\s+", " ", f"{match[1]}, *{match[2].strip(' .')}*")


def claim_scripts():
    """For every claim script, the embedkit names it uses."""
    scripts = sorted((ROOT / "benchmarks" / "claims").glob("[!_]*.py"))
    return {path: path.read_text() for path in scripts if path.name != "run.py"}


def used_in(name, text):
    """Whether ``text`` names the class or function."""
    return re.search(rf"\b{name.split('.')[1]}\b", text) is not None


def write_papers(path):
    """Write the index."""
    papers = defaultdict(list)
    for name, value in public():
        for paper in sources(inspect.getdoc(value) or ""):
            papers[paper].append(name)
    claims = claim_scripts()
    examples = {p: p.read_text() for p in sorted((ROOT / "examples").glob("*.py"))}
    rows = []
    for paper, names in sorted(papers.items()):
        measured = [p.stem for p, text in claims.items() if any(used_in(n, text) for n in names)]
        shown = [p.name for p, text in examples.items() if any(used_in(n, text) for n in names)]
        blocks = ", ".join(f"[`{n}`](#embedkit.{n})" for n in names)
        rows.append(f"| {paper} | {blocks} | {', '.join(measured)} | {', '.join(shown)} |")
    path.write_text(HEAD + "\n".join(rows) + "\n")
