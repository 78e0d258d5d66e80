"""Think in sentence vectors: feed predictions back, or their texts, until an answer stands."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
)
from embedkit.heads.next_sentence.autoencoder import check_result
from embedkit.heads.next_sentence.delimiters import last_real
from embedkit.heads.next_sentence.predictor import NextEmbeddingPredictor
from embedkit.ops import normalize

Advance = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]


class Rollout(NamedTuple):
    """What :func:`latent_rollout` gives; s is the number of steps that any row took.

    ``embedding`` (b, s, out_features) holds the predictions, ``state`` (b, s, dim) the states they
    were made of, both zeros where ``mask`` (b, s) is False: after the step that stopped a row.
    ``decoded`` holds what ``decode`` gave at each step, for all rows; empty if continuous.
    """

    embedding: Tensor
    state: Tensor
    mask: Tensor
    decoded: list[Any]

    @property
    def final(self) -> Tensor:
        """The last prediction of each row (b, out_features): decode this one for the answer."""
        return last_real(self.embedding, self.mask)


def latent_rollout(
    predictor: NextEmbeddingPredictor,
    question: Float[Tensor, "b n d"],
    mask: Bool[Tensor, "b n"] | None = None,
    *,
    max_steps: int = 10,
    decode: Callable[[Tensor], Any] | None = None,
    encode: Callable[[list[Any]], Tensor] | None = None,
    stop: Callable[[Tensor], Tensor] | None = None,
    advance: Advance | None = None,
    norm: float | None = None,
) -> Rollout:
    """Predict sentence after sentence, each from the question and the predictions so far.

    *Continuous* (default): the backbone's state g_t is its own next input, and nothing is decoded
    on the way; it costs one step of the backbone per sentence. *Discretised* (``decode`` and
    ``encode``): the prediction is written as text, and the text's vector read back through P_in:
    each step is readable and returns to vectors that the backbone was trained on.

    Put all modules into ``eval()``, and wrap the call in ``torch.no_grad()`` unless gradients are
    wanted, which the continuous form has.

    Args:
        predictor: a trained :class:`NextEmbeddingPredictor`.
        question: the backbone's token vectors; padding on either side.
        mask: True where a token is real. None: all real.
        max_steps: steps after which rows stop that did not stop before.
        decode: (b, out_features) -> texts of all rows, in whatever form ``encode`` reads.
        encode: what ``decode`` gave so far, a list with one entry per step -> vectors (b,
            in_features) of the newest. Semantic encoders read the last entry, contextual ones the
            question and all entries.
        stop: predictions (b, out_features) -> bool (b,), True where this sentence is the last:
            ``lambda z: head(z) > 0``, or whether the decoder's first token marks an answer. It is
            looked at after each step, which waits for the device. None: all rows take
            ``max_steps`` steps.
        advance: the backbone with a memory: (inputs not seen so far, mask of all inputs, memory) ->
            (states of these inputs, memory), where memory is None at first: a key-value cache or a
            recurrent state. None: the backbone reads everything again at each step.
        norm: length that the state is given before it is the next input of a continuous roll-out.
            The alignment loss sets directions alone; the mean length of P_in(h) on training data,
            ``predictor.embed(steps).norm(dim=-1).mean().item()``, makes lengths fit, too, and keeps
            them from drifting. None: as it is, as in the paper.

    Returns:
        A :class:`Rollout`.

    Raises:
        ValueError: if only one of ``decode`` and ``encode`` is given, ``norm`` is not > 0 or given
            for a discretised roll-out, ``max_steps`` is negative, or shapes don't fit.
        TypeError: if ``stop`` doesn't give bool, or a callable no tensor.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, continuous and discretised
    inference.
    Differs: each row may stop by itself, the authors' code takes ten steps; ``norm``.
    """
    check_at_least("latent_rollout", "max_steps", max_steps, 0)
    if (decode is None) != (encode is None):
        raise ValueError(
            "latent_rollout: expected decode and encode together (discretised) or neither "
            f"(continuous), got {'encode' if decode is None else 'decode'} alone. To read the "
            "answer of a continuous roll-out decode its .final afterwards."
        )
    if norm is not None:
        check_positive("latent_rollout", "norm", norm)
        if encode is not None:
            raise ValueError(
                "latent_rollout: norm is for continuous roll-outs; a discretised one feeds back "
                "P_in of the text's vector, which has its length. Leave norm out."
            )
    unseen, real = predictor.start(question, mask)
    inputs, memory = unseen, None
    states, embeddings, running, decoded = [], [], [], []
    active = real.new_ones(real.shape[0])
    for step in range(max_steps):
        if advance is None:
            state = predictor.states(inputs, real)[:, -1]
        else:
            hidden, memory = advance(unseen, real, memory)
            check_result("latent_rollout: advance", hidden, "states (b, n, dim) of its inputs")
            check_ndim("states that advance gave", hidden, "b n dim")
            check_last_dim("states that advance gave", hidden, predictor.dim)
            state = hidden[:, -1]
        embedding = predictor.predict(state)
        states.append(state)
        embeddings.append(embedding)
        running.append(active)
        if decode is not None:
            decoded.append(decode(embedding))
        if stop is not None:
            active = active & ~_stopped(stop(embedding), active)
            if not active.any():
                break
        if step + 1 == max_steps:
            break
        if encode is not None:
            vectors = encode(decoded)
            check_result("latent_rollout: encode", vectors, "vectors (b, in_features)")
            check_ndim("vectors that encode gave", vectors, "b in_features")
            check_rows("vectors that encode gave", vectors, active.shape[0], "One per question.")
            unseen = predictor.embed(rearrange(vectors, "b d -> b 1 d")).to(inputs.dtype)
        else:
            fed = state if norm is None else normalize(state) * norm
            unseen = rearrange(fed, "b d -> b 1 d")
        inputs = torch.cat([inputs, unseen], dim=1)
        real = torch.cat([real, real.new_ones(real.shape[0], 1)], dim=1)
    if not states:
        empty = question.new_zeros(question.shape[0], 0, predictor.out_features)
        return Rollout(empty, question[:, :0], real[:, :0], decoded)
    taken = torch.stack(running, dim=1)
    embedding, state = (
        torch.stack(rows, dim=1).masked_fill(~rearrange(taken, "b s -> b s 1"), 0.0)
        for rows in (embeddings, states)
    )
    return Rollout(embedding, state, taken, decoded)


def _stopped(verdict: Tensor, active: Tensor) -> Tensor:
    """Raise unless a stop rule gave one bool per row."""
    if not isinstance(verdict, Tensor) or verdict.dtype != torch.bool:
        got = verdict.dtype if isinstance(verdict, Tensor) else type(verdict).__name__
        raise TypeError(
            f"latent_rollout: stop must give a bool tensor (b,), True where a row is done, got "
            f"{got}. For a TerminationHead: stop=lambda z: head(z) > 0."
        )
    if verdict.shape != active.shape:
        raise ValueError(
            f"latent_rollout: stop must give shape {tuple(active.shape)}, one verdict per row, got "
            f"{tuple(verdict.shape)}. Behind a linear layer of one output take [:, 0]."
        )
    return verdict
