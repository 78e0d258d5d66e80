"""All triplets against their enumeration, with gradients."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses.classes.test_triplet import LABELS, E
from losses.pairs.test_contrastive import close, randn

from embedkit.losses import batch_all_triplet_loss, triplet_loss
from embedkit.losses.classes import batch_all


def every_triplet(labels):
    a, p, n = torch.cartesian_prod(*[torch.arange(len(labels))] * 3).T if len(labels) else [[]] * 3
    if not len(labels):
        return torch.empty(0, 3, dtype=torch.long)
    valid = (labels[a] == labels[p]) & (a != p) & (labels[a] != labels[n])
    return torch.stack([a, p, n], dim=1)[valid]


def test_hand_numbers():
    close(batch_all_triplet_loss(E, LABELS), 0.4)
    close(batch_all_triplet_loss(E, LABELS, count="all"), 0.044444)


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(0, 9),
    entries=st.sampled_from([1, 15, 2**20]),
    margin=st.sampled_from([0.0, 0.5]),
    ties=st.booleans(),
)
def test_it_is_the_sum_over_all_triplets(seed, rows, entries, margin, ties):
    torch.manual_seed(seed)
    x = torch.randint(-2, 3, (rows, 2)).double() if ties else torch.randn(rows, 2).double()
    x.requires_grad_()
    labels = torch.randint(0, 3, (rows,))
    previous, batch_all._ENTRIES = batch_all._ENTRIES, entries
    try:
        for count in ("active", "all"):
            got = batch_all_triplet_loss(x, labels, margin=margin, unit=False, count=count)
            want = triplet_loss(x, every_triplet(labels), margin=margin, unit=False, count=count)
            close(got, want, 1e-10)
            mine, theirs = torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0]
            close(mine, theirs, 1e-10)
    finally:
        batch_all._ENTRIES = previous


def test_agrees_with_pytorch_metric_learning():
    losses = importlib.import_module("pytorch_metric_learning.losses")
    measures = importlib.import_module("pytorch_metric_learning.distances")
    x, labels = randn(20, 5).requires_grad_(), torch.arange(20) % 4
    peer = losses.TripletMarginLoss(margin=0.2, distance=measures.LpDistance(power=2))
    want, got = peer(x, labels), batch_all_triplet_loss(x, labels)
    close(got, want)
    close(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0])


def test_a_collapsed_batch_gives_the_margin_and_no_nan():
    x = torch.ones(6, 3, requires_grad=True)
    loss = batch_all_triplet_loss(x, torch.arange(6) // 2, margin=0.3)
    loss.backward()
    close(loss, 0.3)
    assert x.grad.isfinite().all()


def test_no_triplet_gives_zero_with_a_graph():
    x = randn(4, 3).requires_grad_()
    loss = batch_all_triplet_loss(x, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert float(loss.detach()) == 0.0
    close(x.grad, torch.zeros(4, 3))


@pytest.mark.compile
def test_it_is_one_graph():
    x = torch.randn(5, 4, requires_grad=True)
    compiled = torch.compile(batch_all_triplet_loss, fullgraph=True, backend="aot_eager")
    got, want = compiled(x, LABELS), batch_all_triplet_loss(x, LABELS)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


def test_wrong_input_says_so():
    with pytest.raises(ValueError, match="batch_all_triplet_loss: margin must be >= 0, got -1"):
        batch_all_triplet_loss(E, LABELS, margin=-1.0)
    x = E.clone().requires_grad_()
    (grad,) = torch.autograd.grad(batch_all_triplet_loss(x, LABELS), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of batch_all_triplet_loss"):
        grad.sum().backward()
