"""Frequencies from a stream: the loop of the paper, and how the stream is cut."""

import copy

import pytest
import torch
from batch.cases_frequency import CASES
from hypothesis import given
from hypothesis import strategies as st

from embedkit.batch.frequency import FrequencyEstimator
from embedkit.testing import check_module

seeds = st.integers(0, 2**31)


def some_stream(seed, n, ids=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, ids, (n,), generator=generator)


def by_hand(stream, ids, rate):
    """Algorithm 2 for batches of one, with the weight that the average has gathered beside it."""
    last, gap, mass = [0] * ids, [0.0] * ids, [0.0] * ids
    for t, y in enumerate(stream.tolist(), start=1):
        gap[y] = (1 - rate) * gap[y] + rate * (t - last[y])
        mass[y] = (1 - rate) * mass[y] + rate
        last[y] = t
    gaps = [g / m if m else len(stream) + 1.0 for g, m in zip(gap, mass, strict=True)]
    return -torch.tensor(gaps, dtype=torch.float64).log(), last


@given(seed=seeds, sizes=st.lists(st.integers(0, 9), max_size=6), rate=st.floats(0.01, 1.0))
def test_equals_the_loop_however_the_stream_is_cut(seed, sizes, rate):
    stream = some_stream(seed, sum(sizes))
    frequency = FrequencyEstimator(7, rate).double()
    for part in stream.split(sizes):
        frequency.update(part)
    want, last = by_hand(stream, 7, rate)
    torch.testing.assert_close(frequency(torch.arange(7)), want)
    assert frequency.last.tolist() == last
    assert frequency.time == len(stream)


def test_a_batch_of_one_id_visits_it_as_often():
    frequency = FrequencyEstimator(3, rate=0.5)
    frequency.update(torch.tensor([2, 2, 2, 2]))
    torch.testing.assert_close(frequency(torch.tensor([2])), torch.zeros(1))
    torch.testing.assert_close(frequency(torch.tensor([0])), -torch.tensor([5.0]).log())


def test_finds_the_frequencies():
    # Batches of 64 hold the first id always: its probability of one draw is wanted.
    q = 1 / torch.arange(1.0, 21.0)
    q /= q.sum()
    generator = torch.Generator().manual_seed(0)
    stream = q.multinomial(12800, replacement=True, generator=generator)
    frequency = FrequencyEstimator(20, rate=0.01)
    for part in stream.split(64):
        frequency.update(part)
    error = frequency(torch.arange(20)) - q.log()
    assert error.abs().max() < 0.25  # sqrt(0.01 / 2) = 0.07 is one standard deviation
    assert error.square().mean().sqrt() < 0.12


def test_follows_a_change():
    frequency = FrequencyEstimator(2, rate=0.05)
    for q in (0.9, 0.1):
        for _ in range(40):
            frequency.update((torch.rand(25) > q).long())
    assert (frequency(torch.arange(2)).exp() - torch.tensor([0.1, 0.9])).abs().max() < 0.06


def test_reading_changes_nothing_and_keeps_shapes():
    frequency = FrequencyEstimator(5)
    frequency.update(torch.tensor([1, 2]))
    before = copy.deepcopy(frequency.state_dict())
    out = frequency(torch.tensor([[0, 1, 2], [4, 4, 1]]))
    assert out.shape == (2, 3)
    assert not out.requires_grad
    assert frequency(torch.arange(0)).shape == (0,)
    frequency.update(torch.arange(0))
    torch.testing.assert_close(frequency.state_dict(), before)


def test_resumes_exactly():
    stream = some_stream(0, 60)
    whole, first = FrequencyEstimator(6), FrequencyEstimator(6)
    whole.update(stream)
    first.update(stream[:25])
    second = FrequencyEstimator(6)
    second.load_state_dict(first.state_dict())
    second.update(stream[25:])
    torch.testing.assert_close(second.state_dict(), whole.state_dict())


def test_contract():
    for build, inputs, exempt in CASES.values():
        check_module(build, inputs, exempt=exempt)


@pytest.mark.compile
def test_compiles_reading_and_counting():
    stream, eager, compiled = some_stream(1, 12), FrequencyEstimator(6), FrequencyEstimator(6)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(frequency, ids):
        frequency.update(ids)
        return frequency(ids)

    eager.update(stream)
    torch.testing.assert_close(step(compiled, stream), eager(stream))
    torch.testing.assert_close(compiled.state_dict(), eager.state_dict())


def test_errors_teach():
    with pytest.raises(
        ValueError, match=r"FrequencyEstimator: rate must be in \(0, 1\], got 0. It"
    ):
        FrequencyEstimator(3, rate=0.0)
    with pytest.raises(ValueError, match=r"FrequencyEstimator: num_embeddings must be >= 1, got 0"):
        FrequencyEstimator(0)
    frequency = FrequencyEstimator(3)
    for ids in ([0, 3], [-1, 2]):
        for call in (frequency, frequency.update):
            with pytest.raises(IndexError, match=rf"ids must be 0 to 2, got {ids[0]} to {ids[1]}"):
                call(torch.tensor(ids))
    with pytest.raises(RuntimeError, match=r"update in evaluation mode would count evaluated"):
        frequency.eval().update(torch.tensor([0]))


@pytest.mark.wording
def test_wrong_types_teach():
    frequency = FrequencyEstimator(3)
    with pytest.raises(TypeError, match=r"ids: expected integers, got torch.float32. Number the"):
        frequency(torch.rand(3))
    with pytest.raises(ValueError, match=r"ids: expected 1 axes \(n\), got shape \(1, 1\)"):
        frequency.update(torch.tensor([[1]]))
