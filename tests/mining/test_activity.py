"""Counts of what takes part, against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.mining.activity import count_active

LABELS = st.lists(st.integers(-2, 2), max_size=9)


@given(labels=LABELS, reference=st.none() | LABELS)
def test_equals_loops(labels, reference):
    own = reference is None
    other = labels if own else reference
    rows = pairs = triplets = 0
    for i, a in enumerate(labels):
        matches = sum(a == b for j, b in enumerate(other) if not (own and i == j))
        rows, pairs = rows + (matches > 0), pairs + matches
        triplets += matches * sum(a != b for b in other)
    got = count_active(
        torch.tensor(labels, dtype=torch.long),
        None if own else torch.tensor(other, dtype=torch.long),
    )
    assert [int(n) for n in got] == [rows, pairs, triplets]


def test_large_batches_are_counted_without_pairs():
    got = count_active(torch.arange(200_000) % 1000)
    assert [int(n) for n in got] == [200_000, 200_000 * 199, 200_000 * 199 * 199_800]


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(TypeError, match=r"labels: expected integers, got torch.float32"):
        count_active(torch.ones(3))
