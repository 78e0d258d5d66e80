"""The sharded tables of the example beside whole ones, on two processes."""

import runpy
from pathlib import Path

import pytest
import torch
from distributed import run_ranks

EXAMPLE = Path(__file__).parents[1] / "examples" / "sharded_table.py"


def against_whole(example, table, asked, rank):
    """Largest differences of vectors and gradients, for what each process asks."""
    want = torch.autograd.grad(
        sum(table(ids).square().sum() for ids in asked) / len(asked), table.weight
    )[0]
    expected = table(asked[rank])
    example["shard"](table)
    with example["ShardedTables"]():
        found = table(asked[rank])
    found.square().sum().backward()
    gradient = table.weight.grad.full_tensor()
    return [(found - expected).abs().sum().item(), (gradient - want).abs().max().item()]


def refusal(example, table, ids):
    example["shard"](table)
    try:
        with example["ShardedTables"]():
            table(ids)
    except (IndexError, ValueError) as error:
        return str(error)
    return None


def measure(rank):
    torch.manual_seed(0)
    example, wide = runpy.run_path(str(EXAMPLE)), torch.float64
    trained = example["run"](3)
    many, none = torch.tensor([0, 6, 0, 5]), torch.tensor([], dtype=torch.long)
    bags = torch.nn.EmbeddingBag(7, 3, mode="sum", dtype=wide)
    rows = torch.nn.Embedding(1, 3, dtype=wide)  # fewer rows than processes
    apart = [
        *against_whole(example, bags, [many[:, None], none[:, None]], rank),
        *against_whole(example, rows, [many * 0, none], rank),
    ]
    refused = [
        refusal(example, torch.nn.Embedding(5, 2), torch.tensor([4 + rank])),
        refusal(example, torch.nn.Embedding(5, 2, padding_idx=0), torch.tensor([0])),
    ]
    return trained["apart"], trained["rows held"], apart, refused


@pytest.mark.slow
@pytest.mark.examples
def test_sharded_tables_equal_whole_ones():
    for held, (trained, rows, apart, refused) in zip(
        (2501, 2500), run_ranks(2, measure), strict=True
    ):
        assert set(trained) == {"vectors", "loss", "gradient", "rows"}
        assert max(trained.values()) < 1e-10
        assert rows == [held] * 3  # weight, gradient, Adam's mean
        assert max(apart) < 1e-12  # bags, rows; one process asks for none
        assert refused == [  # on both processes, though the id of one is fine
            "expected ids from 0 to 4, got 4 to 5",
            "ShardedTables: a sharded table has no padding_idx; leave it off",
        ]
