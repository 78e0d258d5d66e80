"""Drift and analogies: by hand, and what must not matter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.graphs.semantics import analogy_accuracy, semantic_drift


def rows(seed, n=9, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()


def test_hand_numbers():
    y = torch.tensor([[3.0, 0.0], [0.0, 4.0], [-2.0, 0.0]])
    drift = semantic_drift(y, torch.tensor([[0, 1], [0, 2]]))
    assert drift.raw == pytest.approx((5 + 5) / 2)
    assert drift.unit == pytest.approx((math.sqrt(2) + 2) / 2)
    mean, std = y.mean(0), y.std(0, correction=0)
    z = (y - mean) / std
    want = ((z[0] - z[1]).norm() + (z[0] - z[2]).norm()) / 2
    assert drift.standardized == pytest.approx(float(want))
    # Three pairs, all equally likely: (0, 1), (0, 2), (1, 2).
    assert drift.random == pytest.approx((2 * math.sqrt(2) + 2) / 3, abs=0.02)
    assert drift.relative == pytest.approx(drift.unit / drift.random)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_analogies_are_gaps_of_gaps(seed):
    y, groups = rows(seed), torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    want = ((y[[1, 5]] - y[[0, 4]]) - (y[[3, 7]] - y[[2, 6]])).norm(dim=1).mean()
    drift = semantic_drift(y, groups)
    assert drift.raw == pytest.approx(float(want))
    rotation = torch.linalg.qr(rows(seed + 1, 3)).Q
    turned = semantic_drift(5 * y @ rotation, groups)
    assert turned.unit == pytest.approx(drift.unit)
    assert turned.raw == pytest.approx(5 * drift.raw)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_3cosadd_is_its_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    y = rows(seed)
    quads = torch.stack([torch.randperm(9, generator=generator)[:4] for _ in range(12)])
    unit, right = y / y.norm(dim=1, keepdim=True), 0
    for a, b, c, d in quads.tolist():
        scores = {i: float((unit[b] - unit[a] + unit[c]) @ unit[i]) for i in range(9)}
        right += max(set(range(9)) - {a, b, c}, key=scores.get) == d
    assert analogy_accuracy(y, quads) == pytest.approx(right / 12)


def test_equal_answers_share_the_point_and_nothing_is_nan():
    y = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-0.1, 1.0], [-0.1, 1.0]])
    assert analogy_accuracy(y, torch.tensor([[0, 1, 2, 3]])) == 0.5
    assert math.isnan(analogy_accuracy(y, torch.empty(0, 4, dtype=torch.long)))
    assert math.isnan(semantic_drift(y, torch.empty(0, 2, dtype=torch.long)).unit)
    assert semantic_drift(torch.zeros(3, 2), torch.tensor([[0, 1]])).unit == 0.0
    nothing = semantic_drift(torch.zeros(0, 2), torch.empty(0, 2, dtype=torch.long))
    assert all(math.isnan(value) for value in nothing)


@pytest.mark.wording
def test_bad_arguments_are_explained():
    y = torch.eye(4)
    with pytest.raises(ValueError, match=r"\(p, 2\) pairs or \(p, 4\) analogies, got \(1, 3\)"):
        semantic_drift(y, torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match=r"groups must lie in \[0, 3\].*got values in \[0, 4\]"):
        semantic_drift(y, torch.tensor([[0, 4]]))
    with pytest.raises(TypeError, match=r"groups: expected integers, got torch\.float32"):
        semantic_drift(y, torch.tensor([[0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"quadruples must be \(p, 4\): a, b, c, d, got \(1, 2\)"):
        analogy_accuracy(y, torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match="d is one of a, b, c"):
        analogy_accuracy(y, torch.tensor([[0, 1, 2, 1]]))
