"""MaxSim: two texts compared token by token, without a tensor of all pairs of tokens."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import check_choice, check_floating, check_last_dim, check_mask, check_ndim
from embedkit.ops.masked import accumulation_dtype, zero_padding
from embedkit.ops.pairwise import normalize

KEY_TOKENS = 4096  # of one block, unless one key has more
ENTRIES = 2**21  # token similarities held at once, unless one query and one key have more


def max_sim(
    query: Float[Tensor, "q n d"],
    key: Float[Tensor, "k m d"],
    query_mask: Bool[Tensor, "q n"] | None = None,
    key_mask: Bool[Tensor, "k m"] | None = None,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
) -> Float[Tensor, "q k"]:
    """Late interaction:  s_qk = sum over query tokens i of max over key tokens j of  q_i . k_j.

    Every query meets every key, a block of keys at a time. Nothing of size q x k x n is built or
    kept: for backward the tokens alone are, and the best token of each pair is found again there.
    Beside the (q, k) result, memory is that of the tokens in float32 and of one block. Sums run in
    float32 or wider.

    Hand the result to any loss that takes similarities, e.g. ``info_nce_from_similarity``; for
    rankings of a corpus there is :func:`embedkit.search.late_interaction_search`.

    Args:
        query: token vectors; padding may hold anything, NaN and infinity included.
        key: token vectors of the other side, of the same width.
        query_mask: True where a token is real, False where it is padding. None: all real.
        key_mask: the same for the keys.
        similarity: "cosine", where a zero vector has similarity 0 and no gradient, or "dot".

    Returns:
        (q, k) in float32 or wider. With cosine between -n and n: divide by the number of real query
        tokens to compare queries of different lengths. A query or a key without a real token has
        similarity 0 to everything and gets a zero gradient. Of several key tokens that are equally
        near, one gets the gradient.

    Raises:
        TypeError: if tokens are not floating point or masks not bool.
        ValueError: if shapes or widths do not fit, or for an unknown ``similarity``.
        RuntimeError: on a second derivative.

    Source: Khattab & Zaharia 2020, ColBERT: Efficient and Effective Passage Search via
    Contextualized Late Interaction over BERT, section 3.3.
    Differs: a text without tokens scores 0. The paper's queries are filled up with mask tokens that
    take part (query augmentation): leave those True in ``query_mask``.

    >>> query = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> key = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[3.0, 4.0], [0.0, 0.0]]])
    >>> max_sim(query, key)
    tensor([[1.0000, 1.4000]])
    """
    for name, tokens, mask, axes in (
        ("query", query, query_mask, "q n d"),
        ("key", key, key_mask, "k m d"),
    ):
        check_floating(name, tokens, "Pass token vectors; look ids up in a table first.")
        check_ndim(name, tokens, axes)
        check_mask(mask, tokens, name)
    check_last_dim("query", query, key.shape[2], "Query and key must come from one model.")
    check_choice("max_sim", "similarity", similarity, ("cosine", "dot"))
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    query, key = (
        zero_padding(tokens.to(wide), mask)
        for tokens, mask in ((query, query_mask), (key, key_mask))
    )
    if similarity == "cosine":
        query, key = normalize(query), normalize(key)
    # A padded query token is zero, so its maximum is 0. Padding of a key becomes a copy of the
    # key's first real token, which changes no maximum: blocks need no mask.
    real = None if key_mask is None else key_mask.any(dim=1)
    if key_mask is not None and key.shape[1]:
        index = repeat(key_mask.int().argmax(dim=1), "k -> k 1 d", d=key.shape[2])
        key = torch.where(rearrange(key_mask, "k m -> k m 1"), key, key.gather(1, index))
    score: Tensor = torch.ops.embedkit.max_sim(query, key)
    if query_mask is not None:  # also where a key holds infinity, and 0 * infinity would be NaN
        score = score.masked_fill(~query_mask.any(dim=1, keepdim=True), 0.0)
    return score if real is None else score.masked_fill(~real, 0.0)


def _blocks(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice]]:
    """Whole queries by whole keys; none where a text has no tokens."""
    if 0 in (*query.shape[:2], *key.shape[:2]):
        return
    keys = max(1, KEY_TOKENS // key.shape[1])
    held = min(keys, key.shape[0]) * key.shape[1] * query.shape[1]
    queries = max(1, ENTRIES // held)
    for i in range(0, query.shape[0], queries):
        for j in range(0, key.shape[0], keys):
            yield slice(i, i + queries), slice(j, j + keys)


def _similarities(query: Tensor, key: Tensor) -> Tensor:
    """(q n, k, m) of a block: its tokens lie along the inner axis, where the maximum is cheap."""
    product = rearrange(query, "q n d -> (q n) d") @ rearrange(key, "k m d -> (k m) d").mT
    return rearrange(product, "r (k m) -> r k m", m=key.shape[1])


def _forward(query: Tensor, key: Tensor) -> Tensor:
    score = query.new_zeros(query.shape[0], key.shape[0])
    with torch.autocast(query.device.type, enabled=False):
        for i, j in _blocks(query, key):
            best = _similarities(query[i], key[j]).amax(dim=2)
            score[i, j] = rearrange(best, "(q n) k -> q n k", n=query.shape[1]).sum(dim=1)
    return score


def _gradients(grad: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    of_query, of_key = torch.zeros_like(query), torch.zeros_like(key)
    with torch.autocast(query.device.type, enabled=False):
        for i, j in _blocks(query, key):
            token = _similarities(query[i], key[j]).argmax(dim=2)  # of its key, (q n, k)
            width, size = key[j].shape[:2]
            token += torch.arange(width, device=key.device) * size
            weight = repeat(grad[i, j], "q k -> (q n) k", n=query.shape[1]).contiguous()
            keys = rearrange(key[j], "k m d -> (k m) d")
            for_query = F.embedding_bag(token, keys, mode="sum", per_sample_weights=weight)
            of_query[i] += rearrange(for_query, "(q n) d -> q n d", n=query.shape[1])
            # The transpose: which query tokens chose each key token, in order of the key tokens.
            chosen, order = token.flatten().sort(stable=True)
            for_key = F.embedding_bag(
                order.div(width, rounding_mode="floor"),
                rearrange(query[i], "q n d -> (q n) d"),
                torch.searchsorted(chosen, torch.arange(width * size, device=key.device)),
                mode="sum",
                per_sample_weights=weight.flatten()[order],
            )
            of_key[j] += rearrange(for_key, "(k m) d -> k m d", m=size)
    return of_query, of_key


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor] = torch.ops.embedkit.max_sim_gradients(
        grad, *ctx.saved_tensors
    )
    return gradients


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    del ctx, inputs, output


def _no_second(ctx: Any, *grads: Tensor) -> None:
    del ctx, grads
    raise RuntimeError(
        "max_sim: second derivatives are not defined. Take the maximum of a similarity tensor "
        "(q, n, k, m) of your own where you need them."
    )


_NAMES = "embedkit::max_sim", "embedkit::max_sim_gradients"
torch.library.define(_NAMES[0], "(Tensor query, Tensor key) -> Tensor")
torch.library.define(
    _NAMES[1], "(Tensor grad, Tensor query, Tensor key) -> (Tensor of_query, Tensor of_key)"
)
torch.library.impl(_NAMES[0], "default", _forward)
torch.library.impl(_NAMES[1], "default", _gradients)


def _fake_forward(query: Tensor, key: Tensor) -> Tensor:
    return query.new_empty(query.shape[0], key.shape[0])


def _fake_gradients(grad: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    del grad
    return torch.empty_like(query), torch.empty_like(key)


torch.library.register_fake(_NAMES[0], _fake_forward)
torch.library.register_fake(_NAMES[1], _fake_gradients)
torch.library.register_autograd(_NAMES[0], _backward, setup_context=_save)
torch.library.register_autograd(_NAMES[1], _no_second, setup_context=_save_nothing)
