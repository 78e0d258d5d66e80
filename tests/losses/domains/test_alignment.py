"""Alignment losses are the distances of ``embedkit.geometry`` with their settings."""

import pytest
import torch
from losses.cases_domains import CASES

from embedkit.geometry.divergence import coral_distance, mmd, sliced_wasserstein
from embedkit.losses.domains.alignment import CORALLoss, MMDLoss, SlicedWassersteinLoss
from embedkit.testing import check_module

HERE = (MMDLoss, CORALLoss, SlicedWassersteinLoss)


def test_they_are_the_distances():
    x, y, directions = torch.randn(4, 3), torch.randn(6, 3), torch.randn(5, 3)
    assert MMDLoss()(x, y) == mmd(x, y)
    assert MMDLoss([1, 2], unbiased=True)(x, y) == mmd(x, y, bandwidth=[1, 2], unbiased=True)
    assert MMDLoss(torch.tensor(0.5)).bandwidth == MMDLoss(0.5).bandwidth == (0.5,)
    assert CORALLoss()(x, y) == coral_distance(x, y)
    want = sliced_wasserstein(x, y, directions=directions, order=1)
    assert SlicedWassersteinLoss(order=1)(x, y, directions) == want
    drawn = [SlicedWassersteinLoss(7)(x, y, generator=torch.Generator()) for _ in range(2)]
    assert drawn[0] == drawn[1]
    want = sliced_wasserstein(x, y, num_projections=7, generator=torch.Generator())
    assert drawn[0] == want


@pytest.mark.parametrize("loss", [MMDLoss(), CORALLoss(), SlicedWassersteinLoss()])
def test_minimising_brings_samples_together(loss):
    torch.manual_seed(0)
    x, y = torch.randn(64, 2) * torch.tensor([1.0, 0.5]) + 1, torch.randn(80, 2)
    scale = torch.ones(2, requires_grad=True)
    shift = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([scale, shift], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss(x * scale + shift, y).backward()
        optimizer.step()
    moved = x * scale + shift
    torch.testing.assert_close(moved.std(0), y.std(0), atol=0.2, rtol=0)
    if not isinstance(loss, CORALLoss):
        torch.testing.assert_close(moved.mean(0), y.mean(0), atol=0.2, rtol=0)


@pytest.mark.parametrize("module", HERE)
def test_contract(module):
    check_module(*CASES[module], exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("module", HERE)
def test_contract_compiled(module):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[module], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.compile
def test_defaults_compile_into_one_graph():
    x, y = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    for loss in (MMDLoss(), SlicedWassersteinLoss()):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        compiled(x, y).backward()
        assert x.grad.isfinite().all()


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(
        ValueError, match=r"MMDLoss: bandwidth must be > 0, got 0. In units of dist"
    ):
        MMDLoss(0.0)
    with pytest.raises(ValueError, match=r"MMDLoss: bandwidth must be > 0, got -1"):
        MMDLoss([1.0, -1.0])
    with pytest.raises(ValueError, match=r"MMDLoss: bandwidth must not be an empty list; None"):
        MMDLoss([])
    with pytest.raises(ValueError, match=r"num_projections must be >= 1, got 0"):
        SlicedWassersteinLoss(0)
    with pytest.raises(ValueError, match=r"SlicedWassersteinLoss: order must be 1 or 2, got 3"):
        SlicedWassersteinLoss(order=3)
