"""Triplet loss: hand numbers, pytorch-metric-learning, collapse, gradients."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses.pairs.test_contrastive import close, randn

from embedkit.losses.classes.triplet import TripletLoss, triplet_loss
from embedkit.mining import semihard_triplets
from embedkit.ops import distances

E = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-0.6, 0.8]], dtype=torch.float64)
ALL = torch.cartesian_prod(*[torch.arange(5)] * 3)
LABELS = torch.tensor([0, 0, 0, 1, 1])
A, P, N = ALL.T
VALID = ALL[(LABELS[A] == LABELS[P]) & (A != P) & (LABELS[A] != LABELS[N])]


def test_hand_numbers():
    assert len(VALID) == 18
    close(triplet_loss(E, VALID, reduction="sum"), 0.8)
    close(triplet_loss(E, VALID), 0.044444)
    close(triplet_loss(E, VALID, count="active"), 0.4)
    semihard = torch.tensor([[1, 0, 3], [2, 1, 3], [3, 4, 1]])
    rows = triplet_loss(E, semihard, margin=0.5, reduction="none")
    close(rows, [0.10, 0.18, 0.10])
    hard = torch.tensor([[0, 2, 3], [1, 0, 3], [2, 0, 3], [3, 4, 2], [4, 3, 2]])
    close(triplet_loss(E, hard, reduction="none"), [0, 0, 0.6, 0.2, 0])
    close(triplet_loss(E, hard, soft=True), 0.537024)


@pytest.mark.parametrize(("swap", "soft"), [(False, False), (True, False), (False, True)])
def test_agrees_with_pytorch_metric_learning(swap, soft):
    losses = importlib.import_module("pytorch_metric_learning.losses")
    measures = importlib.import_module("pytorch_metric_learning.distances")
    reducers = importlib.import_module("pytorch_metric_learning.reducers")
    x, labels = randn(12, 5).requires_grad_(), torch.arange(12) % 4
    triplets = torch.randint(0, 12, (30, 3))
    for count, reducer in (
        ("all", reducers.MeanReducer()),
        ("active", reducers.AvgNonZeroReducer()),
    ):
        peer = losses.TripletMarginLoss(
            margin=0.0 if soft else 0.2,
            swap=swap,
            smooth_loss=soft,
            distance=measures.LpDistance(power=2),
            reducer=reducer,
        )
        want = peer(x, labels, tuple(triplets.T))
        got = triplet_loss(x, triplets, swap=swap, soft=soft, count=count)
        close(got, want)
        close(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0])


@given(seed=st.integers(0, 2**31), entries=st.integers(1, 40), apart=st.booleans())
def test_blocks_of_pairs_equal_plain_differences(seed, entries, apart):
    torch.manual_seed(seed)
    x, y = randn(6, 3).requires_grad_(), randn(5, 3).requires_grad_()
    y = y if apart else x
    triplets = torch.randint(0, 5, (9, 3))
    weight = torch.rand(9).double()
    previous, distances._PAIRS = distances._PAIRS, entries
    try:
        got = triplet_loss(
            x, triplets, unit=False, reference=y if apart else None, weight=weight, reduction="sum"
        )
        leaves = (x, y) if apart else (x,)
        grads = torch.autograd.grad(got, leaves)
    finally:
        distances._PAIRS = previous
    a, p, n = triplets.T
    near, far = (x[a] - y[p]).square().sum(dim=1), (x[a] - y[n]).square().sum(dim=1)
    want = ((near - far + 0.2).relu() * weight).sum()
    close(got, want)
    for mine, theirs in zip(grads, torch.autograd.grad(want, leaves), strict=True):
        close(mine, theirs)


def test_collapse_shows_as_the_margin():
    x = torch.ones(5, 3)
    close(triplet_loss(x, VALID, margin=0.3), 0.3)
    close(triplet_loss(x, VALID, soft=True), 0.693147)


def test_no_triplet_gives_zero_with_a_graph():
    x = randn(4, 3).requires_grad_()
    loss = triplet_loss(x, torch.empty(0, 3, dtype=torch.long))
    loss.backward()
    assert float(loss.detach()) == 0.0
    close(x.grad, torch.zeros(4, 3))


def test_near_duplicates_keep_their_digits():
    x = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [0.0, 1.0]])
    near = triplet_loss(x, torch.tensor([[0, 1, 2]]), margin=2.0, unit=False)
    assert abs(float(near) - 1e-6) < 1e-7


@pytest.mark.compile
def test_it_is_one_graph():
    x = torch.randn(5, 4, requires_grad=True)
    loss = TripletLoss(margin=0.5)
    want = loss(x, VALID)
    got = torch.compile(loss, fullgraph=True, backend="aot_eager")(x, VALID)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


@pytest.mark.wording
def test_wrong_input_says_so():
    with pytest.raises(ValueError, match=r"TripletLoss: margin must be >= 0, got -1"):
        TripletLoss(margin=-1.0)
    with pytest.raises(TypeError, match="triplets: expected"):
        triplet_loss(E, VALID.double())


@pytest.mark.parametrize("row", [5, -1])
def test_a_row_that_is_not_there_is_named(row):
    with pytest.raises(IndexError, match=r"positives and negatives in 0 to 4, got (0|-1) to"):
        triplet_loss(E, torch.tensor([[0, 1, row]]))


@pytest.mark.wording
def test_wrong_shapes_say_so():
    with pytest.raises(ValueError, match=r"triplets: expected shape \(t, 3\)"):
        triplet_loss(E, VALID.T)
    with pytest.raises(ValueError, match="reference: expected last axis of size 2"):
        triplet_loss(E, VALID, reference=torch.zeros(5, 3))


def test_what_is_not_finite_is_seen_though_no_triplet_names_it():
    x = torch.randn(6, 8)
    x[3] = torch.nan
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert triplet_loss(x, semihard_triplets(x, labels)).isnan()
    assert triplet_loss(x, torch.zeros(0, 3, dtype=torch.long)).isnan()
    other = torch.tensor([[0, 1, 4]])
    assert triplet_loss(x, other, reduction="none").isnan().all()
