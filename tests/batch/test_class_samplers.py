from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow

from embedkit.batch.class_samplers import EpisodeSampler, PKSampler, split_episode

COUNTS = st.lists(st.integers(1, 12), min_size=4, max_size=9)
SEED = st.integers(0, 2**31)


def shuffled(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def can_be_made(sets, batches, size):
    """By maximum flow: can ``batches`` batches of ``size`` different classes be made?"""
    classes = len(sets)
    sink = 1 + classes + batches
    edges = [(0, 1 + c, n) for c, n in enumerate(sets)]
    edges += [(1 + c, 1 + classes + b, 1) for c in range(classes) for b in range(batches)]
    edges += [(1 + classes + b, sink, size) for b in range(batches)]
    start, end, room = np.array(edges, np.int32).T
    graph = coo_array((room, (start, end)), shape=(sink + 1, sink + 1)).tocsr()
    return maximum_flow(graph, 0, sink).flow_value == batches * size


@given(
    counts=COUNTS,
    num_classes=st.integers(1, 3),
    num_items=st.integers(1, 4),
    world=st.integers(1, 2),
    seed=SEED,
)
def test_pk_batches_hold_p_classes_of_k_rows(counts, num_classes, num_items, world, seed):
    labels = shuffled(counts, seed)
    sets = np.array(counts) // num_items
    if (sets > 0).sum() < num_classes * world:
        with pytest.raises(ValueError, match=f"needs {num_classes * world} classes with at least"):
            PKSampler(labels, num_classes, num_items, replicas=(world, 0))
        return
    ranks = [
        PKSampler(labels, num_classes, num_items, seed=seed, replicas=(world, r))
        for r in range(world)
    ]
    used = []
    for step in zip(*ranks, strict=True):
        found = labels[np.array(step)].reshape(-1, num_items)
        assert (found == found[:, :1]).all()  # class-major
        assert len(set(found[:, 0])) == num_classes * world
        used += [row for part in step for row in part]
    assert len(set(used)) == len(used)
    taken = Counter(labels[used].tolist())
    able = np.flatnonzero(sets)
    assert set(taken) <= set(able.tolist())
    assert len(taken) == min(len(able), len(ranks[0]) * num_classes * world)
    left = np.minimum(sets, len(ranks[0])).sum() - len(used) // num_items
    assert 0 <= left < num_classes * world  # less than a batch of sets sits the epoch out


@given(counts=COUNTS, num_classes=st.integers(1, 4), num_items=st.integers(1, 3))
def test_pk_makes_as_many_batches_as_can_be_made(counts, num_classes, num_items):
    sets = np.array(counts) // num_items
    if (sets > 0).sum() >= num_classes:
        batches = len(PKSampler(shuffled(counts), num_classes, num_items))
        assert can_be_made(sets, batches, num_classes)
        assert not can_be_made(sets, batches + 1, num_classes)


def test_pk_gives_every_row_its_turn():
    labels = shuffled([7, 5, 30, 4, 1])
    sampler, used = PKSampler(labels, 2, 2), set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        used.update(row for batch in sampler for row in batch)
    assert used == set(np.flatnonzero(labels != 4).tolist())


def test_pk_classes_meet_as_by_chance():
    """A class with 20 sets must not meet the same classes 20 times."""
    classes, each, num_classes = 200, 20, 10
    labels, rng = np.repeat(np.arange(classes), each), np.random.default_rng(0)

    def meetings(batches):
        held = np.zeros((classes * each // num_classes, classes))
        for number, batch in enumerate(batches):
            held[number, batch] = 1
        return (held.T @ held)[np.triu_indices(classes, 1)]

    by_chance = meetings(rng.choice(classes, num_classes, False) for _ in range(400))
    ours = meetings(labels[batch] for batch in PKSampler(labels, num_classes, 1))
    assert ours.mean() == by_chance.mean()
    assert ours.var() < 1.1 * by_chance.var()


@given(
    counts=st.lists(st.integers(1, 9), min_size=3, max_size=8),
    shots=st.integers(1, 3),
    queries=st.integers(1, 3),
    seed=SEED,
)
def test_episodes_hold_support_then_query_rows_all_different(counts, shots, queries, seed):
    labels, ways = shuffled(counts, seed), 3
    if sum(n >= shots + queries for n in counts) < ways:
        with pytest.raises(ValueError, match=f"at least {shots + queries} rows .*, got"):
            EpisodeSampler(labels, ways, shots, queries, 4)
        return
    for batch in EpisodeSampler(labels, ways, shots, queries, 4, seed=seed):
        assert len(set(batch)) == len(batch) == ways * (shots + queries)
        found = torch.from_numpy(labels)[torch.tensor(batch)]
        support, query, local = split_episode(found, ways, shots, queries)
        names = support.unflatten(0, (ways, shots))
        assert (names == names[:, :1]).all()
        assert names[:, 0].unique().numel() == ways
        assert torch.equal(names[local, 0], query)
        assert torch.equal(local, torch.arange(ways).repeat_interleave(queries))


def test_episodes_draw_classes_and_rows_evenly():
    labels = np.repeat([0, 1, 2, 3, 4], [40, 8, 8, 8, 2])
    support, rows, episodes = Counter(), Counter(), 1000
    for batch in EpisodeSampler(labels, 2, 1, 2, episodes):
        support.update(labels[batch[:2]].tolist())
        rows.update(row for row in batch if 40 <= row < 48)
    assert support.keys() == {0, 1, 2, 3}  # class 4 has too few rows
    assert all(abs(n - episodes / 2) < 80 for n in support.values())  # 5 sigma
    assert all(abs(n - episodes * 3 / 16) < 62 for n in rows.values())


def test_split_episode_keeps_trailing_axes_and_gradients():
    x = torch.randn(2 * 5, 3, 4, requires_grad=True)
    support, query, labels = split_episode(x, 2, 2, 3)
    assert support.shape == (4, 3, 4)
    assert query.shape == (6, 3, 4)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    (support.sum() + 2 * query.sum()).backward()
    assert x.grad[:, 0, 0].tolist() == [1.0] * 4 + [2.0] * 6


@pytest.mark.compile
def test_split_episode_compiles():
    x = torch.randn(10, 4)
    compiled = torch.compile(split_episode, fullgraph=True, backend="aot_eager")
    for ours, want in zip(compiled(x, 2, 2, 3), split_episode(x, 2, 2, 3), strict=True):
        assert torch.equal(ours, want)


def test_sizes_that_cannot_be_teach():
    labels = [0, 0, 0, 1, 1, 1, 2]
    with pytest.raises(ValueError, match="PKSampler: num_classes must be >= 1, got 0"):
        PKSampler(labels, 0, 2)
    with pytest.raises(ValueError, match="PKSampler: num_items must be >= 1, got 0"):
        PKSampler(labels, 2, 0)
    words = r"needs 4 classes with at least 2 rows \(2 on each of 2 ranks\), got 2\. Lower num_cl"
    with pytest.raises(ValueError, match=words):
        PKSampler(labels, 2, 2, replicas=(2, 0))
    with pytest.raises(ValueError, match=r"num_ways must be >= 2, got 1\. One class leaves nothin"):
        EpisodeSampler(labels, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="EpisodeSampler: num_shots must be >= 1, got 0"):
        EpisodeSampler(labels, 2, 0, 1, 1)
    with pytest.raises(ValueError, match="EpisodeSampler: num_episodes must be >= 1, got 0"):
        EpisodeSampler(labels, 2, 1, 1, 0)
    words = r"needs 3 classes with at least 3 rows \(1 support and 2 query\), got 2\. Lower num_wa"
    with pytest.raises(ValueError, match=words):
        EpisodeSampler(labels, 3, 1, 2, 1)
    words = r"x: expected 6 rows, got shape \(7,\)\. It is one episode: 2 x \(1 \+ 2\) rows"
    with pytest.raises(ValueError, match=words):
        split_episode(torch.zeros(7), 2, 1, 2)
    with pytest.raises(ValueError, match="split_episode: num_queries must be >= 1, got 0"):
        split_episode(torch.zeros(2), 2, 1, 0)
