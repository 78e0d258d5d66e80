"""MatryoshkaLoss: fused and generic forms, and sentence-transformers."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses.pairs.test_contrastive import close, randn
from torch import nn

from embedkit.losses import (
    DecoupledContrastiveLoss,
    InfoNCELoss,
    MatryoshkaLoss,
    SigmoidContrastiveLoss,
    SupConLoss,
)


class Generic(nn.Module):
    """A contrastive loss that MatryoshkaLoss does not know."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, *tensors, **named):
        return self.loss(*tensors, **named)


@given(
    seed=st.integers(0, 2**31),
    make=st.sampled_from(
        [
            lambda: InfoNCELoss(temperature=0.1),
            lambda: InfoNCELoss(temperature=0.01, symmetric=True),
            lambda: InfoNCELoss(temperature=1.0, similarity="dot"),
            lambda: InfoNCELoss(temperature=0.1, reduction="none"),
            DecoupledContrastiveLoss,
            lambda: SigmoidContrastiveLoss(bias=-1.0),
        ]
    ),
    ids=st.booleans(),
    weights=st.sampled_from([None, [0.5, 2.0, 1.0]]),
)
def test_fused_widths_equal_the_sum_of_losses(seed, make, ids, weights):
    generator = torch.Generator().manual_seed(seed)
    query, key = (
        torch.randn(6, 8, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(2)
    )
    named = {"key_ids": torch.randint(0, 4, (6,), generator=generator)} if ids else {}
    results = []
    for loss in (make().double(), Generic(make().double())):
        value = MatryoshkaLoss(loss, [2, 3, 8], weights)(query, key, **named)
        results.append((value, torch.autograd.grad(value.sum(), (query, key))))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


def test_fused_supcon_equals_the_sum():
    x, labels = randn(8, 6), torch.arange(8) % 3
    fused = MatryoshkaLoss(SupConLoss(), [1, 6])(x, labels)
    close(fused, MatryoshkaLoss(Generic(SupConLoss()), [1, 6])(x, labels), 1e-10)


def test_one_width_is_the_loss_itself():
    query, key = randn(5, 4), randn(5, 4, seed=1)
    loss = InfoNCELoss()
    close(MatryoshkaLoss(loss, [4])(query, key), loss(query, key), 1e-12)


def test_agrees_with_sentence_transformers():
    losses = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    query, key, hard = randn(6, 8), randn(6, 8, seed=1), randn(6, 8, seed=2)
    peer = losses.MultipleNegativesRankingLoss(None, scale=20.0)
    cut = [[x[:, :d] for x in (query, key, hard)] for d in (2, 4, 8)]
    want = sum(peer.compute_loss_from_embeddings(part, None) for part in cut)
    got = MatryoshkaLoss(InfoNCELoss(temperature=0.05), [2, 4, 8])(query, torch.cat([key, hard]))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_a_coordinate_hears_only_from_the_widths_that_hold_it():
    query, key = randn(5, 6).requires_grad_(), randn(5, 6, seed=1)
    MatryoshkaLoss(InfoNCELoss(), [2, 6], weights=[1.0, 0.0])(query, key).backward()
    close(query.grad[:, 2:], torch.zeros(5, 4), 1e-14)
    assert query.grad[:, :2].abs().sum() > 0


def test_ids_and_row_weights_are_not_cut():
    class Weighted(nn.Module):
        def forward(self, x, target, weight):
            assert weight.shape == (4,)
            return ((x - target).square().mean(1) * weight).sum()

    x = randn(4, 4)
    loss = MatryoshkaLoss(Weighted(), [2, 4])(x, x + 1, torch.ones(4))
    close(loss, 8.0)


def test_zero_prefix_and_zero_row_stay_finite():
    query = torch.tensor([[0.0, 0, 1, 2], [0, 0, 0, 0], [1, 2, 3, 4]], requires_grad=True)
    loss = MatryoshkaLoss(InfoNCELoss(), [2, 4])(query, torch.randn(3, 4))
    loss.backward()
    assert loss.isfinite()
    assert query.grad.isfinite().all()
    close(query.grad[1], torch.zeros(4), 0)


def test_errors_and_warnings_teach():
    loss = InfoNCELoss()
    for dims in ([], [4, 2], [2, 2], [0, 2]):
        with pytest.raises(ValueError, match="MatryoshkaLoss: dims must be positive, different"):
            MatryoshkaLoss(loss, dims)
    with pytest.raises(ValueError, match="expected 2 weights, one per width, got 1"):
        MatryoshkaLoss(loss, [2, 4], [1.0])
    with pytest.raises(ValueError, match="dims go up to 8, but embeddings have width 4"):
        MatryoshkaLoss(loss, [8])(torch.eye(4), torch.eye(4))
    with pytest.warns(UserWarning, match="the last 2 of 4 entries are not trained"):
        MatryoshkaLoss(loss, [2])(torch.eye(4), torch.eye(4))
