"""Latent attention pooling: tokens look up a learned dictionary, then are averaged."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from embedkit._checks import check_at_least, check_last_dim, check_ndim, check_tokens
from embedkit.ops import zero_padding
from embedkit.pooling.masked import mean_pool


def latent_attention(
    tokens: Float[Tensor, "b n d"], latents: Float[Tensor, "r d"], *, scale: float = 1.0
) -> Float[Tensor, "b n d"]:
    """Write every token as a mixture of latent vectors: softmax(scale * X Z^T) Z.

    The softmax runs over the r latents, never over tokens, so it needs no mask: average the result
    over real tokens afterwards. This is the bare equation, without projections.

    Args:
        tokens: X, the queries.
        latents: Z, keys and values in one, shared by the batch.
        scale: multiplies the dot products; 1/sqrt(d) is usual in attention.

    Returns:
        One mixture per token, in the dtype of ``tokens``. No b x n x r tensor is kept.

    Raises:
        TypeError: if ``tokens`` is not floating point.
        ValueError: if ``tokens`` has not three axes, the widths differ, or there is no latent.

    Source: Lee et al. 2024, NV-Embed, eq. 1.
    """
    check_tokens(tokens, None)
    check_ndim("latents", latents, "r d")
    check_at_least("latent_attention", "the number of latents", latents.shape[0], 1)
    check_last_dim("latents", latents, tokens.shape[-1], "Latents have the width of the tokens.")
    latents = latents.to(tokens.dtype).expand(tokens.shape[0], 1, -1, -1)
    query = rearrange(tokens, "b n d -> b 1 n d")
    mixed = scaled_dot_product_attention(query, latents, latents, scale=scale)
    return rearrange(mixed, "b 1 n d -> b n d")


class LatentAttentionPool(nn.Module):
    """Let every token attend to a learned dictionary, transform it, and average the real tokens.

    With tokens X (n, d), latents Z (r, d), layer norms LN, heads of width c::

        Q = LN_x(X) W_q,   [K, V] = LN_z(Z) W_kv
        X1 = X + concat_h(softmax(Q_h K_h^T / sqrt(c)) V_h) W_o
        X2 = X1 + (u * GELU(g)) W_2 + b_2,   [u, g] = LN_f(X1) W_1 + b_1
        pooled = sum_n m_n X2_n / sum_n m_n

    The softmax runs over latents, so the number of tokens enters only through the final mean.
    Tokens are the queries: the length stays n until that mean (this is no Perceiver resampler).

    Cost: time O(b n r h c + b n d^2 ff_mult), memory O(b n (h c + ff_mult d) + b r h c): keys and
    values are computed once per forward and no b x n x r tensor is kept. Most parameters are in
    the projections, 4 d h c, and the feed-forward, 3 ff_mult d^2: at d = 4096 with 8 heads,
    ``head_dim=dim`` as released makes 740 million of them and the default 270 million.

    Args:
        dim: width d of the tokens and of the result.
        num_latents: size r of the dictionary.
        num_heads: number of attention heads h.
        head_dim: width c of one head; None: ``dim // num_heads``, which must be exact.
        ff_mult: inner width of the feed-forward in units of ``dim``.

    Raises:
        TypeError: if ``tokens`` is not floating point or ``mask`` is not bool.
        ValueError: if a size is below 1, ``num_heads`` does not divide ``dim`` and ``head_dim`` is
            None, or the shapes of ``tokens`` and ``mask`` do not fit.

    Source: Lee et al. 2024, NV-Embed, section 3.1 and eq. 1, in the form of the released model.
    Differs: eq. 1 has no projections, scaling, norms or residuals; the released model has them and
        so has this (the bare equation is :func:`latent_attention`). The result is not normalised:
        losses and search do that, after truncation where there is one. ``head_dim`` defaults to
        ``dim // num_heads``; the released model takes ``head_dim=dim``. Padding only gives zeros.

    >>> pool = LatentAttentionPool(8, num_latents=4, num_heads=2)
    >>> pool(torch.randn(4, 5, 8), torch.rand(4, 5) > 0.3).shape
    torch.Size([4, 8])
    """

    def __init__(
        self,
        dim: int,
        num_latents: int = 512,
        num_heads: int = 8,
        head_dim: int | None = None,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        sizes = {"dim": dim, "num_latents": num_latents, "num_heads": num_heads, "ff_mult": ff_mult}
        for name, value in sizes.items():
            check_at_least("LatentAttentionPool", name, value, 1)
        if head_dim is None:
            if dim % num_heads:
                raise ValueError(
                    f"LatentAttentionPool: num_heads={num_heads} must divide dim={dim} where "
                    "head_dim is None. Pass head_dim, or choose another num_heads."
                )
            head_dim = dim // num_heads
        check_at_least("LatentAttentionPool", "head_dim", head_dim, 1)
        self.num_heads = num_heads
        inner = num_heads * head_dim
        self.latents = nn.Parameter(torch.empty(num_latents, dim))
        self.norm_tokens = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, inner, bias=False)
        self.key_value = nn.Linear(dim, 2 * inner, bias=False)
        self.out = nn.Linear(inner, dim, bias=False)
        self.expand = nn.Linear(dim, 2 * ff_mult * dim)
        self.contract = nn.Linear(ff_mult * dim, dim)
        nn.init.normal_(self.latents)

    def reset_parameters(self) -> None:
        """Draw the latents from N(0, 1) and give every layer torch's own initialisation."""
        nn.init.normal_(self.latents)
        for layer in self.children():
            layer.reset_parameters()  # type: ignore[operator]

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, offsets: Tensor | None = None
    ) -> Tensor:
        """(b, n, d) and an optional bool (b, n) -> (b, d), or packed (t, d) with offsets."""
        check_tokens(tokens, mask, offsets)
        dim = self.latents.shape[1]
        check_last_dim("tokens", tokens, dim, "A pool fits one width: rebuild it or project.")
        # Zeroed first: padding would cancel in the mean, but its NaN would enter every gradient.
        hidden = zero_padding(tokens, mask).to(self.latents.dtype)
        hidden = hidden + self._attend(hidden)
        value, gate = self.expand(self.norm_feedforward(hidden)).chunk(2, dim=-1)
        hidden = hidden + self.contract(value * gelu(gate))
        return mean_pool(hidden, mask, offsets=offsets).to(tokens.dtype)

    def _attend(self, tokens: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        # No token sees another one: however they are arranged, they are one long sequence.
        query = self.query(self.norm_tokens(tokens)).flatten(0, -2)
        query = rearrange(query, "t (h c) -> 1 h t c", h=self.num_heads)
        shared = self.key_value(self.norm_latents(self.latents))
        key, value = (
            rearrange(part, "r (h c) -> 1 h r c", h=self.num_heads)
            for part in shared.chunk(2, dim=-1)
        )
        mixed = scaled_dot_product_attention(query, key, value)
        back: Tensor = self.out(rearrange(mixed, "1 h t c -> t (h c)"))
        return back.view(tokens.shape)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        num_latents, dim = self.latents.shape
        return f"dim={dim}, num_latents={num_latents}, num_heads={self.num_heads}"
