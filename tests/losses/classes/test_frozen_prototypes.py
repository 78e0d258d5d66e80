import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_frozen_prototypes import CASES
from torch import nn

from embedkit.analysis.isotropy import mean_cosine
from embedkit.heads.lexicon import entry_embeddings
from embedkit.losses.classes.frozen_prototypes import (
    PrototypeCrossEntropyLoss,
    prototype_cross_entropy,
)
from embedkit.testing import check_module

ENTRIES = torch.tensor([[2.0, 1.0], [0.0, -1.0]]).double()
ROWS = torch.tensor([[0.5, 0.5], [1.0, -1.0], [0.0, -2.0]]).double()


def test_numbers_made_by_hand():
    torch.testing.assert_close(
        ROWS @ ENTRIES.T, torch.tensor([[1.5, -0.5], [1.0, 1.0], [-2.0, 2.0]]).double()
    )
    loss = prototype_cross_entropy(ROWS, ENTRIES, torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx(0.279408, abs=1e-6)


@given(
    seed=st.integers(0, 2**31),
    b=st.integers(1, 6),
    e=st.integers(1, 9),
    chunk=st.integers(1, 12),
    left_out=st.integers(0, 2),
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
def test_agrees_with_the_dense_form_for_every_chunk_size(seed, b, e, chunk, left_out, reduction):
    generator = torch.Generator().manual_seed(seed)
    rows = (3 * torch.randn(b, 4, generator=generator).double()).requires_grad_()
    entries = torch.randn(e, 4, generator=generator).double()
    target = torch.randint(0, e, (b,), generator=generator)
    target[1 : 1 + left_out] = -100
    got = prototype_cross_entropy(rows, entries, target, chunk_size=chunk, reduction=reduction)
    want = F.cross_entropy(rows @ entries.T, target, reduction=reduction)
    torch.testing.assert_close(got, want)
    upstream = torch.rand_like(got) + 0.1
    grads = [torch.autograd.grad(value, rows, upstream)[0] for value in (got, want)]
    torch.testing.assert_close(*grads)


def test_weights_scale_rows_and_the_mean_divides_by_their_number():
    target, weight = torch.tensor([0, 0, 1]), torch.tensor([0.0, 0.5, 2.0]).double()
    row = F.cross_entropy(ROWS @ ENTRIES.T, target, reduction="none")
    got = prototype_cross_entropy(ROWS, ENTRIES, target, weight=weight)
    torch.testing.assert_close(got, (weight * row).sum() / 3)


def test_only_rows_get_a_gradient_and_no_parameter_is_there():
    entries, rows = ENTRIES.clone(), ROWS.clone().requires_grad_()
    loss = PrototypeCrossEntropyLoss(entries)
    loss(rows, torch.tensor([0, 0, 1])).backward()
    assert rows.grad.abs().sum() > 0
    assert loss.prototypes.grad is None
    assert not list(loss.parameters())
    assert list(loss.state_dict()) == ["prototypes"]


def test_one_entry_costs_nothing_and_duplicates_at_least_log_two():
    rows = torch.randn(3, 2, requires_grad=True)
    loss = prototype_cross_entropy(rows, torch.randn(1, 2), torch.zeros(3, dtype=torch.long))
    loss.backward()
    assert loss == 0
    assert (rows.grad == 0).all()
    entries = torch.tensor([[1.0, 2.0], [1.0, 2.0], [-1.0, 0.0]])
    each = prototype_cross_entropy(rows, entries, torch.tensor([0, 1, 0]), reduction="none")
    assert (each >= math.log(2) - 1e-6).all()


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e8])
def test_large_logits_are_finite_and_never_below_zero(scale):
    rows, entries = torch.randn(8, 16, requires_grad=True), scale * torch.randn(50, 16)
    target = (rows.detach() @ entries.T).argmax(1)
    each = prototype_cross_entropy(rows, entries, target, chunk_size=7, reduction="none")
    each.sum().backward()
    assert (each >= 0).all()
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    rows, entries = (30 * torch.randn(4, 8)).to(dtype), (30 * torch.randn(9, 8)).to(dtype)
    rows.requires_grad_()
    target = torch.tensor([0, 3, 8, 1])
    got = prototype_cross_entropy(rows, entries, target, chunk_size=4)
    got.backward()
    assert got.dtype == torch.float32
    assert rows.grad.dtype == dtype
    torch.testing.assert_close(got, F.cross_entropy(rows.float() @ entries.float().T, target))


def test_autocast_does_not_lower_the_precision():
    rows, entries, target = torch.randn(4, 8), torch.randn(9, 8), torch.tensor([0, 3, 8, 1])
    want = prototype_cross_entropy(rows, entries, target)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(prototype_cross_entropy(rows, entries, target), want)


def test_rows_left_out_may_hold_anything_and_others_may_not():
    rows = torch.tensor([[1.0, 0.0], [torch.inf, torch.nan]], requires_grad=True)
    loss = prototype_cross_entropy(rows, ENTRIES.float(), torch.tensor([1, -100]))
    loss.backward()
    assert loss.isfinite()
    assert rows.grad.isfinite().all()
    nobody = prototype_cross_entropy(rows, ENTRIES.float(), torch.tensor([-100, -100]))
    assert nobody == 0
    assert nobody.requires_grad
    assert not prototype_cross_entropy(rows, ENTRIES.float(), torch.tensor([1, 0])).isfinite()


def test_without_grad_nothing_is_kept():
    rows = torch.randn(3, 2, requires_grad=True)
    with torch.no_grad():
        loss = prototype_cross_entropy(rows, ENTRIES.float(), torch.tensor([0, 1, 1]))
    assert not loss.requires_grad
    want = prototype_cross_entropy(rows, ENTRIES.float(), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(loss, want.detach())


def test_a_second_derivative_raises():
    rows = ROWS.clone().requires_grad_()
    loss = prototype_cross_entropy(rows, ENTRIES, torch.tensor([0, 0, 1]))
    (first,) = torch.autograd.grad(loss, rows, create_graph=True)
    with pytest.raises(RuntimeError, match=r"second derivatives are not defined. Use"):
        first.sum().backward()


def test_contract():
    check_module(*CASES[PrototypeCrossEntropyLoss], exempt={"compile": "one at a time"})


@pytest.mark.compile
def test_contract_compiled():
    names = "state_dict copies gradients autocast empty_batch moves seed"
    exempt = dict.fromkeys(names.split(), "one at a time")
    check_module(*CASES[PrototypeCrossEntropyLoss], exempt=exempt)


def test_prototypes_that_require_grad_teach():
    entries = torch.randn(4, 2, requires_grad=True)
    with pytest.raises(ValueError, match=r"PrototypeCrossEntropyLoss: prototypes must be frozen"):
        PrototypeCrossEntropyLoss(entries)
    with pytest.raises(ValueError, match=r"requires grad. Pass prototypes.detach\(\)"):
        prototype_cross_entropy(torch.randn(1, 2), entries, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"prototypes must be frozen"):
        PrototypeCrossEntropyLoss(torch.nn.Parameter(torch.randn(4, 2)))


@pytest.mark.parametrize("bad", [-1, 2])
def test_targets_out_of_range_teach(bad):
    with pytest.raises(ValueError, match=r"target must be in 0 to 1, .* got .*" + str(bad)):
        prototype_cross_entropy(ROWS, ENTRIES, torch.tensor([0, bad, 1]))


@pytest.mark.wording
def test_wrong_arguments_teach():
    target = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match=r"embeddings: expected last axis of size 2, .* As wide"):
        prototype_cross_entropy(torch.zeros(3, 4), ENTRIES, target)
    with pytest.raises(ValueError, match=r"target: expected 3 rows"):
        prototype_cross_entropy(ROWS, ENTRIES, target[:2])
    with pytest.raises(TypeError, match=r"target: expected integers, got torch.float32"):
        prototype_cross_entropy(ROWS, ENTRIES, target.float())
    with pytest.raises(ValueError, match=r"weight: expected shape \(3,\), .* got \(2,\)"):
        prototype_cross_entropy(ROWS, ENTRIES, target, weight=torch.ones(2))
    with pytest.raises(ValueError, match=r"the number of prototypes must be >= 1, got 0"):
        PrototypeCrossEntropyLoss(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"chunk_size must be >= 1, got 0"):
        PrototypeCrossEntropyLoss(torch.zeros(2, 3), chunk_size=0)
    with pytest.raises(ValueError, match=r"reduction must be one of mean, sum, none"):
        PrototypeCrossEntropyLoss(torch.zeros(2, 3), reduction="all")


def test_a_round_of_training_spreads_the_entries():
    entry = torch.arange(120) % 40
    texts = torch.randn(120, 8) + torch.randn(40, 8)[entry] + 3
    encoder, layer = nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    before = entry_embeddings([(encoder(texts), entry)], 40)
    loss_of = PrototypeCrossEntropyLoss(before, chunk_size=16)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *layer.parameters()], lr=1e-2)
    for _ in range(60):
        loss = loss_of(layer(encoder(texts)), entry)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = entry_embeddings([(encoder(texts), entry)], 40)
    assert mean_cosine(after) < mean_cosine(before) - 0.1
    torch.testing.assert_close(loss_of.prototypes, before, rtol=0, atol=0)
