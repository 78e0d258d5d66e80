"""Strength and learning rate of adversarial training."""

import copy
import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.ops.adversarial.schedules import (
    AdversarialStrength,
    AnnealedRate,
    annealing_factor,
    reversal_strength,
)

POINTS = (0, 0.1, 0.25, 0.5, 1)


def test_the_papers_numbers():
    strength = [0, 0.462117, 0.848284, 0.986614, 0.999909]
    rate = [1, 0.594604, 0.390795, 0.260847, 0.165560]
    assert [reversal_strength(p) for p in POINTS] == pytest.approx(strength, abs=5e-7)
    assert [annealing_factor(p) for p in POINTS] == pytest.approx(rate, abs=5e-7)


@given(
    p=st.floats(0, 1),
    gamma=st.floats(0.1, 100),
    low=st.floats(-5, 5),
    high=st.floats(-5, 5),
)
def test_the_released_layers_formula(p, gamma, low, high):
    want = 2 * (high - low) / (1 + math.exp(-gamma * p)) - (high - low) + low
    assert reversal_strength(p, gamma, low, high) == pytest.approx(want, abs=1e-9)


@given(p=st.floats(allow_nan=False))
def test_progress_is_clamped(p):
    inside = min(max(p, 0.0), 1.0)
    assert reversal_strength(p) == reversal_strength(inside)
    assert annealing_factor(p) == annealing_factor(inside)
    assert 0 <= reversal_strength(p, gamma=1e300) <= 1


@given(steps=st.integers(1, 20), cut=st.integers(0, 25))
def test_a_resumed_schedule_goes_on(steps, cut):
    whole = AdversarialStrength(steps, gamma=3.0, low=0.1, high=2.0)
    for _ in range(cut):
        whole.step()
    saved = io.BytesIO()
    torch.save(whole.state_dict(), saved)
    saved.seek(0)
    resumed = AdversarialStrength(1)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for _ in range(5):
        assert resumed.value == whole.value == whole(whole.position)
        whole.step()
        resumed.step()
    assert whole(0) == 0.1
    assert whole(steps) == whole(steps + 7) == reversal_strength(1, 3.0, 0.1, 2.0)
    assert copy.deepcopy(whole).value == whole.value
    assert f"position={cut + 5}" in repr(whole)


def test_the_rate_under_torchs_scheduler():
    def make():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01, momentum=0.9)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, AnnealedRate(4))

    optimizer, scheduler = make()
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    want = [0.01 * annealing_factor(step / 4) for step in range(6)]
    assert rates == pytest.approx(want)
    assert rates[4] == rates[5]
    again, resumed = make()
    saved = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), saved)
    saved.seek(0)
    for part, state in zip((again, resumed), torch.load(saved, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    assert "total_steps=4" in repr(resumed.lr_lambdas[0])


def test_a_wrong_state_changes_nothing():
    strength = AdversarialStrength(10)
    strength.step()
    before = strength.state_dict()
    with pytest.raises(
        ValueError, match=r"a state has gamma, high, low, position, total_steps; go"
    ):
        strength.load_state_dict({"gamma": 1.0})
    with pytest.raises(ValueError, match=r"total_steps must be >= 1, got 0"):
        strength.load_state_dict(before | {"total_steps": 0})
    with pytest.raises(ValueError, match=r"position must be >= 0, got -1"):
        strength.load_state_dict(before | {"position": -1})
    for position in (1.5, math.nan, "3"):
        with pytest.raises(TypeError, match=r"position must be an integer, got .* It counts steps"):
            strength.load_state_dict(before | {"position": position})
    assert strength.state_dict() == before


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match=r"progress must be a number, got nan. Pass step / total"):
        reversal_strength(math.nan)
    with pytest.raises(
        ValueError, match=r"reversal_strength: gamma must be > 0, got 0. 10 is usual"
    ):
        reversal_strength(0.5, gamma=0)
    with pytest.raises(ValueError, match=r"low and high must be finite, got 0.0 and inf"):
        AdversarialStrength(3, high=math.inf)
    with pytest.raises(ValueError, match=r"AdversarialStrength: total_steps must be >= 1, got 0"):
        AdversarialStrength(0)
    for make in (AdversarialStrength, AnnealedRate):
        with pytest.raises(TypeError, match=r"total_steps must be an integer, got nan"):
            make(math.nan)
    with pytest.raises(
        ValueError, match=r"AnnealedRate: beta must be >= 0, got -1. Try 10 and 0.7"
    ):
        AnnealedRate(3, beta=-1)
    with pytest.raises(ValueError, match=r"AnnealedRate: total_steps must be >= 1, got 0"):
        AnnealedRate(0)
    with pytest.raises(ValueError, match=r"annealing_factor: alpha must be >= 0, got nan"):
        annealing_factor(0.5, alpha=math.nan)
