"""Preference ranking: against its definition as a double loop, and linear in memory."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses.scores import preference
from embedkit.losses.scores.preference import PROLoss, pro_loss

PRED = torch.tensor([0.9, 0.2, 0.5, 0.4], dtype=torch.float64)
TARGET = torch.tensor([5, 1, 3, 3])


def terms(pred, target, temperature, eps=1e-8):
    """The definition, one item at a time."""
    out = []
    for x, y in zip(pred, target, strict=True):
        below = [(y - v, z / temperature) for v, z in zip(target, pred, strict=True) if y - v > eps]
        if below:
            own = max(w for w, _ in below) * x / temperature
            out.append(torch.stack([own, *(w * z for w, z in below)]).logsumexp(0) - own)
    return out


def test_hand_numbers():
    want = [0.012830, 0.263282, 0.371101]
    got = [term.item() for term in terms(PRED, TARGET.double(), 0.5)]
    assert got == pytest.approx([want[0], want[1], want[2]], abs=5e-7)
    assert pro_loss(PRED, TARGET / 5).item() == pytest.approx(0.090265, abs=5e-7)
    assert pro_loss(PRED, TARGET, temperature=0.5).item() == pytest.approx(0.215738, abs=5e-7)


@pytest.mark.parametrize("entries", [1, 40, 2**20])
@given(seed=st.integers(0, 2**31))
def test_equals_the_loop_for_every_block_size(entries, seed):
    torch.manual_seed(seed)
    pred = torch.rand(11, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, (11,)).double() / 3
    want = torch.stack(terms(pred, target, 0.1)).mean()
    (gradient,) = torch.autograd.grad(want, pred)
    before, preference._ENTRIES = preference._ENTRIES, entries
    try:
        got = pro_loss(pred, target, temperature=0.1)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(torch.autograd.grad(3 * got, pred)[0], 3 * gradient)
        with torch.no_grad():
            torch.testing.assert_close(pro_loss(pred, target, temperature=0.1), want)
    finally:
        preference._ENTRIES = before


def test_targets_closer_than_eps_are_ties():
    pred, target = torch.rand(4), torch.tensor([0.0, 0.05, 0.5, 0.55])
    tied = torch.tensor([0.0, 0.0, 0.5, 0.5])
    assert len(terms(pred, target, 0.5, eps=0.1)) == 2
    want = torch.stack(terms(pred, target, 0.5, eps=0.1)).mean()
    torch.testing.assert_close(pro_loss(pred, target, temperature=0.5, eps=0.1), want)
    assert not torch.isclose(pro_loss(pred, tied, temperature=0.5), want)


def test_a_shift_matters_only_where_weights_differ():
    pred, binary = torch.rand(6), torch.arange(6) % 2
    torch.testing.assert_close(pro_loss(pred + 1, binary), pro_loss(pred, binary))
    graded = torch.arange(6) / 5
    assert not torch.isclose(pro_loss(pred + 1, graded), pro_loss(pred, graded))


def test_one_pair_above_the_other_is_a_logistic_loss():
    got = pro_loss(torch.tensor([0.7, 0.3]), torch.tensor([1.0, 0.0]), temperature=0.5)
    assert got.item() == pytest.approx(math.log1p(math.exp(-0.4 / 0.5)), abs=1e-6)


def test_saved_memory_is_linear():
    saved = []
    pred = torch.rand(3000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel()) or t, lambda t: t
    ):
        pro_loss(pred, torch.rand(3000)).backward()
    assert sum(saved) <= 20 * 3000


def test_second_derivatives_are_refused():
    pred = torch.rand(4, requires_grad=True)
    (gradient,) = torch.autograd.grad(pro_loss(pred, torch.rand(4)), pred, create_graph=True)
    with pytest.raises(RuntimeError, match="pro_loss: it has no second derivative"):
        gradient.sum().backward()


def test_eps_must_be_positive():
    with pytest.raises(ValueError, match=r"PROLoss: eps must be > 0, got 0. Targets closer"):
        PROLoss(eps=0.0)
