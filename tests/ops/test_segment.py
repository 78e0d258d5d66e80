"""Segments of ragged data, and means by id."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.ops import segment_mean, select_segments


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


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 9), segments=st.integers(1, 5))
def test_segment_mean_equals_a_loop(seed, rows, segments):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, segments, (rows,), generator=generator)
    got = segment_mean(values, ids, segments)
    for segment in range(segments):
        part = values[ids == segment]
        torch.testing.assert_close(got[segment], part.sum(dim=0) / max(len(part), 1))


def test_segment_mean_sums_half_precision_in_float32():
    values = torch.full((4000, 1), 100.0, dtype=torch.float16)
    mean = segment_mean(values, torch.zeros(4000).long(), 2)
    assert mean.dtype == torch.float16
    assert mean.flatten().tolist() == [100, 0]


def test_segment_mean_has_the_gradient_of_a_mean():
    values = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([2, 0, 2, 2, 0])
    assert torch.autograd.gradcheck(lambda v: segment_mean(v, ids, 4), values)


@pytest.mark.wording
def test_segment_mean_errors_teach():
    values = torch.randn(3, 2)
    with pytest.raises(IndexError, match=r"ids must be 0 to 1, .* got 0 to 5. Number the classes"):
        segment_mean(values, torch.tensor([0, 5, 1]), 2)
    with pytest.raises(ValueError, match=r"ids: expected 3 rows, got shape \(2,\)"):
        segment_mean(values, torch.tensor([0, 1]), 2)
    with pytest.raises(ValueError, match="segment_mean: num_segments must be >= 1, got 0"):
        segment_mean(values, torch.tensor([0, 0, 0]), 0)
