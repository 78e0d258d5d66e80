"""One thread per worker, derandomised hypothesis."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("embedkit", derandomize=True, deadline=None, database=None)
settings.load_profile("embedkit")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
