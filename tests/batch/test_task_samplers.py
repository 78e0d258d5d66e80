from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, TensorDataset

from embedkit.batch.task_samplers import DomainBalancedSampler, SingleTaskBatchSampler

SEED = st.integers(0, 2**31)


@given(
    lengths=st.lists(st.integers(12, 40), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    world=st.integers(1, 4),
    seed=SEED,
)
def test_a_global_batch_is_of_one_task_and_no_row_comes_twice(lengths, sizes, world, seed):
    sizes, ends = sizes[: len(lengths)], np.cumsum(lengths)
    ranks = [
        SingleTaskBatchSampler(lengths, sizes, seed=seed, replicas=(world, r)) for r in range(world)
    ]
    used, updates = [], Counter()
    for step in zip(*ranks, strict=True):
        task = np.searchsorted(ends, np.concatenate(step), side="right")
        assert len(set(task.tolist())) == 1
        assert [len(part) for part in step] == [sizes[task[0]]] * world
        updates[int(task[0])] += 1
        used += [row for part in step for row in part]
    assert len(set(used)) == len(used)
    once = [n // (b * world) for n, b in zip(lengths, sizes, strict=True)]
    assert [updates[task] for task in range(len(once))] == once
    assert len(ranks[0]) == sum(once)


@given(weights=st.lists(st.floats(0.5, 4), min_size=3, max_size=3), seed=SEED)
def test_weights_set_the_shares_of_the_updates(weights, seed):
    lengths, sizes = [10, 100, 35], [2, 4, 3]
    sampler = SingleTaskBatchSampler(lengths, sizes, weights=weights, seed=seed)
    batches = list(sampler)
    assert len(batches) == 5 + 25 + 11
    ends, rows, updates = np.cumsum(lengths), Counter(), Counter()
    for batch in batches:
        assert len(set(batch)) == len(batch)
        updates[int(np.searchsorted(ends, batch[0], side="right"))] += 1
        rows.update(batch)
    for task, (weight, end, length) in enumerate(zip(weights, ends, lengths, strict=True)):
        assert abs(updates[task] - 41 * weight / sum(weights)) < 1
        seen = [rows[row] for row in range(end - length, end)]
        if length % sizes[task] == 0:  # passes are whole, so rows are used evenly
            assert max(seen) - min(seen) <= 1


def test_lengths_as_weights_change_next_to_nothing():
    plain = SingleTaskBatchSampler([40, 80], [4, 4])
    assert list(SingleTaskBatchSampler([40, 80], [4, 4], weights=[40.0, 80.0])) == list(plain)


def test_tasks_take_turns_by_chance():
    batches = list(SingleTaskBatchSampler([400, 400], [2, 2]))
    first = np.array([batch[0] < 400 for batch in batches])
    assert first.sum() == 200
    assert 160 < (first[1:] != first[:-1]).sum() < 240  # 200 expected, sigma 10


def test_numbers_are_those_of_a_concat_dataset():
    data = ConcatDataset([TensorDataset(torch.zeros(5)), TensorDataset(torch.ones(7))])
    for batch in SingleTaskBatchSampler([5, 7], [2, 3]):
        assert {float(data[row][0]) for row in batch} == {float(len(batch) == 3)}


@given(
    counts=st.lists(st.integers(8, 30), min_size=1, max_size=4),
    part=st.integers(1, 2),
    world=st.integers(1, 4),
    epoch_of=st.sampled_from(["largest", "smallest"]),
    seed=SEED,
)
def test_batches_hold_as_many_rows_of_each_domain(counts, part, world, epoch_of, seed):
    names = np.array([5, -1, 9, 2])[: len(counts)]
    domains = np.random.default_rng(seed).permutation(np.repeat(names, counts))
    ranks = [
        DomainBalancedSampler(
            domains, part * len(counts), epoch_of=epoch_of, seed=seed, replicas=(world, r)
        )
        for r in range(world)
    ]
    rows = Counter()
    for step in zip(*ranks, strict=True):
        whole = [row for share in step for row in share]
        assert len(set(whole)) == len(whole)
        for share in step:
            assert domains[share].tolist() == np.repeat(np.sort(names), part).tolist()
        rows.update(whole)
    chosen = max(counts) if epoch_of == "largest" else min(counts)
    assert len(ranks[0]) == chosen // (part * world)
    for name, count in zip(names, counts, strict=True):
        seen = [rows[row] for row in np.flatnonzero(domains == name)]
        if count == chosen:
            assert max(seen) == 1
        passes = -(-len(ranks[0]) // (count // (part * world)))
        assert max(seen) <= passes


def test_small_domains_are_used_evenly():
    domains = np.repeat([0, 1], [4, 40])
    rows = Counter(row for batch in DomainBalancedSampler(domains, 4) for row in batch)
    assert [rows[row] for row in range(4)] == [10] * 4
    assert [rows[row] for row in range(4, 44)] == [1] * 40


def test_sizes_that_cannot_be_teach():
    words = r"must have one entry for each data set, got 2, 1 and 2"
    with pytest.raises(ValueError, match=words):
        SingleTaskBatchSampler([8, 8], [2])
    with pytest.raises(ValueError, match="got 2, 2 and 3"):
        SingleTaskBatchSampler([8, 8], [2, 2], weights=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="got 0, 0 and 0"):
        SingleTaskBatchSampler([], [])
    with pytest.raises(ValueError, match=r"batch_sizes\[1\] must be >= 1, got 0"):
        SingleTaskBatchSampler([8, 8], [2, 0])
    words = r"data set 1 has 7 rows, fewer than its global batch of 8 \(4 on each of 2 ranks\)\. Lo"
    with pytest.raises(ValueError, match=words):
        SingleTaskBatchSampler([8, 7], [4, 4], replicas=(2, 0))
    with pytest.raises(ValueError, match=r"weights\[0\] must be > 0, got 0"):
        SingleTaskBatchSampler([8, 8], [2, 2], weights=[0.0, 1.0])
    words = r"weights give data set 1 no batch in an epoch of 8\. Raise its weight"
    with pytest.raises(ValueError, match=words):
        SingleTaskBatchSampler([8, 8], [2, 2], weights=[99.0, 1.0])
    with pytest.raises(ValueError, match="expected at most 2147483647 rows, got 4294967296"):
        SingleTaskBatchSampler([2**31, 2**31], [2, 2])
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 2 domains, got 3"):
        DomainBalancedSampler([0, 0, 1], 3)
    words = r"smallest domain has 1 rows, fewer than its part of a global batch, 2 \(1 on each of 2"
    with pytest.raises(ValueError, match=words):
        DomainBalancedSampler([0, 0, 1], 2, replicas=(2, 0))
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        DomainBalancedSampler([0, 0, 1], 0)


@pytest.mark.wording
def test_another_epoch_teaches():
    with pytest.raises(ValueError, match="epoch_of must be one of largest, smallest, got 'mean'"):
        DomainBalancedSampler([0, 1], 2, epoch_of="mean")
