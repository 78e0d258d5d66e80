"""Rows of all ranks: values, exact gradients, and errors on every rank."""

import os

import pytest
import torch
import torch.distributed as dist
from distributed import run_ranks

from embedkit.losses import InfoNCELoss, info_nce, ring_info_nce
from embedkit.ops import gather_rows
from embedkit.ops._exchange import find_ranks
from embedkit.ops.collectives import gather_with_ids, mean_gradient, sum_over_ranks


def gathered(rank, rows):
    """Values and gradients of every collective against what they must be; True where equal."""
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(sum(rows), 3, generator=generator, dtype=torch.float64)
    own = slice(sum(rows[:rank]), sum(rows[: rank + 1]))
    weight = torch.randn(sum(rows), 3, generator=generator, dtype=torch.float64)
    want = weight[own] * sum(range(1, len(rows) + 1))  # rank r's loss weighs r + 1
    ranks = find_ranks("test", None)
    equal = {}

    x = whole[own].clone().requires_grad_()
    out = gather_rows(x)
    (out * weight * (rank + 1)).sum().backward()
    equal["rows"], equal["gradient"] = torch.equal(out, whole), torch.allclose(x.grad, want)

    x = whole[own].clone().requires_grad_()
    ids = torch.arange(sum(rows))[own]
    out, ids = gather_with_ids(x, ids, ranks, own_first=True)
    (out * weight[ids] * (rank + 1)).sum().backward()
    equal["own first"] = ids[: rows[rank]].tolist() == list(range(own.start, own.stop))
    equal["own rows"], equal["own gradient"] = torch.equal(out, whole[ids]), x.grad.allclose(want)

    x = torch.ones((), requires_grad=True)
    (sum_over_ranks(x, ranks) * (rank + 1)).backward()
    equal["sum"] = float(x.grad) == sum(range(1, len(rows) + 1))
    x = torch.ones((), requires_grad=True)
    (mean_gradient(x, ranks) * (rank + 1)).backward()
    equal["mean"] = float(x.grad) == sum(range(1, len(rows) + 1)) / len(rows)

    for dtype in (torch.bool, torch.int64, torch.bfloat16, torch.uint8):
        values = (whole * 10).abs().to(dtype)
        equal[str(dtype)] = torch.equal(gather_rows(values[own]), values)
    equal["1-d"] = torch.equal(gather_rows(whole[own, 0]), whole[:, 0])
    equal["4-d"] = gather_rows(torch.zeros(rows[rank], 2, 3, 4)).shape == (sum(rows), 2, 3, 4)
    halves = [dist.new_group(list(range(start, len(rows), 2))) for start in (0, 1) if rows[start:]]
    mates = list(range(rank % 2, len(rows), 2))
    want = torch.cat([whole[sum(rows[:r]) : sum(rows[: r + 1])] for r in mates])
    equal["half of the ranks"] = torch.equal(gather_rows(whole[own], halves[rank % 2]), want)
    equal["nobody has rows"] = gather_rows(torch.zeros(0, 3)).shape == (0, 3)
    return equal


@pytest.mark.parametrize("rows", [[3], [4, 3], [5, 0, 2, 1]], ids=str)
def test_rows_and_gradients_of_all_ranks(rows):
    for equal in run_ranks(len(rows), gathered, rows):
        assert all(equal.values()), equal


def compiled(rank):
    torch._dynamo.config.error_on_recompile = False
    x = torch.randn(4 - rank, 3, generator=torch.Generator().manual_seed(rank), requires_grad=True)
    temperature = torch.tensor(0.2, requires_grad=True)
    ids = torch.arange(4 - rank)

    def run(x, temperature):
        return info_nce(
            x, x * 2 + 1, temperature=temperature, query_ids=ids, symmetric=True, gather=True
        )

    results = []
    for function in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        x.grad = temperature.grad = None
        loss = function(x, temperature)
        loss.backward()
        results.append([loss.detach(), x.grad, temperature.grad])
    return [torch.allclose(a, b, atol=1e-6) for a, b in zip(*results, strict=True)]


@pytest.mark.compile
def test_a_gathered_loss_is_one_graph():
    assert run_ranks(2, compiled) == [[True] * 3] * 2


def message(call):
    try:
        call()
    except (ValueError, RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def errors(rank):
    x = torch.randn(3, 4, requires_grad=True)
    loss = InfoNCELoss(gather=True)
    ids = torch.arange(3 + rank)
    alone = dist.new_group([0])
    some = {"query_ids": torch.arange(3)} if rank else {}
    calls = {
        "width": lambda: gather_rows(torch.zeros(2, 4 + rank)),
        "dtype": lambda: gather_rows(torch.zeros(2, 4, dtype=[torch.float32, torch.int64][rank])),
        "gradient": lambda: gather_rows(x if rank else x.detach()),
        "ids of one": lambda: loss(x, x, query_ids=ids),
        "ids of some": lambda: loss(x, x, **some),
        "temperature of one": lambda: info_nce(x, x, temperature=rank - 1.0, gather=True),
        "ring": lambda: ring_info_nce(x, x, query_ids=ids),
        "ring width": lambda: ring_info_nce(*[torch.randn(3, 4 + rank)] * 2),
        "stranger": (lambda: gather_rows(x, alone)) if rank else (lambda: None),
    }
    said = {name: message(call) for name, call in calls.items()}
    # After each of them, the ranks are still in step.
    assert gather_rows(torch.full((1, 2), rank)).tolist() == [[0, 0], [1, 1]]
    return said


def test_bad_input_is_an_error_on_every_rank():
    first, second = run_ranks(2, errors)
    differs = "ValueError: gathering rows: rank 1 holds"
    for name in ("width", "dtype", "gradient", "ids of some", "ring width"):
        assert first[name] == second[name], name
        assert first[name].startswith(differs), first[name]
    assert "(2, 5) torch.float32" in first["width"]
    assert "with gradient" in first["gradient"]
    assert "without gradient" in first["gradient"]
    for name, word in (
        ("ids of one", "query_ids: expected 3 rows"),
        ("ring", "query_ids: expected 3 rows"),
    ):
        assert first[name].startswith("RuntimeError: gathering rows: rank 1 stopped"), first[name]
        assert word in first[name]
        assert second[name].startswith(f"ValueError: {word}")
    assert second["temperature of one"].startswith("ValueError: info_nce: temperature must be > 0")
    assert second["stranger"].startswith("ValueError: gather_rows: rank 1 is not in the process gr")


def dying(rank):
    x = torch.randn(3, 4, requires_grad=True)
    loss = info_nce(x, x * 2, gather=True)
    if rank:
        os._exit(0)
    return [message(loss.backward), message(lambda: gather_rows(x))]


def test_a_rank_that_died_is_named_in_words():
    survivor, _ = run_ranks(2, dying)
    for said in survivor:
        assert said.startswith("RuntimeError: embedkit: a collective failed: another rank died")


def test_without_a_process_group_it_says_what_to_call():
    with pytest.raises(RuntimeError, match=r"gather_rows: no process group. Call torch.distr"):
        gather_rows(torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match=r"info_nce: no process group"):
        InfoNCELoss(gather=True)(torch.zeros(2, 3), torch.zeros(2, 3))
