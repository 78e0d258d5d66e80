"""The distributed example under torchrun: a process that is killed does not change the curve."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "distributed_contrastive.py"
SETTINGS = {"steps": 12, "nouns": 2000, "batch": 63, "save_every": 4}  # 32 pairs and 31


def torchrun(out, *more):
    own = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, *launch, "--max-restarts=3", str(EXAMPLE), f"--out={out}"]
    with subprocess.Popen(
        [*command, *options, *more],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun then ends what it started; killed, it could not
            raise
    assert process.returncode == 0, errors
    return errors


def losses(out):
    rows = [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(SETTINGS["steps"]))
    return [row["loss"] for row in rows]


def tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    return [t for part in state.values() for t in tensors(part)] if isinstance(state, dict) else []


def take_checkpoint(out):
    """What it holds; the file, a quarter of a gigabyte, goes."""
    path = out / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    path.unlink()
    return state


@pytest.fixture(autouse=True)
def _beside_its_neighbours(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)  # as python itself does for a script


@pytest.mark.slow
@pytest.mark.examples
def test_a_killed_process_does_not_change_the_curve(tmp_path):
    quiet, killed, alone = (tmp_path / name for name in ("quiet", "killed", "alone"))
    assert "failed" not in torchrun(quiet)
    assert torchrun(killed, "--kill-at=6").count("failed (exitcode: ") == 1  # one attempt lost
    want, end = losses(quiet), take_checkpoint(quiet)
    assert losses(killed) == want
    for found, expected in zip(tensors(take_checkpoint(killed)), tensors(end), strict=True):
        assert torch.equal(found, expected)
    # One process with the whole batch: the same up to rounding.
    found = runpy.run_path(str(EXAMPLE))["main"](out=alone, **SETTINGS)
    assert found == losses(alone)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(want), rtol=1e-5, atol=0)
    # Adam forgets the scale of a gradient, its mean of gradients does not.
    whole = take_checkpoint(alone)
    for part in ("optimiser 0", "optimiser 1"):
        mean, expected = (
            torch.cat([entry["exp_avg"].flatten() for entry in state[part]["state"].values()])
            for state in (whole, end)
        )
        assert (mean - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.examples
def test_going_on_with_other_settings_teaches(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"settings": {"processes": 2}}, path)
    with pytest.raises(ValueError, match=r"of a run with .*4\}, found one with .*2\}. Go on"):
        runpy.run_path(str(EXAMPLE))["resume"](path, {}, {"processes": 4})
