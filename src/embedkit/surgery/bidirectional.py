"""Attention both ways from a decoder that was trained to look back only."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

_OLDEST = (5, 2)  # transformers from this version on builds masks by ``config.is_causal``
_BOTH_WAYS = {"full_attention", "sliding_attention"}
_MASKS = ("create_causal_mask", "create_sliding_window_causal_mask", "create_masks_for_generate")


@contextmanager
def bidirectional(model: nn.Module) -> Iterator[nn.Module]:
    """Let every token of a decoder-only Hugging Face model attend to later tokens, too.

    A context manager. Inside, ``config.is_causal`` and the flag of that name on every attention
    module are False, from which transformers builds the mask of the implementation in use: all
    real tokens for full attention, those at most ``sliding_window`` away on either side for
    sliding attention, never padding. Weights are shared, nothing is copied. Afterwards, also after
    an exception, flags, config and hooks are as before. Nesting is allowed.

    Such a model was trained to predict the next token: fine-tune it before its vectors are worth
    comparing, with the backward pass inside the context if gradients are checkpointed (layers run
    again then). Saved inside, its config carries ``is_causal: false``, and transformers loads it as
    a model that attends both ways.

    Args:
        model: any Module that contains the decoder: the model itself, one with a head, wrapped in
            an adapter, or a sentence-transformers model. Attention that already looks both ways,
            of an image encoder say, stays as it is.

    Yields:
        ``model`` itself.

    Raises:
        ValueError: where an implementation other than eager, sdpa, flex_attention or
            flash_attention is set, or a decoder whose causality is not in its mask: recurrent,
            linear or chunked layers, ALiBi biases, a mask of its own, an encoder-decoder. Inside:
            for a cache that holds tokens, which could not see the new ones, and for
            ``position_ids`` without ``attention_mask``, which may be packed texts (flash_attention
            alone keeps those apart).
        ImportError: if transformers is older than 5.2.

    Source: Lee et al. 2024, NV-Embed, section 3 (bidirectional attention).
    Differs: sliding windows stay windows, to both sides.

    >>> from transformers import LlamaConfig, LlamaModel  # doctest: +SKIP
    >>> with bidirectional(LlamaModel(config)) as model:  # doctest: +SKIP
    ...     tokens = model(input_ids, attention_mask=mask).last_hidden_state
    """
    attention = [m for m in model.modules() if isinstance(getattr(m, "is_causal", None), bool)]
    causal = [m for m in attention if m.is_causal]
    decoders = [m for m in model.modules() if _holds(m, attention)]
    _check(model, attention, causal)
    configs = {id(m.config): m.config for m in [*causal, *decoders] if hasattr(m, "config")}
    owners: list[Any] = [*causal, *configs.values()]
    with ExitStack() as stack:
        for owner in owners:
            stack.callback(_restore(owner))
            owner.is_causal = False
        for decoder in decoders:
            handle = decoder.register_forward_pre_hook(_check_call, with_kwargs=True)
            stack.callback(handle.remove)
        yield model


def _holds(module: nn.Module, attention: list[nn.Module]) -> bool:
    """Tell whether this is a Hugging Face model, of any kind, around some of the attention."""
    if not (hasattr(module, "config") and hasattr(module, "get_input_embeddings")):
        return False
    inside = {id(m) for m in module.modules()}
    return any(id(m) in inside for m in attention)


def _restore(owner: Any) -> Callable[[], None]:
    """Put ``is_causal`` back, or take it away where there was none."""
    if "is_causal" not in vars(owner):
        return lambda: delattr(owner, "is_causal")
    before = owner.is_causal
    return lambda: setattr(owner, "is_causal", before)


def _check(model: nn.Module, attention: list[nn.Module], causal: list[nn.Module]) -> None:
    """Raise unless the masks of transformers alone make this model causal."""
    name = type(model).__name__
    if not attention:
        raise ValueError(
            f"bidirectional: expected a Hugging Face decoder with attention modules that have a "
            f"flag is_causal, got {name} without any. Recurrent models and models with attention "
            "of their own can't attend both ways; take a Llama, Mistral, Qwen, Gemma or GPT-2."
        )
    for module in causal:
        config: Any = getattr(module, "config", None)
        own = any(buffer.dtype in (torch.bool, torch.uint8) for buffer in module.buffers())
        home = vars(sys.modules[type(module).__module__])
        if config is None or own or not any(mask in home for mask in _MASKS):
            raise ValueError(
                f"bidirectional: {type(module).__name__} in {name} makes its causal mask itself, "
                "so that it can't be changed from outside. Take a model of transformers that uses "
                "its create_causal_mask."
            )
        how = str(getattr(config, "_attn_implementation", None))
        if how not in ("eager", "sdpa", "flex_attention") and not _is_flash(how):
            raise ValueError(
                "bidirectional: attention implementation must be one of eager, sdpa, "
                f"flex_attention, flash_attention_2 or later, got {how!r} in {name}. "
                "Call model.set_attn_implementation('sdpa') before."
            )
        other = set(getattr(config, "layer_types", None) or ()) - _BOTH_WAYS
        if other or getattr(config, "alibi", False):
            kind = ", ".join(sorted(other)) or "ALiBi biases"
            raise ValueError(
                f"bidirectional: layers must be full_attention or sliding_attention, got {kind} "
                f"in {name}. No mask makes these look ahead; take another decoder."
            )
        if getattr(config, "is_encoder_decoder", False):
            raise ValueError(
                f"bidirectional: expected a decoder-only model, got {name}, an encoder-decoder. "
                "Its encoder attends both ways already: use model.get_encoder()."
            )
    version = str(getattr(sys.modules.get("transformers"), "__version__", "5.2"))
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise ImportError(
            f"bidirectional: expected transformers 5.2 or later, got {version}, whose masks are "
            "causal always. Upgrade it: pip install 'transformers>=5.2'."
        )


def _is_flash(how: str) -> bool:
    return "flash" in how and not how.startswith("paged")


def _check_call(decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise for inputs that a mask both ways would silently spoil."""
    names = inspect.signature(decoder.forward).parameters
    kwargs = dict(zip(names, args, strict=False)) | kwargs
    cache = kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        raise ValueError(
            "bidirectional: past_key_values must be empty, got a cache of "
            f"{cache.get_seq_length()} tokens, which can't see the new ones. Pass whole texts; "
            "generate outside of the context."
        )
    config: Any = decoder.config
    packed = kwargs.get("position_ids") is not None and kwargs.get("attention_mask") is None
    if packed and not _is_flash(str(config._attn_implementation)):
        raise ValueError(
            "bidirectional: position_ids need an attention_mask beside them, got None. Without "
            "it packed texts would see each other: pass one text per row and its mask."
        )
