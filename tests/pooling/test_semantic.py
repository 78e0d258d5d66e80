"""Attention over views, against PyG's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pooling.cases_semantic import CASES
from torch.testing import assert_close

from embedkit.pooling.semantic import SemanticAttentionPool, semantic_attention
from embedkit.testing import check_module


def test_agrees_with_pyg():
    from torch_geometric.nn.conv.han_conv import group

    pool = SemanticAttentionPool(4, hidden=4).double()
    torch.nn.init.normal_(pool.score.bias)
    views = [torch.randn(6, 4, dtype=torch.float64) for _ in range(3)]
    want, weight = group(views, pool.query[None], pool.score)
    assert_close(pool(views), want)
    assert_close(pool(torch.stack(views)), want)
    assert_close(pool.weights(views), weight)


@given(seed=st.integers(0, 2**31), m=st.integers(1, 5))
def test_order_of_views_and_nodes_does_not_matter(seed, m):
    torch.manual_seed(seed)
    pool, views = SemanticAttentionPool(3, hidden=2).double(), torch.randn(m, 5, 3).double()
    paths, nodes = torch.randperm(m), torch.randperm(5)
    weight = pool.weights(views)
    assert_close(weight.sum(), torch.ones_like(weight[0]))
    assert_close(pool.weights(views[paths]), weight[paths])
    assert_close(pool(views[paths][:, nodes]), pool(views)[nodes])
    assert_close(pool(views[:1].expand(m, 5, 3)), views[0])


def test_no_nodes():
    pool = SemanticAttentionPool(3)
    assert pool(torch.randn(2, 0, 3)).shape == (0, 3)
    assert pool.weights(torch.randn(2, 0, 3)).tolist() == [0.5, 0.5]


def test_contract():
    check_module(*CASES[SemanticAttentionPool], exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[SemanticAttentionPool], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(5, 3)
    with pytest.raises(ValueError, match="views: expected at least one, got none"):
        SemanticAttentionPool(3)([])
    with pytest.raises(ValueError, match=r"got view 0 \(5, 3\), view 1 \(4, 3\). One row per node"):
        SemanticAttentionPool(3)([x, x[:4]])
    with pytest.raises(ValueError, match=r"view 0: expected last axis of size 2, got shape"):
        SemanticAttentionPool(2)([x, x])
    with pytest.raises(TypeError, match="view 1: expected a floating-point tensor"):
        SemanticAttentionPool(3)([x, x.long()])
    with pytest.raises(ValueError, match="SemanticAttentionPool: hidden must be >= 1, got 0"):
        SemanticAttentionPool(3, 0)
    assert semantic_attention([x], torch.eye(3), torch.zeros(3), torch.ones(3)).tolist() == [1]
