import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.pooling import LatentAttentionPool, latent_attention, mean_pool

X = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]).double()
Z = torch.tensor([[2.0, 0.0], [0.0, -1.0]]).double()


def close(got, want):
    torch.testing.assert_close(got, torch.tensor(want).double(), rtol=0, atol=1e-6)


def test_equation_1_by_hand():
    mixed = latent_attention(X, Z)
    close(mixed[0], [[1.761594, -0.119203], [1.462117, -0.268941], [1.905148, -0.047426]])
    close(mean_pool(mixed), [[1.709620, -0.145190]])
    close(mean_pool(mixed, torch.tensor([[False, True, True]])), [[1.683633, -0.158184]])
    close(latent_attention(X, Z, scale=2**-0.5)[0, 0], [1.608859, -0.195570])


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 3.0]))
def test_equation_1_agrees_with_its_dense_form(seed, scale):
    torch.manual_seed(seed)
    tokens, latents = torch.randn(2, 5, 4).double(), torch.randn(3, 4).double()
    want = torch.softmax(scale * tokens @ latents.T, dim=-1) @ latents
    torch.testing.assert_close(latent_attention(tokens, latents, scale=scale), want)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_agrees_with_multihead_attention(heads):
    pool = LatentAttentionPool(8, num_latents=5, num_heads=heads).double()
    oracle = nn.MultiheadAttention(8, heads, bias=False, batch_first=True).double()
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([pool.query.weight, pool.key_value.weight]))
        oracle.out_proj.weight.copy_(pool.out.weight)
        nn.init.normal_(pool.norm_tokens.weight)
        nn.init.normal_(pool.norm_latents.bias)
        pool.contract.weight.zero_()  # no feed-forward: steps 1 to 3 alone
        pool.contract.bias.zero_()
    tokens, mask = torch.randn(3, 6, 8).double(), torch.rand(3, 6) > 0.3
    latents = pool.norm_latents(pool.latents).expand(3, -1, -1)
    attended, _ = oracle(pool.norm_tokens(tokens), latents, latents)
    torch.testing.assert_close(pool(tokens, mask), mean_pool(tokens + attended, mask))


def test_feedforward_agrees_with_torch_layers():
    pool = LatentAttentionPool(4, num_latents=3, num_heads=2, ff_mult=2).double()
    nn.init.zeros_(pool.out.weight)  # no attention: steps 4 and 5 alone
    nn.init.normal_(pool.norm_feedforward.weight)
    value, gate = nn.Linear(4, 8).double(), nn.Linear(4, 8).double()
    with torch.no_grad():
        value.weight.copy_(pool.expand.weight[:8])
        value.bias.copy_(pool.expand.bias[:8])
        gate.weight.copy_(pool.expand.weight[8:])
        gate.bias.copy_(pool.expand.bias[8:])
    tokens = torch.randn(2, 5, 4).double()
    normed = pool.norm_feedforward(tokens)
    inner = value(normed) * nn.GELU()(gate(normed))
    torch.testing.assert_close(pool(tokens), (tokens + pool.contract(inner)).mean(1))


def test_with_zeroed_outputs_it_is_the_masked_mean():
    pool = LatentAttentionPool(8, num_latents=4, num_heads=2)
    for parameter in (pool.out.weight, pool.contract.weight, pool.contract.bias):
        nn.init.zeros_(parameter)
    tokens, mask = torch.randn(3, 5, 8), torch.rand(3, 5) > 0.3
    assert torch.equal(pool(tokens, mask), mean_pool(tokens, mask))


@given(seed=st.integers(0, 2**31))
def test_order_of_tokens_and_of_latents_does_not_matter(seed):
    torch.manual_seed(seed)
    pool = LatentAttentionPool(8, num_latents=4, num_heads=2).double()
    tokens, mask = torch.randn(2, 6, 8).double(), torch.rand(2, 6) > 0.3
    order, want = torch.randperm(6), pool(tokens, mask)
    torch.testing.assert_close(pool(tokens[:, order], mask[:, order]), want)
    with torch.no_grad():
        pool.latents.copy_(pool.latents[torch.randperm(4)])
    torch.testing.assert_close(pool(tokens, mask), want)


def test_one_latent_gives_every_token_the_same_vector():
    tokens, latent = torch.randn(2, 5, 4), torch.randn(1, 4)
    torch.testing.assert_close(latent_attention(tokens, latent), latent.expand(2, 5, 4))


def test_keys_and_values_are_computed_once_whatever_the_batch():
    pool, shapes = LatentAttentionPool(8, num_latents=3, num_heads=2), []
    pool.key_value.register_forward_hook(lambda m, args, out: shapes.append(tuple(out.shape)))
    for batch in (1, 64):
        pool(torch.randn(batch, 5, 8))
    assert shapes == [(3, 16), (3, 16)]


def test_no_tensor_of_tokens_times_latents_is_kept_for_the_backward():
    sizes, r, n = [], 512, 64
    pool = LatentAttentionPool(8, num_latents=r, num_heads=2)
    latents = pool.latents.detach()
    for call in (pool, lambda x: latent_attention(x, latents)):
        tokens = torch.randn(2, n, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            call(tokens)
    assert max(sizes) < 2 * n * r / 4


def test_the_released_size_has_740_million_parameters():
    with torch.device("meta"):
        pool = LatentAttentionPool(4096, head_dim=4096)
    count = {name: sum(p.numel() for p in m.parameters()) for name, m in pool.named_children()}
    count["latents"] = pool.latents.numel()
    millions = {name: round(size / 1e6, 1) for name, size in count.items()}
    assert millions["latents"] == 2.1
    assert (millions["query"], millions["key_value"], millions["out"]) == (134.2, 268.4, 134.2)
    assert round((count["expand"] + count["contract"]) / 1e6, 1) == 201.4
    assert round(sum(count.values()) / 1e6) == 740


def test_reset_draws_every_parameter_again():
    pool = LatentAttentionPool(4, num_latents=200, num_heads=2)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.fill_(7.0)
    pool.reset_parameters()
    assert not any((p == 7.0).any() for p in pool.parameters())
    assert 0.8 < pool.latents.std() < 1.2
    torch.manual_seed(0)
    assert "dim=4, num_latents=200, num_heads=2" in repr(pool)


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(
        ValueError, match=r"num_heads=3 must divide dim=8 where head_dim is None\. Pass head_dim"
    ):
        LatentAttentionPool(8, num_heads=3)
    assert LatentAttentionPool(8, num_heads=3, head_dim=4)(torch.randn(2, 3, 8)).shape == (2, 8)


@pytest.mark.parametrize("name", ["dim", "num_latents", "num_heads", "head_dim", "ff_mult"])
def test_sizes_below_one(name):
    with pytest.raises(ValueError, match=f"LatentAttentionPool: {name} must be >= 1, got 0"):
        LatentAttentionPool(**{"dim": 8, name: 0})


def test_wrong_width_says_both_sizes():
    with pytest.raises(
        ValueError, match=r"tokens: expected last axis of size 8, got shape \(2, 3, 6\)"
    ):
        LatentAttentionPool(8)(torch.randn(2, 3, 6))


@pytest.mark.wording
def test_latents_of_another_width():
    with pytest.raises(
        ValueError, match=r"latents: expected last axis of size 4, got shape \(3, 5\)"
    ):
        latent_attention(torch.randn(2, 3, 4), torch.randn(3, 5))
