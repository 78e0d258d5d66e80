"""Decoupled contrastive loss against its formula."""

import pytest
import torch
from losses.pairs.test_contrastive import K, Q, close, randn

from embedkit.losses import DecoupledContrastiveLoss, decoupled_contrastive


def test_hand_numbers():
    rows = decoupled_contrastive(Q, K, temperature=0.5, reduction="none")
    close(rows, [-1.336718, 0.548458, 0.771101])
    close(decoupled_contrastive(Q, K, temperature=0.5), -0.005720)


def test_ids_take_all_matches_out_of_the_denominator():
    query, key = randn(5, 4), randn(5, 4, seed=1)
    ids = torch.tensor([0, 0, 1, 2, 1])
    unit = torch.nn.functional.normalize
    logits = unit(query) @ unit(key).T / 0.1
    same = ids[:, None] == ids
    want = logits.masked_fill(same, -torch.inf).logsumexp(1) - (logits * same).sum(1) / same.sum(1)
    got = decoupled_contrastive(query, key, query_ids=ids, reduction="none")
    close(got, want, 1e-9)


@pytest.mark.parametrize("rows", [0, 1])
def test_without_negatives_there_is_no_loss(rows):
    query, key = torch.randn(rows, 3, requires_grad=True), torch.randn(rows, 3, requires_grad=True)
    loss = DecoupledContrastiveLoss()(query, key)
    loss.backward()
    close(loss.detach(), 0.0)
    close(query.grad.abs().sum(), 0.0)
    ids = torch.zeros(rows, dtype=torch.long)
    close(decoupled_contrastive(query, key, query_ids=ids).detach(), 0.0)


def test_errors_teach():
    with pytest.raises(ValueError, match="DecoupledContrastiveLoss: temperature must be > 0"):
        DecoupledContrastiveLoss(-0.1)
