"""Selecting segments of ragged data."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.ops import select_segments


@given(data=st.data(), sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_equals_a_loop(data, sizes):
    values = torch.arange(sum(sizes)) * 10
    offsets = torch.tensor([sum(sizes[:i]) for i in range(len(sizes))])
    index = torch.tensor(
        data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=8)), dtype=torch.long
    )
    parts = [values[offsets[i] : offsets[i] + sizes[i]] for i in index]
    got, starts = select_segments(values, offsets, index)
    assert got.tolist() == [v for part in parts for v in part.tolist()]
    assert starts.tolist() == [sum(len(p) for p in parts[:i]) for i in range(len(parts))]


def test_nothing_from_nothing():
    empty = torch.empty(0, dtype=torch.long)
    assert [t.tolist() for t in select_segments(empty, empty, empty)] == [[], []]


@pytest.mark.wording
def test_errors_teach():
    values, offsets = torch.arange(4), torch.tensor([0, 2])
    with pytest.raises(IndexError, match="index must name segments 0 to 1, got 0 to 5"):
        select_segments(values, offsets, torch.tensor([0, 5]))
    with pytest.raises(TypeError, match=r"index: expected integers, got torch.float32"):
        select_segments(values, offsets, torch.rand(2))
    with pytest.raises(ValueError, match="offsets: expected 1 axes"):
        select_segments(values, offsets[None], torch.tensor([0]))
