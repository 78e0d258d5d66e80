"""The released head's layout: a model of that layout, built from torch's layers, is the oracle."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from embedkit.pooling import load_nv_embed_pool


class Block(nn.Module):
    def __init__(self, fn, dim, context=None):
        super().__init__()
        self.fn, self.norm = fn, nn.LayerNorm(dim)
        if context:
            self.norm_context = nn.LayerNorm(context)


class Head(nn.Module):
    """Attributes carry the released names; 2 heads of width 5 on width 6."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(4, 6))
        attention, feedforward = nn.Module(), nn.Module()
        attention.to_q = nn.Linear(6, 10, bias=False)
        attention.to_kv = nn.Linear(6, 20, bias=False)
        attention.to_out = nn.Linear(10, 6, bias=False)
        feedforward.net = nn.Sequential(nn.Linear(6, 48), nn.Identity(), nn.Linear(24, 6))
        blocks = [Block(attention, 6, context=6), Block(feedforward, 6)]
        self.cross_attend_blocks = nn.ModuleList(blocks)
        for block in blocks:
            nn.init.normal_(block.norm.weight)

    def forward(self, tokens, mask):
        first, second = self.cross_attend_blocks
        latents = first.norm_context(self.latents).expand(tokens.shape[0], -1, -1)
        q = first.fn.to_q(first.norm(tokens))
        k, v = first.fn.to_kv(latents).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (2, 5)).transpose(1, 2) for t in (q, k, v))
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = first.fn.to_out(mixed) + tokens
        value, gate = second.fn.net[0](second.norm(tokens)).chunk(2, dim=-1)
        tokens = second.fn.net[2](value * gelu(gate)) + tokens
        return (tokens * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def checkpoint():
    torch.manual_seed(0)
    head = Head().double()
    weights = {f"latent_attention_model.{k}": v for k, v in head.state_dict().items()}
    return head, {"embedding_model.norm.weight": torch.ones(6), **weights}


def test_loaded_weights_give_what_the_released_layout_gives():
    head, weights = checkpoint()
    tokens, mask = torch.randn(3, 5, 6).double(), torch.rand(3, 5) > 0.3
    mask[:, 0] = True
    pool = load_nv_embed_pool(weights, num_heads=2)
    torch.testing.assert_close(pool(tokens, mask), head(tokens, mask))
    alone = load_nv_embed_pool(head.state_dict(), num_heads=2)
    torch.testing.assert_close(alone(tokens, mask), head(tokens, mask))
    assert load_nv_embed_pool({k: v.bfloat16() for k, v in weights.items()}, 2).latents.dtype == (
        torch.bfloat16
    )


def test_what_is_missing_is_named_as_released():
    _, weights = checkpoint()
    del weights["latent_attention_model.cross_attend_blocks.0.fn.to_kv.weight"]
    del weights["latent_attention_model.latents"]
    wanted = r"latent_attention_model\.latents, latent_attention_model\.cross_attend_blocks\.0\.fn"
    with pytest.raises(KeyError, match=wanted):
        load_nv_embed_pool(weights, num_heads=2)
    with pytest.raises(ValueError, match="num_heads=8 must divide the width 10 of queries"):
        load_nv_embed_pool(checkpoint()[1])
