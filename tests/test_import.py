"""``import embedkit`` is light, silent and lazy."""

import subprocess
import sys

import pytest

import embedkit

HEAVY = ("matplotlib", "sklearn", "scipy", "torch_geometric", "transformers", "pandas", "faiss")


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_import_is_light_and_lazy():
    heavy = repr(HEAVY)
    run(
        "import sys, embedkit\n"
        "ours = [name for name in sys.modules if name.startswith('embedkit.')]\n"
        "assert not ours, ours\n"
        f"assert not set({heavy}) & set(sys.modules)"
    )


def test_import_prints_and_warns_nothing():
    done = run("import embedkit, torch")
    assert (done.stdout, done.stderr) == ("", "")


def test_every_package_but_plots_loads_without_heavy_ones():
    light = [name for name in embedkit.__all__ if name != "plots"]
    heavy = repr(HEAVY)
    done = run(
        "import sys, embedkit\n"
        f"for name in {light!r}: getattr(embedkit, name)\n"
        f"assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_packages_are_reachable_as_attributes():
    for name in embedkit.__all__:
        package = getattr(embedkit, name)
        assert package.__name__ == f"embedkit.{name}"
        assert all(hasattr(package, public) for public in package.__all__)


def test_dir_lists_what_there_is():
    assert set(embedkit.__all__) | {"__version__"} == set(dir(embedkit))


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(
        AttributeError, match=r"module 'embedkit' has no attribute 'loses'; it has .*losses"
    ):
        _ = embedkit.loses
