import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.batch.class_samplers import PKSampler
from embedkit.batch.unique import NoDuplicateBatchSampler


def shuffled(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def flat(batches):
    return [row for batch in batches for row in batch]


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    size=st.integers(1, 5),
    world=st.integers(1, 4),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@example(counts=[9, 2], size=2, world=2, drop_last=False, seed=0)  # parts of short batches
@example(counts=[9, 8, 2, 1, 1, 1], size=3, world=1, drop_last=False, seed=1)  # excess, surplus
def test_no_id_twice_in_a_global_batch_and_every_row_once(counts, size, world, drop_last, seed):
    ids, whole_size = shuffled(counts, seed), size * world
    alone = NoDuplicateBatchSampler(ids, whole_size, seed=seed)
    alone.set_epoch(2)
    lengths = [len(batch) for batch in alone]

    def build(rank):
        options = {"drop_last": drop_last, "seed": seed, "replicas": (world, rank)}
        return NoDuplicateBatchSampler(ids, size, **options)

    if max(lengths) < (whole_size if drop_last else world):
        with pytest.raises(ValueError, match="cannot make one batch"):
            build(0)
        return
    ranks = [build(rank) for rank in range(world)]
    for sampler in ranks:
        sampler.set_epoch(2)
    steps = list(zip(*ranks, strict=True))
    assert len(steps) == len(ranks[0])
    full = [step for step in steps if sum(map(len, step)) == whole_size]
    for step in steps:
        whole = ids[flat(step)]
        assert len(set(whole.tolist())) == len(whole)
        parts = [len(part) for part in step]
        assert 1 <= min(parts) <= max(parts) <= min(size, min(parts) + 1)
    used = flat(flat(steps))
    assert len(set(used)) == len(used)
    if drop_last:
        assert len(full) == len(steps)
    elif world == 1:
        assert sorted(used) == list(range(len(ids)))
    else:  # only short batches of fewer rows than ranks are missing
        assert len(used) == sum(length for length in lengths if length >= world)


@given(counts=st.lists(st.integers(1, 9), min_size=2, max_size=12), size=st.integers(1, 5))
def test_full_batches_come_first_and_are_as_many_as_can_be(counts, size):
    ids = shuffled(counts)
    lengths = [len(batch) for batch in NoDuplicateBatchSampler(ids, size)]
    full = lengths.count(size)
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) >= max(max(counts), -(-len(ids) // size))
    if size <= len(counts):  # PKSampler with one row a class is shown to be the best
        full_only = NoDuplicateBatchSampler(ids, size, drop_last=True)
        assert full >= len(full_only) == len(PKSampler(ids, size, 1))
    short = lengths[full:]
    assert not short or max(short) - min(short) <= 1


def test_without_duplicates_an_epoch_is_a_plain_shuffle():
    batches = list(NoDuplicateBatchSampler(np.arange(103), 10))
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert sorted(flat(batches)) == list(range(103))
    assert flat(batches) != list(range(103))


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_rows_meet_as_by_chance(copies):
    ids, met, epochs = np.arange(12) // copies, np.zeros((12, 12)), 600
    sampler = NoDuplicateBatchSampler(ids, 3)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in sampler:
            met[np.ix_(batch, batch)] += 1
    strangers = ids[:, None] != ids
    expected = epochs * 2 / (12 - copies)  # a row meets 2 of those it may meet
    assert (met[~strangers & ~np.eye(12, dtype=bool)] == 0).all()
    assert (abs(met[strangers] - expected) < 5 * expected**0.5).all()


def test_every_id_is_left_over_as_often():
    left = np.zeros(9)
    sampler = NoDuplicateBatchSampler([0, 1, 2, 3, 4, 5, 6, 7, 7], 4, drop_last=True)
    for epoch in range(800):
        sampler.set_epoch(epoch)
        left[np.setdiff1d(np.arange(9), flat(sampler))] += 1
    assert left.sum() == 800
    assert (abs(left - ([100] * 7 + [50] * 2)) < 5 * left**0.5).all()  # ids take turns, not rows


def test_an_id_with_too_many_rows_makes_no_epoch_longer():
    ids = [0] * 9 + [1, 2, 3, 4, 5]
    sampler = NoDuplicateBatchSampler(ids, 3)  # 2 full batches; of 5 single ids one is left over
    for epoch in range(20):
        sampler.set_epoch(epoch)
        found = [{ids[row] for row in batch} for batch in sampler]
        assert [len(batch) for batch in found] == [3, 3] + [2] + [1] * 6


def test_an_id_that_is_half_the_data_ends_in_short_batches():
    ids = [0] * 10 + list(range(1, 11))
    assert [len(batch) for batch in NoDuplicateBatchSampler(ids, 4)] == [4, 4, 4] + [2] + [1] * 6
    assert len(NoDuplicateBatchSampler(ids, 4, drop_last=True)) == 3


def test_a_million_rows_take_seconds_and_bytes_per_row():
    ids = np.arange(200_000) // 2
    tracemalloc.start()
    sampler = NoDuplicateBatchSampler(ids, 256)
    kept = tracemalloc.get_traced_memory()[0]
    going = iter(sampler)
    next(going)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept < 6.5 * ids.size  # 4 a row and 4 an id
    assert peak < 70 * ids.size
    begin = time.process_time()
    list(sampler)
    assert time.process_time() - begin < 2


def test_sizes_that_cannot_be_teach():
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        NoDuplicateBatchSampler([0, 1], 0)
    words = r"cannot make one batch of 4 rows \(2 on each of 2 ranks\) from 3 different ids with dr"
    with pytest.raises(ValueError, match=words):
        NoDuplicateBatchSampler([0, 1, 2, 2], 2, drop_last=True, replicas=(2, 0))
