"""Weighted negatives of many rows: what the hard and the learned weights take in memory."""

import subprocess
import sys

import pytest

RUN = """
import sys, torch, pathlib
from embedkit.losses import weighted_info_nce
from embedkit.mining import SoftNegativeWeight, cluster_weights

torch.set_num_threads(1)


def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def run(n):
    torch.manual_seed(0)
    x = torch.randn(n, 16, requires_grad=True)
    y = x.detach() + torch.randn(n, 16)
    if sys.argv[2] == "hard":
        clusters = torch.randint(0, 100, (n, 2))
        weights = lambda a, b: cluster_weights(a.T, b.T)
        loss = weighted_info_nce(x, y, weights, query_features=clusters, key_features=clusters)
    else:
        loss = weighted_info_nce(x, y, SoftNegativeWeight(16, 4))
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


run(100)
before = status("VmRSS")
run(int(sys.argv[1]))
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_no_tensor_of_all_pairs(kind):
    n = 12_000
    command = [sys.executable, "-c", RUN, str(n), kind]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(found.stdout) < n * n * 4 / 2**20 / 2  # MiB: half of one matrix of float32
