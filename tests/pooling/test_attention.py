import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.pooling import AttentionPool, attention_pool, mean_pool


@given(seed=st.integers(0, 2**31), heads=st.sampled_from([1, 2, 4, 8]))
def test_agrees_with_torch_sdpa(seed, heads):
    torch.manual_seed(seed)
    tokens, query = torch.randn(2, 5, 8).double(), torch.randn(heads, 8 // heads).double()
    mask = torch.rand(2, 5) > 0.3
    mask[:, 0] = True  # torch gives NaN for a row of padding only
    keys = tokens.unflatten(-1, query.shape).transpose(1, 2)
    queries = query[None, :, None].expand(2, -1, -1, -1)
    want = F.scaled_dot_product_attention(queries, keys, keys, mask[:, None, None])
    torch.testing.assert_close(attention_pool(tokens, query, mask), want.transpose(1, 2).flatten(1))


@given(seed=st.integers(0, 2**31), heads=st.sampled_from([1, 2, 8]))
def test_starts_as_mean_pooling(seed, heads):
    torch.manual_seed(seed)
    tokens, mask = torch.randn(3, 5, 8), torch.rand(3, 5) > 0.3
    pool = AttentionPool(8, num_heads=heads)
    torch.testing.assert_close(pool(tokens, mask), mean_pool(tokens, mask))
    torch.testing.assert_close(pool(tokens), mean_pool(tokens))


@given(seed=st.integers(0, 2**31))
def test_order_of_tokens_does_not_matter(seed):
    torch.manual_seed(seed)
    tokens, mask, query = torch.randn(2, 6, 8), torch.rand(2, 6) > 0.3, torch.randn(2, 4)
    order = torch.randperm(6)
    torch.testing.assert_close(
        attention_pool(tokens[:, order], query, mask[:, order]), attention_pool(tokens, query, mask)
    )


@given(seed=st.integers(0, 2**31))
def test_a_head_looks_at_its_own_channels_only(seed):
    torch.manual_seed(seed)
    tokens, query = torch.randn(2, 5, 8), torch.randn(2, 4)
    other = tokens.clone()
    other[..., 4:] = torch.randn(2, 5, 4)
    assert torch.equal(attention_pool(tokens, query)[:, :4], attention_pool(other, query)[:, :4])


def test_a_long_query_takes_the_token_that_matches():
    tokens = torch.eye(4)[None]
    pooled = attention_pool(tokens, 1e4 * torch.eye(4)[2:3])
    torch.testing.assert_close(pooled, tokens[:, 2])


def test_large_half_precision_tokens_do_not_overflow_the_scores():
    tokens = torch.full((1, 3, 4), 6e4, dtype=torch.float16)
    pooled = attention_pool(tokens, torch.ones(1, 4, dtype=torch.float16))
    assert torch.equal(pooled, tokens[:, 0])


def test_the_query_learns_to_find_a_token():
    torch.manual_seed(0)
    pool, target = AttentionPool(4), torch.tensor([[0.0, 0, 1, 0]])
    optimizer = torch.optim.Adam(pool.parameters(), lr=0.5)
    for _ in range(50):
        loss = F.mse_loss(pool(torch.eye(4)[None]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_it_shows_its_sizes_and_resets_to_the_mean():
    pool = AttentionPool(8, num_heads=2)
    nn.init.normal_(pool.query)
    pool.reset_parameters()
    assert (pool.query == 0).all()
    assert repr(pool) == "AttentionPool(dim=8, num_heads=2)"


def test_wrong_width_says_both_sizes():
    with pytest.raises(
        ValueError, match=r"tokens: expected last axis of size 8, got shape \(2, 3, 6\)"
    ):
        AttentionPool(8)(torch.randn(2, 3, 6))


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="AttentionPool: num_heads=3 must divide dim=8"):
        AttentionPool(8, num_heads=3)
    with pytest.raises(ValueError, match="AttentionPool: num_heads must be >= 1, got 0"):
        AttentionPool(8, num_heads=0)
    with pytest.raises(ValueError, match="AttentionPool: dim must be >= 1, got 0"):
        AttentionPool(0)
