"""Negatives of users: never a click, each item that is left as likely as it should be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import embedkit.mining.sampling as sampling
from embedkit.mining.sampling import PopularityNegativeSampler, UniformNegativeSampler

seeds = st.integers(0, 2**31)
both = pytest.mark.parametrize("sampler", [UniformNegativeSampler, PopularityNegativeSampler])


def clicks(seed, users, items, share):
    """A random click matrix as pairs in any order, some twice, and as a table."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand(users, items, generator=generator) < share
    pairs = table.nonzero()
    pairs = torch.cat([pairs, pairs[: len(pairs) // 3]])
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    return table, pairs[:, 0], pairs[:, 1]


@both
@given(seed=seeds, users=st.integers(1, 6), items=st.integers(1, 12), share=st.floats(0.0, 1.0))
def test_never_a_positive(sampler, seed, users, items, share):
    table, user, item = clicks(seed, users, items, share)
    known = table.any(0) if sampler is PopularityNegativeSampler else torch.ones(items).bool()
    able = torch.arange(users)[(known & ~table).any(1)]
    drawn = sampler(user, item, items)(able, 7, generator=torch.Generator().manual_seed(seed))
    assert drawn.shape == (len(able), 7)
    assert ((drawn >= 0) & (drawn < items)).all()
    assert not table[able[:, None], drawn].any()
    assert known[drawn].all()


@given(seed=seeds, items=st.integers(1, 12), share=st.floats(0.0, 0.9))
def test_every_item_left_is_reached(seed, items, share):
    table, user, item = clicks(seed, 3, items, share)
    able = (~table).any(1)
    drawn = UniformNegativeSampler(user, item, items)(torch.arange(3)[able], 400)
    reached = torch.zeros(3, items, dtype=torch.bool)
    reached[torch.arange(3)[able, None], drawn] = True
    assert reached.equal(~table)


def test_coarse_weights_stay_exact(monkeypatch):
    # A line of 146 points for six users, so that ends of items are hit and rare items round to 0.
    monkeypatch.setattr(sampling, "_MOST", 2**10)
    for seed in range(20):
        table, user, item = clicks(seed, 6, 12, 0.4)
        table[:, 0], table[0, 0] = False, True  # one click beside items with several
        user, item = table.nonzero().T
        drawn = PopularityNegativeSampler(user, item, 12, power=4.0)(torch.arange(6), 2000)
        reached = torch.zeros(6, 12, dtype=torch.bool)
        reached[torch.arange(6)[:, None], drawn] = True
        assert reached.equal(table.any(0) & ~table)


@pytest.mark.parametrize("clicked", [[], [0], [9], [4, 5, 6], [0, 1, 3, 7, 9], list(range(9))])
def test_uniform_over_what_is_left(clicked):
    # User 1 lies between two others, whose clicks must not matter.
    user = torch.tensor([0, 0, *[1] * len(clicked), 2])
    item = torch.tensor([0, 9, *clicked, 0])
    sampler = UniformNegativeSampler(user, item, 10)
    drawn = sampler(torch.ones(50, dtype=torch.long), 200, generator=torch.Generator())
    seen = torch.bincount(drawn.flatten(), minlength=10)
    left = [i for i in range(10) if i not in clicked]
    assert seen[left].sum() == drawn.numel()
    if len(left) > 1:
        assert stats.chisquare(seen[left].numpy()).pvalue > 0.01


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_popular_items_come_as_often_as_they_should(power):
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(500, 8, generator=generator) < torch.arange(8) / 8  # nobody clicked item 0
    table[0] = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0], dtype=torch.bool)
    user, item = table.nonzero().T
    sampler = PopularityNegativeSampler(user, item, 8, power=power)
    drawn = sampler(torch.zeros(50, dtype=torch.long), 400, generator=generator)
    left = [1, 3, 4, 6, 7]
    want = table.sum(0).double()[left] ** power
    seen = torch.bincount(drawn.flatten(), minlength=8)
    assert seen[left].sum() == drawn.numel()
    expected = (want / want.sum() * drawn.numel()).numpy()
    assert stats.chisquare(seen[left].numpy(), expected).pvalue > 0.01


@both
def test_users_who_clicked_all_but_one(sampler):
    # Drawing again until it fits would need 2,000 rounds on average.
    items, users = 2000, torch.arange(20)
    table = torch.ones(20, items, dtype=torch.bool)
    table[users, 97 * users] = False
    user, item = table.nonzero().T
    drawn = sampler(user, item, items)(users, 3)
    assert drawn.equal((97 * users)[:, None].expand(20, 3))


@both
def test_large_ids_stay_exact(sampler):
    user = torch.tensor([0, 2**40, 2**40, 2**40 + 1])
    item = torch.tensor([0, 2, 0, 1])
    drawn = sampler(user, item, 3)(torch.tensor([2**40, 2**40 + 1]), 50)
    assert (drawn[0] == 1).all()
    assert drawn[1].unique().tolist() == [0, 2]


@both
def test_users_without_pairs_may_get_any_item(sampler):
    user, item = torch.tensor([3, 3, 5, 5]), torch.tensor([0, 1, 1, 2])
    drawn = sampler(user, item, 3)(torch.tensor([0, 4, 6, 2**50]), 200)
    assert [row.unique().tolist() for row in drawn] == [[0, 1, 2]] * 4
    assert sampler(user, item, 3)(user[:0], 4).shape == (0, 4)
    # Their keys would overflow: 2**62 * 4 is user 0's again.
    wrapped = UniformNegativeSampler(item[:2] * 0, item[:2], 4)(torch.tensor([2**62]), 200)
    assert wrapped.unique().tolist() == [0, 1, 2, 3]
    nobody = UniformNegativeSampler(user[:0], item[:0], 3)(torch.tensor([0]), 100)
    assert nobody.unique().tolist() == [0, 1, 2]


@both
@given(seed=seeds)
def test_order_and_repetition_of_pairs_change_nothing(sampler, seed):
    table, user, item = clicks(seed, 4, 9, 0.4)
    users = torch.arange(4)[~table.all(1)]
    if sampler is PopularityNegativeSampler:
        users = users[(table.any(0) & ~table).any(1)[users]]

    def draw(user, item):
        generator = torch.Generator().manual_seed(seed)
        return sampler(user, item, 9)(users, 5, generator=generator)

    plain_user, plain_item = table.nonzero().T
    assert draw(user, item).equal(draw(plain_user, plain_item))
    assert draw(user.int(), item.int()).equal(draw(plain_user, plain_item))


def test_one_seed_one_draw_and_torchs_own_generator_by_default():
    sampler = UniformNegativeSampler(torch.tensor([0]), torch.tensor([3]), 1000)
    torch.manual_seed(7)
    first = sampler(torch.tensor([0, 0]), 3)
    again = sampler(torch.tensor([0, 0]), 3, generator=torch.Generator().manual_seed(7))
    assert first.equal(again)
    assert not sampler(torch.tensor([0, 0]), 3).equal(first)


def test_agrees_with_a_walk_over_the_items():
    # The r-th item left, for every r, by NumPy.
    table, user, item = clicks(3, 5, 11, 0.5)
    sampler = UniformNegativeSampler(user, item, 11)
    drawn = sampler(torch.arange(5), 300, generator=torch.Generator().manual_seed(1))
    numbers = torch.randint(2**62, (5, 300), generator=torch.Generator().manual_seed(1))
    for row in range(5):
        left = np.setdiff1d(np.arange(11), table[row].nonzero().numpy())
        assert np.array_equal(drawn[row].numpy(), left[numbers[row].numpy() % len(left)])


@both
def test_a_user_who_clicked_everything_teaches(sampler):
    user, item = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 2])
    with pytest.raises(ValueError, match=r"user 1 has clicked every item that could be drawn, as"):
        sampler(user, item, 3)(torch.tensor([0, 1, 0, 1]))
    assert sampler(user, item, 3)(torch.tensor([0])).shape == (1, 1)


@pytest.mark.wording
@both
def test_errors_teach(sampler):
    user, item = torch.tensor([0, 1]), torch.tensor([0, 2])
    name = sampler.__name__
    with pytest.raises(ValueError, match=rf"{name}: item must be 0 to 1, got 0 to 2. Number users"):
        sampler(user, item, 2)
    with pytest.raises(ValueError, match=rf"{name}: user must be 0 to ..., got -1 to 0"):
        sampler(user - 1, item, 3)
    with pytest.raises(ValueError, match=rf"{name}: users up to {2**61} and 3 items don't fit"):
        sampler(user * 2**61, item, 3)
    with pytest.raises(
        ValueError, match=r"expected equal shapes, got user \(2,\), item \(1,\). One"
    ):
        sampler(user, item[:1], 3)
    with pytest.raises(TypeError, match=r"item: expected integers, got torch.float32"):
        sampler(user, item.float(), 3)
    with pytest.raises(ValueError, match=rf"{name}: num_items must be >= 1, got 0"):
        sampler(user, item, 0)
    made = sampler(user, item, 3)
    with pytest.raises(ValueError, match=rf"{name}: k must be >= 1, got 0"):
        made(user, 0)
    with pytest.raises(ValueError, match=rf"{name}: users must be >= 0, got -1"):
        made(user - 1)
    with pytest.raises(TypeError, match=r"users: expected integers, got torch.float32"):
        made(user.float())


def test_powers_teach():
    for power in (-0.5, math.inf):
        with pytest.raises(ValueError, match=r"PopularityNegativeSampler: power must be >= 0, got"):
            PopularityNegativeSampler(torch.tensor([0]), torch.tensor([0]), 2, power=power)
