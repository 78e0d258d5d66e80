"""Weights of NV-Embed's released pooling head, as one of our Modules."""

from collections.abc import Mapping

from torch import Tensor

from embedkit.pooling.latent import LatentAttentionPool

_PREFIX = "latent_attention_model."
_NAMES = {
    "latents": "latents",
    "cross_attend_blocks.0.norm": "norm_tokens",
    "cross_attend_blocks.0.norm_context": "norm_latents",
    "cross_attend_blocks.0.fn.to_q": "query",
    "cross_attend_blocks.0.fn.to_kv": "key_value",
    "cross_attend_blocks.0.fn.to_out": "out",
    "cross_attend_blocks.1.norm": "norm_feedforward",
    "cross_attend_blocks.1.fn.net.0": "expand",
    "cross_attend_blocks.1.fn.net.2": "contract",
}


def load_nv_embed_pool(state_dict: Mapping[str, Tensor], num_heads: int = 8) -> LatentAttentionPool:
    """The pooling head of a released NV-Embed checkpoint, in its dtype.

    ======================================  ====================  ========================
    released (``latent_attention_model.``)  ours                  shape, released sizes
    ======================================  ====================  ========================
    latents                                 latents               (512, 4096)
    cross_attend_blocks.0.norm              norm_tokens           (4096,), weight and bias
    cross_attend_blocks.0.norm_context      norm_latents          (4096,), weight and bias
    cross_attend_blocks.0.fn.to_q           query.weight          (32768, 4096)
    cross_attend_blocks.0.fn.to_kv          key_value.weight      (65536, 4096)
    cross_attend_blocks.0.fn.to_out         out.weight            (4096, 32768)
    cross_attend_blocks.1.norm              norm_feedforward      (4096,), weight and bias
    cross_attend_blocks.1.fn.net.0          expand                (32768, 4096) and bias
    cross_attend_blocks.1.fn.net.2          contract              (4096, 16384) and bias
    ======================================  ====================  ========================

    Args:
        state_dict: the whole model's or the head's weights; others are passed over.
        num_heads: which no shape tells; 8 as released.

    Returns:
        A :class:`LatentAttentionPool` of the sizes that the weights have. The released model
        scales its result to length 1; :func:`embedkit.ops.normalize` does that.

    Raises:
        KeyError: naming the weights that are missing.
        ValueError: if ``num_heads`` does not divide the width of the queries.

    Source: Lee et al. 2024, NV-Embed (the released model's layout).
    """
    head = {key.removeprefix(_PREFIX): value for key, value in state_dict.items()}
    ours = {
        name + key.removeprefix(theirs): value
        for key, value in head.items()
        for theirs, name in _NAMES.items()
        if key == theirs or key in (f"{theirs}.weight", f"{theirs}.bias")
    }
    if missing := _missing(ours):
        raise KeyError(
            f"load_nv_embed_pool: {', '.join(missing)} not found among {len(state_dict)} weights. "
            "Pass the state dict of an NV-Embed checkpoint, all of its shards in one."
        )
    inner, dim = ours["query.weight"].shape
    if num_heads < 1 or inner % num_heads:
        raise ValueError(
            f"load_nv_embed_pool: num_heads={num_heads} must divide the width {inner} of queries"
        )
    pool = LatentAttentionPool(
        dim,
        num_latents=ours["latents"].shape[0],
        num_heads=num_heads,
        head_dim=inner // num_heads,
        ff_mult=ours["contract.weight"].shape[1] // dim,
    ).to(ours["latents"].dtype)
    pool.load_state_dict(ours)
    return pool


def _missing(ours: Mapping[str, Tensor]) -> list[str]:
    expected = LatentAttentionPool(1, num_latents=1, num_heads=1).state_dict()
    theirs = {name: key for key, name in _NAMES.items()}
    missing = [name.rpartition(".") for name in expected if name not in ours]
    return [
        _PREFIX + (f"{theirs[layer]}.{kind}" if layer else theirs[kind])
        for layer, _, kind in missing
    ]
