"""What every sampler promises about ranks, epochs, length and resuming."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from embedkit.batch.class_samplers import EpisodeSampler, PKSampler
from embedkit.batch.task_samplers import DomainBalancedSampler, SingleTaskBatchSampler
from embedkit.batch.unique import NoDuplicateBatchSampler


def labels(counts):
    return np.random.default_rng(len(counts)).permutation(np.repeat(np.arange(len(counts)), counts))


def tasks(c, x, s, r):
    return SingleTaskBatchSampler([8 * n for n in c], [2 * x] * len(c), seed=s, replicas=r)


# Each takes a histogram of at least 8 entries >= 2, a factor on the batch, a seed and replicas.
BUILD = {
    "pk": lambda c, x=1, s=0, r=None: PKSampler(labels(c), 2 * x, 2, seed=s, replicas=r),
    "episode": lambda c, x=1, s=0, r=None: EpisodeSampler(
        labels(c), 2, 1, 1, 5 * x, seed=s, replicas=r
    ),
    "task": lambda c, x=1, s=0, r=None: tasks(c, x, s, r),
    "domain": lambda c, x=1, s=0, r=None: DomainBalancedSampler(
        labels([4 * n for n in c]), x * len(c), seed=s, replicas=r
    ),
    "unique": lambda c, x=1, s=0, r=None: NoDuplicateBatchSampler(
        labels(c), 2 * x, seed=s, replicas=r
    ),
}
COUNTS = st.lists(st.integers(2, 9), min_size=8, max_size=10)
WORLD, SEED = st.integers(1, 4), st.integers(0, 2**40)
MANY = [20, 9, 9, 9, 7, 6, 5, 4, 2, 2]
every_sampler = pytest.mark.parametrize("build", BUILD.values(), ids=list(BUILD))


@every_sampler
@given(counts=COUNTS, world=WORLD, seed=SEED)
def test_ranks_part_the_batches_that_one_process_would_see(build, counts, world, seed):
    ranks = [list(build(counts, s=seed, r=(world, r))) for r in range(world)]
    whole = list(build(counts, x=world, s=seed, r=(1, 0)))
    steps = list(zip(*ranks, strict=True))
    if build is BUILD["episode"]:
        assert [episode for step in steps for episode in step] == whole
        return
    parts = [sorted(row for part in step for row in part) for step in steps]
    if build is BUILD["unique"]:  # a short batch of fewer rows than ranks is left out
        whole = [batch for batch in whole if len(batch) >= world]
    assert parts == [sorted(batch) for batch in whole]
    assert all(len(set(part)) == len(part) for part in parts)
    assert all(part for step in steps for part in step)


@every_sampler
@given(counts=COUNTS, world=WORLD, seed=SEED)
def test_length_is_the_number_of_batches(build, counts, world, seed):
    for rank in range(world):
        sampler = build(counts, s=seed, r=(world, rank))
        for epoch in range(2):
            sampler.set_epoch(epoch)
            assert sampler.position == 0
            assert len(list(sampler)) == len(sampler) == len(build(counts, s=seed, r=(world, 0)))
            assert sampler.position == len(sampler)


@every_sampler
@settings(max_examples=12)
@given(counts=COUNTS, seed=SEED)
def test_resume_is_exact_at_every_position(build, counts, seed):
    sampler = build(counts, s=seed, r=(2, 1))
    sampler.set_epoch(3)
    want = list(sampler)
    states, going = [sampler.state_dict(0)], iter(sampler)
    for _ in want:
        next(going)
        states.append(sampler.state_dict())
    following = build(counts, s=seed, r=(2, 1))
    following.set_epoch(4)
    following = list(following)
    for position, state in enumerate(states):
        assert state == sampler.state_dict(position)
        assert state == build_at(build, counts, state, rank=0).state_dict()
        fresh = build_at(build, counts, state, rank=1)
        fresh.set_epoch(3)  # as a loop over epochs does first
        assert (fresh.epoch, fresh.position, len(fresh)) == (3, position, len(want))
        assert list(fresh) == want[position:]
        assert list(fresh) == want
        fresh.set_epoch(4)
        assert list(fresh) == following


def build_at(build, counts, state, rank):
    """A sampler of another seed that has loaded the state."""
    sampler, buffer = build(counts, s=5, r=(2, rank)), io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    sampler.load_state_dict(torch.load(buffer, weights_only=True))
    return sampler


@every_sampler
def test_the_order_depends_on_seed_and_epoch_alone(build):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    sampler = build(MANY)
    first = list(sampler)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    again = list(sampler)
    sampler.set_epoch(1)
    assert first == again == list(build(MANY))
    assert first != list(sampler)
    assert first != list(build(MANY, s=1))


@every_sampler
def test_each_rank_sees_every_row_some_day(build):
    sampler, seen = build(MANY, r=(2, 0)), set()
    for epoch in range(150):
        sampler.set_epoch(epoch)
        seen.update(row for batch in sampler for row in batch)
    factor = {BUILD["task"]: 8, BUILD["domain"]: 4}.get(build, 1)
    assert seen == set(range(factor * sum(MANY)))


@pytest.mark.parametrize("name", ["pk", "episode", "domain", "unique"])
def test_tensors_arrays_and_lists_of_any_integers_are_one(name, monkeypatch):
    plain = labels(MANY)
    monkeypatch.setitem(globals(), "labels", lambda counts: plain)
    want = BUILD[name]([2] * len(MANY))
    for ids in (torch.from_numpy(plain), plain.astype(np.int16), plain.tolist(), plain - 5):
        monkeypatch.setitem(globals(), "labels", lambda counts, ids=ids: ids)
        sampler = BUILD[name]([2] * len(MANY))
        assert sampler.state_dict() == want.state_dict(0)
        assert list(sampler) == list(want)


@every_sampler
def test_a_data_loader_takes_it(build):
    sampler = build(MANY)
    loader = DataLoader(torch.arange(10_000), batch_sampler=sampler)
    assert len(loader) == len(sampler)
    assert [batch.tolist() for batch in loader] == list(sampler)
    for step, _ in enumerate(loader, start=1):
        assert sampler.position == step  # without workers nothing is read ahead


@pytest.mark.slow
def test_with_workers_the_loop_says_where_it_stands():
    sampler = BUILD["pk"](MANY)
    want = list(sampler)
    loader = DataLoader(
        torch.arange(100), batch_sampler=sampler, num_workers=2, multiprocessing_context="spawn"
    )
    for step, batch in enumerate(loader, start=1):
        assert batch.tolist() == want[step - 1]
        if step == 2:
            break
    assert sampler.position > 2  # read ahead
    fresh = BUILD["pk"](MANY)
    fresh.load_state_dict(sampler.state_dict(position=2))
    assert list(fresh) == want[2:]


@every_sampler
def test_ranks_come_from_the_process_group(build, monkeypatch):
    assert (build(MANY).num_replicas, build(MANY).rank) == (1, 0)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    assert list(build(MANY)) == list(build(MANY, r=(4, 3)))


@every_sampler
def test_a_state_that_does_not_fit_changes_nothing(build):
    sampler = build(MANY, s=3, r=(2, 0))
    sampler.set_epoch(2)
    next(iter(sampler))
    before = sampler.state_dict()
    good = build(MANY, r=(2, 1)).state_dict()
    other = "saved by another sampler, or with other ids or sizes"
    wrong = [
        (build(MANY, r=(4, 0)).state_dict(), r"saved on 4 ranks, this sampler is for 2\. .*on as"),
        (build([*MANY, 3], r=(2, 0)).state_dict(), r"saved over \d+ rows, this sampler is over"),
        ({**good, "checksum": 1}, other),
        ({**good, "position": 10_000}, r"position must be from 0 to \d+, the batches of an epoch"),
        ({"epoch": 1, "position": 1}, "the state lacks seed, num_replicas, num_rows, checksum"),
    ]
    if build is not BUILD["task"]:  # it has lengths, not labels
        shifted = [MANY[1], MANY[0], *MANY[2:]]
        wrong.append((build(shifted, r=(2, 0)).state_dict(), other))
    for state, words in wrong:
        with pytest.raises(ValueError, match=f"{type(sampler).__name__}: .*{words}"):
            sampler.load_state_dict(state)
        assert sampler.state_dict() == before


def test_a_state_of_another_sampler_is_refused():
    pk = PKSampler([0, 0, 1, 1], 1, 2)
    with pytest.raises(ValueError, match="PKSampler: the state was saved by another sampler"):
        pk.load_state_dict(NoDuplicateBatchSampler([0, 0, 1, 1], 1).state_dict())


@every_sampler
def test_wrong_ranks_epochs_seeds_and_positions_teach(build):
    words = r"replicas must be \(number of ranks, this rank\) with 0 <= rank < number, got \(2, 2\)"
    with pytest.raises(ValueError, match=words):
        build(MANY, r=(2, 2))
    with pytest.raises(ValueError, match=r"got \(1, 4\)"):  # the wrong way round
        build(MANY, r=(1, 4))
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        build(MANY, s=-1)
    with pytest.raises(ValueError, match="epoch must be >= 0, got -1"):
        build(MANY).set_epoch(-1)
    with pytest.raises(ValueError, match=r"position must be from 0 to \d+, .*, got -1"):
        build(MANY).state_dict(-1)


IDS = {
    "PKSampler": lambda ids: PKSampler(ids, 1, 1),
    "EpisodeSampler": lambda ids: EpisodeSampler(ids, 2, 1, 1, 1),
    "DomainBalancedSampler": lambda ids: DomainBalancedSampler(ids, 1),
    "NoDuplicateBatchSampler": lambda ids: NoDuplicateBatchSampler(ids, 1),
}


@pytest.mark.wording
@pytest.mark.parametrize("name", IDS)
def test_ids_that_are_none_teach(name):
    with pytest.raises(ValueError, match=rf"{name}: \w+ must be one integer for each row .*\(0,\)"):
        IDS[name](torch.empty(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"must be one integer for each row .*\(2, 3\)"):
        IDS[name](torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(TypeError, match=rf"{name}: \w+ must hold integers, got float32\. np\.uniq"):
        IDS[name](torch.zeros(3))
