"""Weights of rows and negatives: hand numbers, and what the losses make of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses import info_nce, info_nce_from_similarity
from embedkit.mining.weights import cluster_weights, focal_weights, hardness_weights

S = torch.tensor([[0.8, 0.1, 0.3], [0.2, 0.9, 0.4], [0, 0.5, 0.7]], dtype=torch.float64)
CLUSTERS = torch.tensor([[0, 0, 1], [0, 1, 1]])


def close(got, want, tolerance=2e-6):
    torch.testing.assert_close(
        got, torch.as_tensor(want, dtype=got.dtype), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(
    ("gamma", "weights", "loss"),
    [
        (0.0, (1, 1), 0.687361),
        (0.5, (0.712806, 0.697036), 0.484709),
        (1.0, (0.508092, 0.485859), 0.341847),
        (2.0, (0.258158, 0.236059), 0.170097),
    ],
)
def test_focal_hand_numbers(gamma, weights, loss):
    rows = -torch.tensor([0.491908, 0.514141], dtype=torch.float64).log()
    close(focal_weights(rows, gamma), weights)
    close((focal_weights(rows, gamma) * rows).mean(), loss)


@pytest.mark.parametrize(
    ("detach", "gradient"),
    [(True, (-0.193686, 0.141596, 0.052090)), (False, (-0.272129, 0.198943, 0.073187))],
)
def test_focal_gradient(detach, gradient):
    logits = torch.tensor([2.0, 1, 0], dtype=torch.float64, requires_grad=True)
    rows = -logits.log_softmax(dim=0)[:1]
    loss = (focal_weights(rows, 0.5, detach=detach) * rows).sum()
    close(loss, 0.235834)
    close(torch.autograd.grad(loss, logits)[0], gradient)


def test_focal_two_passes_give_the_same_loss():
    query = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64, requires_grad=True)
    key = torch.tensor([[0.8, 0.6], [0, 1], [-0.6, 0.8]], dtype=torch.float64)
    rows = info_nce(query, key, temperature=0.5, reduction="none")
    weight = focal_weights(rows, 0.5)
    once = (weight * rows).mean()
    twice = info_nce(query, key, temperature=0.5, weight=weight)
    close(once, 0.619352)
    close((weight * rows).sum() / weight.sum(), 0.893673)
    close(twice, once.detach(), 1e-12)
    close(torch.autograd.grad(once, query)[0], torch.autograd.grad(twice, query)[0].detach(), 1e-12)


@given(rows=st.lists(st.floats(0, 1e4), max_size=8), gamma=st.floats(0, 5))
def test_focal_weights_fall_with_the_probability(rows, gamma):
    rows = torch.tensor(sorted(rows), dtype=torch.float64).requires_grad_()
    weight = focal_weights(rows, gamma)
    assert not weight.requires_grad
    assert ((weight >= 0) & (weight <= 1)).all()
    assert (weight.diff() >= 0).all()
    through = (focal_weights(rows, gamma, detach=False) * rows).sum()
    assert torch.autograd.grad(through, rows)[0].isfinite().all()


def test_focal_weights_of_rows_that_are_no_probability():
    assert focal_weights(torch.tensor([-1.0, 0.0])).tolist() == [0, 0]
    assert focal_weights(torch.tensor([2.0], dtype=torch.float16)).dtype == torch.float32
    assert focal_weights(torch.tensor([torch.nan])).isnan().all()


def test_hardness_adds_a_constant_bias_to_negatives():
    own, similarity = torch.eye(3, dtype=torch.bool), S.clone().requires_grad_()
    got = info_nce_from_similarity(
        similarity, own, temperature=0.5, candidate=hardness_weights(similarity, 9.0)
    )
    biased = similarity / 0.5 + torch.where(own, 0.0, 9.0 * S)
    want = torch.nn.functional.cross_entropy(biased, torch.arange(3))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, similarity)[0], torch.autograd.grad(want, similarity)[0]
    )
    assert hardness_weights(S, 0.0).eq(1).all()
    assert not hardness_weights(similarity).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_hardness_never_overflows_and_never_hides_nan(dtype):
    weight = hardness_weights(torch.tensor([[1.0, -1, torch.nan, 1e4, -1e4]], dtype=dtype), 80.0)
    assert weight.isfinite().all()
    assert (weight > 0).all()
    assert weight[0, 2] == 1


def test_cluster_hand_numbers():
    weight = cluster_weights(CLUSTERS)
    assert weight.tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    similarity = S.clone().requires_grad_()
    rows = (similarity / 0.5 + weight.log()).logsumexp(dim=1) - similarity.diagonal() / 0.5
    close(rows, (-0.017802, -0.486985, 0.151445))
    (gradient,) = torch.autograd.grad(rows.sum(), similarity)
    want = [[-2, 0.502052, 1.497948], [0.802625, -2, 1.197375], [0.847766, 1.152234, -2]]
    close(gradient, want)


def test_cluster_weights_in_info_nce():
    own = torch.eye(3, dtype=torch.bool)
    loss = info_nce_from_similarity(
        S, own, temperature=0.5, candidate=cluster_weights(CLUSTERS), reduction="none"
    )
    decoupled = torch.tensor([-0.017802, -0.486985, 0.151445], dtype=torch.float64)
    close(loss, torch.nn.functional.softplus(decoupled))
    alone = cluster_weights(torch.arange(3)[None])
    close(
        info_nce_from_similarity(S, own, temperature=0.5, candidate=alone),
        torch.nn.functional.cross_entropy(S / 0.5, torch.arange(3)),
    )
    together = cluster_weights(torch.zeros(1, 3).long())
    assert info_nce_from_similarity(S, own, temperature=0.5, candidate=together) == 0


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 7), clusterings=st.integers(0, 3))
def test_cluster_weights_count(seed, rows, clusterings):
    generator = torch.Generator().manual_seed(seed)
    clusters = torch.randint(0, 3, (clusterings, rows), generator=generator)
    weight = cluster_weights(clusters)
    for i in range(rows):
        for j in range(rows):
            assert weight[i, j] == sum(int(c[i] != c[j]) for c in clusters)
    assert cluster_weights(clusters * -7).equal(weight)
    assert cluster_weights(clusters[:, :2], clusters).equal(weight[:2])


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match=r"focal_weights: gamma must be >= 0, got -1; 0.5 is"):
        focal_weights(torch.ones(2), -1.0)
    with pytest.raises(ValueError, match=r"hardness_weights: alpha must be >= 0 and at most 80"):
        hardness_weights(S, 200.0)
    with pytest.raises(TypeError, match=r"clusters: expected integers, got torch.float64"):
        cluster_weights(S)
    with pytest.raises(ValueError, match=r"key_clusters: expected 2 rows, got shape \(1, 3\)"):
        cluster_weights(CLUSTERS, CLUSTERS[:1])
