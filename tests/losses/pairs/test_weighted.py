"""Weighted InfoNCE: hand numbers, the losses it contains, and the naive formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses.pairs.test_contrastive import close, randn

from embedkit.losses import (
    WeightedInfoNCELoss,
    decoupled_contrastive,
    info_nce,
    weighted_info_nce,
    weighted_info_nce_from_similarity,
)
from embedkit.mining import SoftNegativeWeight, cluster_weights

S = torch.tensor([[0.8, 0.1, 0.3], [0.2, 0.9, 0.4], [0, 0.5, 0.7]], dtype=torch.float64)
CLUSTERS = torch.tensor([[0, 0, 1], [0, 1, 1]])
OWN = torch.eye(3, dtype=torch.bool)


def by_clusters(query, key):
    return cluster_weights(query.T, key.T)


def ones(query, key):
    return torch.ones(len(query), len(key))


def test_hand_numbers():
    similarity = S.clone().requires_grad_()
    weights = cluster_weights(CLUSTERS)
    rows = weighted_info_nce_from_similarity(
        similarity, OWN, weights, temperature=0.5, reduction="none"
    )
    close(rows.detach(), [-0.017802, -0.486985, 0.151445])
    close(rows.mean().detach(), -0.117781)
    rows.sum().backward()
    close(
        similarity.grad,
        [[-2, 0.502052, 1.497948], [0.802625, -2, 1.197375], [0.847766, 1.152234, -2]],
    )
    halved = weighted_info_nce_from_similarity(
        S, OWN, weights / 2, temperature=0.5, reduction="none"
    )
    close(rows.detach() - halved, [0.693147] * 3)


def test_singletons_are_the_decoupled_loss():
    query, key = randn(6, 4), randn(6, 4, seed=1)
    clusters = torch.arange(6).expand(3, 6)
    rows = weighted_info_nce(
        query,
        key,
        by_clusters,
        temperature=0.3,
        query_features=clusters.T,
        key_features=clusters.T,
        reduction="none",
    )
    want = decoupled_contrastive(query, key, temperature=0.3, reduction="none")
    close(rows - want, [torch.tensor(3.0).log()] * 6)


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 6), more=st.integers(0, 3))
def test_weight_one_is_info_nce(seed, rows, more):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, 3, dtype=torch.float64, generator=generator).requires_grad_()
    key = torch.randn(rows + more, 3, dtype=torch.float64, generator=generator).requires_grad_()
    ids = torch.randint(0, 3, (rows + more,), generator=generator)
    for given_ids in ({}, {"query_ids": ids[:rows], "key_ids": ids}):
        want = info_nce(query, key, temperature=0.2, **given_ids)
        got = weighted_info_nce(query, key, ones, temperature=0.2, **given_ids)
        close(got.detach(), want.detach(), 1e-10)
        grads = [torch.autograd.grad(loss, (query, key)) for loss in (got, want)]
        torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_blocks_equal_the_whole_matrix(monkeypatch):
    torch.manual_seed(0)
    query, key = randn(7, 4).requires_grad_(), randn(9, 4, seed=1).requires_grad_()
    network = SoftNegativeWeight(4, hidden=3).double()
    leaves = (query, key, *network.parameters())
    unit = torch.nn.functional.normalize
    whole = weighted_info_nce_from_similarity(
        unit(query) @ unit(key).T,
        torch.eye(7, 9, dtype=torch.bool),
        network(query, key),
        temperature=0.5,
    )
    monkeypatch.setattr("embedkit.losses.pairs.weighted._ENTRIES", 20)
    blocks = weighted_info_nce(query, key, network)
    close(blocks.detach(), whole.detach(), 1e-10)
    grads = [torch.autograd.grad(loss, leaves) for loss in (blocks, whole)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_a_constant_weight_shifts_the_loss():
    query, key = randn(5, 4), randn(5, 4, seed=1)
    third = weighted_info_nce(query, key, lambda a, b: ones(a, b) / 3, temperature=0.5)
    close(third, info_nce(query, key, temperature=0.5) - torch.tensor(3.0).log())


@pytest.mark.parametrize("temperature", [1e-3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_without_a_weight_are_left_out(temperature, dtype):
    query = torch.randn(4, 3).to(dtype).requires_grad_()
    key = torch.randn(4, 3).to(dtype).requires_grad_()
    learned = torch.tensor([[0.0, 0, 0, 0], [1, 0, 1e-30, 0], [1, 1, 1, 1], [0, 0, 0, 2]])
    learned.requires_grad_()
    loss = weighted_info_nce(
        query,
        key,
        lambda rows, _: learned[rows[:, 0]],
        temperature=temperature,
        query_features=torch.arange(4)[:, None],
        reduction="none",
    )
    loss.sum().backward()
    assert loss[0] == 0
    assert loss.isfinite().all()
    assert all(x.grad.isfinite().all() for x in (query, key, learned))
    nothing = weighted_info_nce(query, key, lambda a, b: 0.0 * ones(a, b))
    nothing.backward()
    assert nothing == 0


@pytest.mark.parametrize("least", [1e-45, 1e-40, 1e-30])
def test_a_key_with_next_to_no_weight_may_be_the_closest(least):
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    weight = torch.tensor([[least, 1, 0], [1, least, 0], [0, 1, 0]], requires_grad=True)
    found = weighted_info_nce_from_similarity(
        rows @ rows.T, OWN, weight, temperature=0.01, reduction="none"
    )
    # log(w_ii exp(100) + exp(-100)) - 100; a weight counts as the smallest normal number at least
    low = torch.tensor(least).clamp(min=torch.finfo(torch.float32).tiny).log()
    torch.testing.assert_close(found.detach(), torch.stack([low, low, torch.tensor(-100.0)]))
    found.sum().backward()
    assert all(x.grad.isfinite().all() for x in (rows, weight))


def test_what_is_not_finite_is_seen():
    bad = S.clone()
    bad[1, 1] = -torch.inf
    weights = cluster_weights(CLUSTERS)
    for similarity, pair_weight in ((bad, weights), (S, weights * torch.nan)):
        loss = weighted_info_nce_from_similarity(similarity, OWN, pair_weight, temperature=0.5)
        assert not loss.isfinite()


@pytest.mark.wording
def test_errors_teach():
    query, key = randn(3, 2), randn(3, 2)
    with pytest.raises(
        ValueError, match=r"pair_weight: expected to give shape \(1, 3\).*got \(1,\)"
    ):
        weighted_info_nce(query, key, lambda a, b: a.sum(dim=1))
    with pytest.raises(ValueError, match=r"key: expected at least 3 rows"):
        weighted_info_nce(query, key[:2], ones)
    with pytest.raises(ValueError, match=r"query_features: expected 3 rows, got shape \(2, 1\)"):
        weighted_info_nce(query, key, ones, query_features=torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"WeightedInfoNCELoss: temperature must be > 0, got -1"):
        WeightedInfoNCELoss(ones, -1.0)
    with pytest.raises(TypeError, match=r"positive: expected bool"):
        weighted_info_nce_from_similarity(S, OWN.long(), S, temperature=0.5)
