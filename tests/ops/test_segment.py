"""Segments of ragged data, and means by id."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.ops import (
    segment_ids,
    segment_max,
    segment_mean,
    segment_softmax,
    select_segments,
)


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
    with pytest.raises(ValueError, match="segment_mean: num_segments must be >= 0, got -1"):
        segment_mean(values, torch.tensor([0, 0, 0]), -1)


@given(seed=st.integers(0, 2**31), sizes=st.lists(st.integers(0, 4), max_size=5))
def test_packed_segments_equal_a_loop(seed, sizes):
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(sizes), 2, generator=generator, dtype=torch.float64)
    ids = segment_ids(offsets, sum(sizes))
    assert ids.tolist() == [i for i, size in enumerate(sizes) for _ in range(size)]
    largest = segment_max(values, ids, len(sizes))
    weights = segment_softmax(values, ids, len(sizes))
    for i, (start, end) in enumerate(pairwise(offsets)):
        part = values[start:end]
        torch.testing.assert_close(weights[start:end], part.softmax(dim=0))
        torch.testing.assert_close(largest[i], part.amax(0) if len(part) else largest[i] * 0.0)


def test_gradients_of_maximum_and_softmax():
    values = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([2, 0, 2, 2, 0])
    assert torch.autograd.gradcheck(lambda v: segment_max(v, ids, 4), values)
    assert torch.autograd.gradcheck(lambda v: segment_softmax(v, ids, 4), values)
    equal = torch.zeros(3, 1, requires_grad=True)
    segment_max(equal, torch.tensor([0, 1, 0]), 2).sum().backward()
    assert equal.grad.flatten().tolist() == [0.5, 1.0, 0.5]


def test_a_large_score_and_a_nan_stay_in_their_segment():
    scores = torch.tensor([[3e38], [-3e38], [torch.nan], [1.0]])
    weights = segment_softmax(scores, torch.tensor([0, 0, 1, 2]), 3)
    assert weights[[0, 1, 3], 0].tolist() == [1.0, 0.0, 1.0]
    assert weights[2].isnan()


@pytest.mark.parametrize("offsets", [[0, 2, 4], [0, 3, 6], [2, 4, 7], [1, 5], [0, 6, 5], [0]])
def test_offsets_that_do_not_add_up(offsets):
    with pytest.raises(ValueError, match=r"offsets: expected 0 first, 5 last .* got \d"):
        segment_ids(torch.tensor(offsets), 5)


@pytest.mark.wording
def test_segment_ids_errors_teach():
    with pytest.raises(ValueError, match="offsets: expected 0, the ends of all segments"):
        segment_ids(torch.tensor([], dtype=torch.long), 0)
    with pytest.raises(TypeError, match="offsets: expected integers"):
        segment_ids(torch.tensor([0.0, 1.0]), 1)


@pytest.mark.parametrize("pool", [segment_max, segment_mean, segment_softmax])
@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (0, 0)])
def test_rows_without_entries_and_no_rows(pool, shape):
    values = torch.randn(*shape, requires_grad=True)
    out = pool(values, torch.zeros(shape[0], dtype=torch.long), 4)
    out.sum().backward()
    assert out.shape == (shape if pool is segment_softmax else (4, shape[1]))
    assert not out.any()
