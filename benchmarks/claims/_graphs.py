"""Real graphs of the claims, read from the folder EMBEDKIT_DATA (default ../shared/data)."""

import gzip
import os
import warnings
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

DATA = Path(os.environ.get("EMBEDKIT_DATA", "../shared/data"))


def folder(name: str) -> Path:
    """A data set's folder; a claim without its data is left out, saying so."""
    if not (DATA / name).is_dir():
        raise SkipTest(f"found no {DATA / name}. EMBEDKIT_DATA names the folder of {name}/")
    return DATA / name


def cora() -> Any:
    """Cora as PyG's Data (x, edge_index, y, train_mask, val_mask, test_mask), rows sum to 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script, deprecated, as PyG loads
        from torch_geometric.io import read_planetoid_data
        from torch_geometric.transforms import NormalizeFeatures

        data = read_planetoid_data(str(folder("planetoid") / "raw"), "cora")
    return NormalizeFeatures()(data)


def clicks(path: Path) -> tuple[Tensor, Tensor]:
    """Users and items of a file with lines ``user item item ...``."""
    with gzip.open(path, "rt") as file:
        rows = [[int(word) for word in line.split()] for line in file]
    user = torch.tensor([row[0] for row in rows for _ in row[1:]])
    return user, torch.tensor([item for row in rows for item in row[1:]])
