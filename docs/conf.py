"""How the pages are built; ``papers.md`` is written first, from the docstrings."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "2")

from _papers import write_papers

import embedkit

write_papers(HERE / "papers.md")

project = "embedkit"
author = "The embedkit developers"
copyright = "2026, the embedkit developers"
release = version = embedkit.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**.ipynb_checkpoints", ".jupyter_cache"]
html_theme = "furo"
html_title = "embedkit"
html_static_path = ["assets"]
nitpicky = False
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_excludepatterns = ["*.ipynb"]  # kept with their outputs; the tests run them
nb_execution_raise_on_error = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"

# A star of a shape or a product is no emphasis, a bar of an absolute value no substitution.
STAR = re.compile(r"(?<!\*)\*(?!\*)|\|")


def label_paragraphs(app, what, name, obj, options, lines):  # noqa: ARG001
    """``Source:`` and ``Differs:`` are paragraphs with a bold label, hanging indent or not."""
    lines[:] = [
        line if line.lstrip().startswith(">>> ") else STAR.sub(r"\\\g<0>", line) for line in lines
    ]
    label = None
    for place, line in enumerate(lines):
        head = next((h for h in ("Source", "Differs") if line.startswith(f"{h}:")), None)
        if head:
            lines[place] = f"**{head}.**" + line.removeprefix(f"{head}:")
            if label:
                lines[place] = "\n" + lines[place]
        elif label and line.strip():
            lines[place] = line.strip()
        label = head or (label if line.strip() else None)
    lines[:] = "\n".join(lines).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", label_paragraphs, priority=400)
