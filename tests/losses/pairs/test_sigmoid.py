"""Sigmoid contrastive loss against its formula."""

import pytest
import torch
import torch.nn.functional as F
from losses.pairs.test_contrastive import K, Q, close, randn

from embedkit.losses import SigmoidContrastiveLoss, sigmoid_contrastive


def test_hand_number():
    close(sigmoid_contrastive(Q, K), 2.535296)
    close(SigmoidContrastiveLoss().double()(Q, K).detach(), 2.535296)


@pytest.mark.parametrize("same_id", ["positive", "ignore"])
def test_agrees_with_binary_cross_entropy(same_id):
    query, key = randn(5, 4).requires_grad_(), randn(7, 4, seed=1).requires_grad_()
    ids = torch.tensor([0, 0, 1, 2, 1, 0, 5])
    logits = F.normalize(query) @ F.normalize(key).T / 0.1 - 3.0
    same, own = ids[:5, None] == ids, torch.eye(5, 7, dtype=torch.bool)
    target = same if same_id == "positive" else own
    pairs = F.binary_cross_entropy_with_logits(logits, target.double(), reduction="none")
    want = (pairs if same_id == "positive" else pairs * (~same | own)).sum() / 5
    got = sigmoid_contrastive(query, key, bias=-3.0, key_ids=ids, same_id=same_id)
    close(got, want, 1e-10)
    grads = [torch.autograd.grad(v, (query, key)) for v in (got, want)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_temperature_and_bias_learn():
    loss = SigmoidContrastiveLoss(bias=-1.0)
    loss(Q.float(), K.float()).backward()
    assert loss.bias.grad.abs() > 0
    assert loss.log_scale.grad.abs() > 0


def test_errors_teach():
    with pytest.raises(ValueError, match="SigmoidContrastiveLoss: temperature must be > 0, got 0"):
        SigmoidContrastiveLoss(temperature=0.0)
