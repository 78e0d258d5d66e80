"""SupCon: hand numbers, pytorch-metric-learning, NT-Xent by stacked views."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses.pairs.test_contrastive import K, Q, close, randn

from embedkit.losses import SupConLoss, info_nce, info_nce_from_similarity, sup_con

E = torch.tensor([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8]], dtype=torch.float64)


def test_hand_numbers():
    rows = sup_con(E, torch.tensor([0, 0, 1, 1]), temperature=0.5, reduction="none")
    close(rows, [0.233257, 0.627123, 0.627123, 0.233257])
    labels = torch.tensor([0, 0, 0, 1])
    rows = sup_con(E, labels, temperature=0.5, reduction="none")
    close(rows, [1.033257, 0.827123, 1.627123, 0.0])
    close(sup_con(E, labels, temperature=0.5), 1.162501)


def test_stacked_views_are_nt_xent():
    views = torch.cat([Q, K])
    labels = torch.arange(3).repeat(2)
    close(sup_con(views, labels, temperature=0.5), 1.252459)
    losses = importlib.import_module("pytorch_metric_learning.losses")
    close(
        sup_con(views, labels, temperature=0.5), losses.NTXentLoss(temperature=0.5)(views, labels)
    )


def test_agrees_with_pytorch_metric_learning():
    losses = importlib.import_module("pytorch_metric_learning.losses")
    x, labels = randn(12, 5).requires_grad_(), torch.arange(12) % 4
    want = losses.SupConLoss(temperature=0.1)(x, labels)
    got = sup_con(x, labels)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(got, x), torch.autograd.grad(want, x), rtol=1e-8, atol=1e-8
    )


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 9))
def test_equals_the_similarity_form(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.randint(-2, 2, (rows,), generator=generator)
    other = ~torch.eye(rows, dtype=torch.bool)
    unit = torch.nn.functional.normalize(x)
    want = info_nce_from_similarity(
        unit @ unit.T, (labels[:, None] == labels) & other, temperature=0.1, candidate=other
    )
    got = sup_con(x, labels)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    grads = [torch.autograd.grad(v, x)[0] for v in (got, want)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_duplicates_in_keys_count_like_a_doubled_weight():
    # A key that stands twice competes twice: the denominator has weight 2 for it.
    twice = info_nce(Q, torch.cat([K, K[1:2]]), temperature=0.5, reduction="none")
    weight = torch.tensor([[1.0, 2, 1], [1, 2, 1], [1, 2, 1]]).double()
    similarity = Q @ K.T
    rows = info_nce_from_similarity(
        similarity, torch.eye(3, dtype=torch.bool), temperature=0.5, candidate=weight,
        reduction="none",
    )  # fmt: skip
    close(twice[[0, 2]], rows[[0, 2]], 1e-12)


def test_nobody_has_a_partner():
    x = torch.randn(3, 4, requires_grad=True)
    loss = SupConLoss()(x, torch.arange(3))
    loss.backward()
    close(loss.detach(), 0.0)
    close(x.grad, torch.zeros(3, 4), 0)


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(
        ValueError, match=r"labels: expected 4 rows, got shape \(3,\). One label per row."
    ):
        sup_con(E, torch.arange(3))
    with pytest.raises(ValueError, match="SupConLoss: temperature must be > 0, got 0"):
        SupConLoss(0.0)


def test_memory_rows_are_candidates_and_no_anchors():
    x, labels = randn(6, 4).requires_grad_(), torch.tensor([0, 1, 0, 2, 3, 1])
    memory, known = randn(5, 4), torch.tensor([0, 2, 2, 9, 1])
    unit = torch.nn.functional.normalize(torch.cat([x, memory]), dim=1)
    candidate = torch.cat([~torch.eye(6, dtype=torch.bool), torch.ones(6, 5).bool()], dim=1)
    positive = (labels[:, None] == torch.cat([labels, known])) & candidate
    want = info_nce_from_similarity(
        unit[:6] @ unit.T, positive, temperature=0.1, candidate=candidate
    )
    got = sup_con(x, labels, memory=memory, memory_labels=known)
    close(got, want)
    close(torch.autograd.grad(got, x)[0], torch.autograd.grad(want, x)[0])
    close(sup_con(x, labels, memory=memory[:0], memory_labels=known[:0]), sup_con(x, labels))
