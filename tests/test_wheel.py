"""The wheel works outside the repository: built, installed and used as a user would."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import embedkit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

USE = """
import sys
from pathlib import Path

import torch
import embedkit as ek

assert Path(ek.__file__).is_relative_to(sys.argv[1]), ek.__file__

x = torch.randn(6, 8)
tokens, mask = torch.randn(6, 5, 8), torch.ones(6, 5, dtype=torch.bool)
ids, offsets = ek.tables.subword_ids(["gray wolf", "wolves"])
assert len(offsets) == 2 and ids.dtype == torch.long
assert ek.ops.normalize(x).shape == (6, 8)
assert ek.pooling.MeanPool()(tokens, mask).shape == (6, 8)
assert ek.heads.truncate_embedding(x, 4).shape == (6, 4)
assert ek.losses.info_nce(x, x, temperature=0.05).isfinite()
found = ek.search.exact_search(x, x, k=2)
assert ek.analysis.retrieval_metrics(found.index, torch.arange(6)[:, None])["recall@1"] == 1.0
ek.plots.matryoshka_curve([4, 8], {"recall@1": [0.5, 1.0]}).figure.savefig("curve.png")
ek.testing.check_module(lambda: torch.nn.Linear(3, 2), lambda b: (torch.randn(b, 3),))
print("packages used:", *ek.__all__)
"""


def run(*command, cwd):
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_it_holds_the_package_and_its_types_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "embedkit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    info = f"embedkit-{embedkit.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"embedkit", info}
    source = {
        str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "embedkit").rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == source


def test_every_package_works_from_it_outside_the_repository(wheel, tmp_path):
    target = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index")
    run(*pip, "--no-deps", "--target", target, wheel, cwd=tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    (work / "use.py").write_text(f"import sys\nsys.path.insert(0, {str(target)!r})\n" + USE)
    out = run("-W", "error", "use.py", target, cwd=work)
    assert out.strip() == "packages used: " + " ".join(embedkit.__all__)
    assert (work / "curve.png").stat().st_size > 5000
