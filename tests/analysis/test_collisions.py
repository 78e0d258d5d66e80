import itertools

import pytest
import torch

from embedkit.analysis import collision_report, expected_lost
from embedkit.tables import MultiplexedHash


@pytest.mark.parametrize(
    ("parts", "want"),
    [
        ([(1000, 1000)], 367.6954),
        ([(500, 500), (300, 300), (200, 200)], 367.3268),
        ([(500, 1000 / 3), (300, 1000 / 3), (200, 1000 / 3)], 392.3216),
        ([(0, 9)], 0.0),
        ([(5, 1)], 4.0),
        ([(0, 1)], 0.0),
    ],
)
def test_expected_losses_of_the_formula(parts, want):
    assert sum(expected_lost(*part) for part in parts) == pytest.approx(want, abs=5e-5)


@pytest.mark.parametrize(("values", "buckets"), [(3, 4), (5, 2), (4, 3)])
def test_expected_loss_is_the_mean_over_all_functions(values, buckets):
    functions = list(itertools.product(range(buckets), repeat=values))
    want = sum(values - len(set(function)) for function in functions) / len(functions)
    assert expected_lost(values, buckets) == pytest.approx(want)


def test_shares_and_loads_by_brute_force():
    hash_, sizes = MultiplexedHash(3, 2, num_buckets=40, seed=1), [20, 0, 15]
    values = [
        (t, tuple(hash_(torch.tensor(i), t).tolist()))
        for t, n in enumerate(sizes)
        for i in range(n)
    ]
    pairs = [(a, b) for a in values for b in values if a is not b]
    report = collision_report(hash_, sizes)

    def share(meets):
        return len({id(a) for a, b in pairs if meets(a, b)}) / 35

    within = [share(lambda a, b, j=j: a[0] == b[0] and a[1][j] == b[1][j]) for j in (0, 1)]
    between = [share(lambda a, b, j=j: a[0] != b[0] and a[1][j] == b[1][j]) for j in (0, 1)]
    assert report.within == pytest.approx(sum(within) / 2)
    assert report.between == pytest.approx(sum(between) / 2)
    assert report.together == pytest.approx(share(lambda a, b: a[0] == b[0] and a[1] == b[1]))
    filled = [len({v[1][j] for v in values}) for j in (0, 1)]
    assert report.lost == pytest.approx(35 - sum(filled) / 2)
    loads = [sum(v[1][j] == bucket for v in values) for j in (0, 1) for bucket in range(40)]
    assert report.load.tolist() == [loads.count(i) for i in range(max(loads) + 1)]


def test_measured_loss_is_the_expected_one():
    lost = [
        collision_report(MultiplexedHash(3, 4, 1000, s), [500, 300, 200]).lost for s in range(8)
    ]
    # the number of filled buckets has a standard deviation of 9.7; 32 draws
    assert sum(lost) / 8 == pytest.approx(expected_lost(1000, 1000), abs=4 * 9.7 / 32**0.5)


def test_more_lookups_tell_values_apart():
    one, two = (collision_report(MultiplexedHash(1, k, 500), [500]).together for k in (1, 2))
    assert one > 0.5
    assert two < 0.02


def test_no_values():
    report = collision_report(MultiplexedHash(2, 1, 10), [0, 0])
    assert (report.within, report.between, report.together, report.lost) == (0, 0, 0, 0)
    assert report.load.tolist() == [10]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([5], "expected 2 sizes, one per feature, got 1"),
        ([5, -1], "each size must be >= 0, got -1"),
    ],
)
def test_sizes_that_fit_no_hash(sizes, words):
    with pytest.raises(ValueError, match=f"collision_report: {words}"):
        collision_report(MultiplexedHash(2, 1, 10), sizes)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [((-1, 3), "num_values must be >= 0"), ((3, 0), "num_buckets must be >= 1")],
)
def test_counts_below_their_least(numbers, words):
    with pytest.raises(ValueError, match=f"expected_lost: {words}"):
        expected_lost(*numbers)
