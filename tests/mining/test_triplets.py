"""Miners against loops over all triplets, and pytorch-metric-learning."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.mining import (
    batch_hard_triplets,
    hardest_triplets,
    harmonic_triplets,
    random_triplets,
    semihard_triplets,
    triplets,
)

E = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-0.6, 0.8]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 1, 1])


def brute(x, labels, y=None, other=None, margin=0.5):
    """(semi-hard, hardest, batch-hard) triplets by loops."""
    own = y is None
    y, other = (x, labels) if own else (y, other)
    d = torch.cdist(x, y).square().clamp(min=0)
    semi, hard, batch = [], [], []
    for a in range(len(x)):
        negatives = [n for n in range(len(y)) if other[n] != labels[a]]
        positives = [p for p in range(len(y)) if other[p] == labels[a] and not (own and p == a)]
        if not negatives:
            continue
        closest = min(negatives, key=lambda n: d[a, n].item())
        hard += [(a, p, closest) for p in positives]
        if positives:
            batch.append((a, max(positives, key=lambda p: d[a, p].item()), closest))
        for p in positives:
            inside = [n for n in negatives if d[a, p] < d[a, n] < d[a, p] + margin]
            if inside:
                semi.append((a, p, min(inside, key=lambda n: d[a, n].item())))
    return semi, hard, batch


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(0, 14),
    classes=st.integers(1, 5),
    few=st.sampled_from([0, 1000]),
    entries=st.sampled_from([1, 20, 2**20]),
    apart=st.booleans(),
)
def test_miners_are_the_loops(seed, rows, classes, few, entries, apart):
    torch.manual_seed(seed)
    x, labels = torch.randn(rows, 3, dtype=torch.float64), torch.randint(0, classes, (rows,))
    named, other = {}, ()
    if apart:
        other = torch.randn(6, 3, dtype=torch.float64), torch.randint(0, classes, (6,))
        named = {"reference": other[0], "reference_labels": other[1]}
    previous = triplets._FEW, triplets._ENTRIES
    triplets._FEW, triplets._ENTRIES = few, entries
    try:
        found = (
            semihard_triplets(x, labels, margin=0.5, unit=False, **named),
            hardest_triplets(x, labels, unit=False, **named),
            batch_hard_triplets(x, labels, unit=False, **named),
        )
    finally:
        triplets._FEW, triplets._ENTRIES = previous
    for got, want in zip(found, brute(x, labels, *other), strict=True):
        assert got.shape[1] == 3
        assert [tuple(row) for row in got.tolist()] == want


def test_hand_numbers():
    assert semihard_triplets(E, LABELS, margin=0.2).tolist() == []
    wide = semihard_triplets(E, LABELS, margin=0.5)
    assert wide.tolist() == [[1, 0, 3], [2, 1, 3], [3, 4, 1]]


@pytest.mark.parametrize("few", [0, 1000])
def test_of_equally_close_negatives_the_first_is_taken(few, monkeypatch):
    monkeypatch.setattr(triplets, "_FEW", few)
    x = torch.tensor([[0.0], [1.0], [2.0], [2.0], [-2.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    found = semihard_triplets(x, labels, margin=9.0, unit=False)
    assert [0, 1, 2] in found.tolist()


def test_agrees_with_pytorch_metric_learning():
    miners = importlib.import_module("pytorch_metric_learning.miners")
    distances = importlib.import_module("pytorch_metric_learning.distances")
    x, labels = torch.randn(40, 8), torch.arange(40) % 6
    peer = miners.TripletMarginMiner(
        margin=0.2, type_of_triplets="semihard", distance=distances.LpDistance(power=2)
    )
    anchor, positive, negative = peer(x, labels)  # all semi-hard negatives of each pair
    unit = torch.nn.functional.normalize(x)
    far = (unit[anchor] - unit[negative]).square().sum(dim=1)
    best = {}
    for a, p, n, d in zip(*(t.tolist() for t in (anchor, positive, negative, far)), strict=True):
        best[a, p] = min(best.get((a, p), (9.0, -1)), (d, n))
    want = [(a, p, n) for (a, p), (_, n) in sorted(best.items())]
    assert [tuple(t) for t in semihard_triplets(x, labels, margin=0.2).tolist()] == want
    hard = miners.BatchHardMiner(distance=distances.LpDistance(power=2))(x, labels)
    assert torch.equal(batch_hard_triplets(x, labels), torch.stack(hard, dim=1))


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 20), classes=st.integers(1, 5))
def test_random_triplets_take_every_pair_and_a_true_negative(seed, rows, classes):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (rows,), generator=generator) * 7
    found = random_triplets(labels, generator)
    pairs = {
        (a, p)
        for a in range(rows)
        for p in range(rows)
        if a != p and labels[a] == labels[p] and (labels != labels[a]).any()
    }
    assert {(a, p) for a, p, _ in found.tolist()} == pairs
    assert len(found) == len(pairs)
    assert all(labels[a] != labels[n] for a, _, n in found.tolist())


def test_harmonic_triplets_mix_versions_and_train_the_new_one():
    new, old = torch.randn(2, 12, 4, dtype=torch.float64)
    labels = torch.arange(12) % 4
    found = harmonic_triplets(new, old, labels, margin=0.5)
    pool = torch.nn.functional.normalize(torch.cat([new, old]), dim=1)
    semi, _, _ = brute(pool, labels.repeat(2))
    assert [tuple(t) for t in found.tolist()] == [t for t in semi if min(t) < 12]
    assert {(t >= 12).sum().item() for t in found} >= {0, 1, 2}


def test_random_triplets_are_uniform_over_negatives():
    labels = torch.tensor([1, 0, 0, 2, 2])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([random_triplets(labels, generator) for _ in range(3000)])
    count = drawn[drawn[:, 0] == 1][:, 2].bincount(minlength=5)
    assert count[[1, 2]].sum() == 0
    assert (count[[0, 3, 4]] / 3000 - 1 / 3).abs().max() < 0.03


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_mined_in_float32(dtype):
    x, labels = torch.randn(30, 8).to(dtype), torch.arange(30) % 5
    assert torch.equal(semihard_triplets(x, labels), semihard_triplets(x.float(), labels))


@pytest.mark.wording
def test_wrong_input_says_so():
    with pytest.raises(ValueError, match=r"semihard_triplets: margin must be > 0, got 0"):
        semihard_triplets(E, LABELS, margin=0.0)
    with pytest.raises(ValueError, match="expected both or neither"):
        hardest_triplets(E, LABELS, reference=E)
    with pytest.raises(TypeError, match="labels: expected"):
        batch_hard_triplets(E, LABELS.double())


@pytest.mark.wording
def test_wrong_shapes_say_so():
    with pytest.raises(ValueError, match="new"):
        harmonic_triplets(E, E[:3], LABELS)
    with pytest.raises(ValueError, match="labels: expected 5 rows"):
        semihard_triplets(E, LABELS[:4])
    with pytest.raises(ValueError, match="reference: expected last axis of size 2"):
        semihard_triplets(E, LABELS, reference=torch.zeros(3, 4), reference_labels=LABELS[:3])
