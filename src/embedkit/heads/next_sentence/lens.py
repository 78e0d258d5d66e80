"""Read a latent model's thoughts: decode the states between its layers."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import check_mask, check_ndim
from embedkit.heads.next_sentence.autoencoder import check_result
from embedkit.heads.next_sentence.delimiters import last_real


@torch.no_grad()
def sentence_lens(
    hidden: Iterable[Float[Tensor, "b n d"]],
    decode: Callable[[Tensor], Any],
    *,
    projection: Callable[[Tensor], Tensor] | None = None,
    norm: Callable[[Tensor], Tensor] | None = None,
    mask: Bool[Tensor, "b n"] | None = None,
) -> list[Any]:
    """Decode what each layer's last state would say, if the model ended after that layer.

    For each layer l:  decode(projection(norm(last real state of layer l))).  At the last layer this
    is the model's own next sentence; in the layers before one sees it take shape.

    Args:
        hidden: states of all layers, e.g. ``hidden_states`` of a Hugging Face model. Cut them,
            ``h[:, : n + t]``, to look at step t of a roll-out with n question tokens.
        decode: (b, out_features) -> texts, e.g. by :func:`greedy_decode`.
        projection: P_out, :meth:`NextEmbeddingPredictor.predict`. None: states are decoded as they
            are.
        norm: the model's final norm, for layers that haven't passed it. None: none, as in the
            authors' code. Where the last layer's states come after the final norm, as Hugging Face
            gives them, pass that layer in a call without it.
        mask: True where a token is real. None: all real.

    Returns:
        What ``decode`` gave, one entry per layer.

    Raises:
        ValueError: if states have not three axes, or ``mask`` not their first two.
        TypeError: if states are no floating-point tensors.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, SentenceLens.
    """
    texts = []
    for state in hidden:
        check_result("sentence_lens: each layer", state, "states (b, n, d)")
        check_ndim("hidden", state, "b n d")
        check_mask(mask, state, "each state", "mask")
        real = state.new_ones(state.shape[:2], dtype=torch.bool) if mask is None else mask
        last = last_real(state, real)
        last = last if norm is None else norm(last)
        texts.append(decode(last if projection is None else projection(last)))
    return texts
