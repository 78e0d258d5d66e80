"""Predict the next sentence's vector from a question and the sentences so far."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_last_dim,
    check_mask,
    check_ndim,
    check_rows,
)
from embedkit.heads.next_sentence.autoencoder import check_rate, check_result
from embedkit.heads.next_sentence.delimiters import padding_first
from embedkit.ops import zero_padding

_FIT = "A predictor fits one width: rebuild it."


class NextEmbedding(NamedTuple):
    """What :class:`NextEmbeddingPredictor` gives; column t is about sentence t.

    ``prediction`` (b, r, out_features) is what the decoder reads; ``state`` (b, r, dim) the
    backbone's state that it was made of, and ``target`` (b, r, dim) the true sentence's vector as
    the backbone reads it: the two that the alignment loss brings together.
    """

    prediction: Tensor
    state: Tensor
    target: Tensor


class NextEmbeddingPredictor(nn.Module):
    """A user's causal backbone over the question's tokens and one vector per sentence.

    inputs  = [question, dropout(P_in(h_1)), ..., dropout(P_in(h_(r-1)))]
    g_t     = the backbone's state before sentence t, from the last token of the question on
    predict = P_out(dropout(g_t)),    P_in, P_out = Linear - GELU - Linear

    Train it through the decoder that made the vectors, frozen by
    ``decoder.requires_grad_(False).eval()``: cross-entropy of the decoder's logits for
    ``prediction`` (:func:`embedkit.losses.sequence_cross_entropy`; gradients flow through the
    frozen decoder, so no ``torch.no_grad``), plus :func:`embedkit.losses.info_nce` of ``state`` and
    ``target``, which a continuous :func:`latent_rollout` relies on. Squared error to the next
    vector would average all sentences that may follow.

    Args:
        backbone: (inputs (b, n, dim), mask (b, n)) -> states (b, n, dim); causal. Padding comes
            first in every row; positions are those of ``mask.cumsum(1) - 1``. It must be finite for
            rows and positions of padding.
        in_features: width of a sentence's vector.
        dim: width of the backbone, and of the question's token vectors.
        out_features: width that the decoder reads; None: ``in_features``.
        dropout: after P_in and before P_out, in training.

    Raises:
        ValueError: if a width is below 1, the rate not in [0, 1), shapes differ, the question has
            no column, or the backbone gives another shape than it got.
        TypeError: if vectors are not floating, masks not bool, or the backbone's result is no
            tensor.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, the latent model.
    Differs: masks say which sentences are there, not the sum of a vector's entries; a question may
    be padded on either side.

    >>> class Average(nn.Module):  # the mean of what came so far
    ...     def forward(self, inputs, mask):
    ...         return inputs.cumsum(1) / mask.cumsum(1).clamp(min=1)[..., None]
    >>> predictor = NextEmbeddingPredictor(Average(), in_features=6, dim=8)
    >>> predictor(torch.randn(2, 5, 8), torch.randn(2, 3, 6)).prediction.shape
    torch.Size([2, 3, 6])
    """

    def __init__(
        self,
        backbone: nn.Module,
        in_features: int,
        dim: int,
        out_features: int | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        out_features = in_features if out_features is None else out_features
        widths = {"in_features": in_features, "dim": dim, "out_features": out_features}
        for name, width in widths.items():
            check_at_least("NextEmbeddingPredictor", name, width, 1)
        check_rate("NextEmbeddingPredictor", "dropout", dropout)
        self.backbone, self.dropout = backbone, dropout
        self.in_features, self.dim, self.out_features = in_features, dim, out_features
        self.input_projection = _projection(in_features, dim)
        self.output_projection = _projection(dim, out_features)

    def forward(
        self,
        question: Tensor,
        steps: Tensor,
        mask: Tensor | None = None,
        step_mask: Tensor | None = None,
    ) -> NextEmbedding:
        """Predict every sentence from the question and the true sentences before it.

        ``question`` (b, n, dim) with ``mask`` (b, n) are the backbone's own token vectors,
        ``steps`` (b, r, in_features) with ``step_mask`` (b, r) all sentences, the last one a
        target only. Columns of padding are to be left out of the loss.
        """
        inputs, real = self.start(question, mask)
        target = self.embed(steps, step_mask).to(inputs.dtype)
        check_rows("steps", steps, question.shape[0], "One row of sentences per question.")
        before, length, number = target[:, :-1], question.shape[1], steps.shape[1]
        seen = real.new_ones(before.shape[:2]) if step_mask is None else step_mask[:, :-1]
        inputs = torch.cat([inputs, F.dropout(before, self.dropout, self.training)], dim=1)
        hidden = self.states(inputs, torch.cat([real, seen], dim=1))
        state = hidden[:, length - 1 : length - 1 + number]
        prediction = self.predict(F.dropout(state, self.dropout, self.training))
        return NextEmbedding(prediction.to(steps.dtype), state, target)

    def start(self, question: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The question as the backbone reads it: padding first, as zeros, and its mask."""
        check_floating("question", question, "Look ids up in the backbone's own table first.")
        check_ndim("question", question, "b n d")
        check_last_dim("question", question, self.dim, _FIT)
        check_mask(mask, question, "question", "mask")
        if question.shape[1] == 0:
            raise ValueError(
                "question: expected at least one column, whose state predicts the first sentence, "
                f"got shape {tuple(question.shape)}. Put a start token there."
            )
        return padding_first(question, mask)

    def embed(self, steps: Tensor, mask: Tensor | None = None) -> Tensor:
        """P_in: sentences' vectors (b, r, in_features) -> backbone inputs (b, r, dim)."""
        check_floating("steps", steps)
        check_ndim("steps", steps, "b r d")
        check_last_dim("steps", steps, self.in_features, _FIT)
        check_mask(mask, steps)
        weight = self.get_parameter("input_projection.0.weight")
        projected: Tensor = self.input_projection(zero_padding(steps, mask).to(weight.dtype))
        return projected

    def states(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """The backbone's states (b, n, dim) of inputs (b, n, dim)."""
        hidden: Tensor = self.backbone(inputs, mask)
        check_result("NextEmbeddingPredictor: the backbone", hidden, "states (b, n, dim)")
        if hidden.shape != inputs.shape:
            raise ValueError(
                "NextEmbeddingPredictor: the backbone must give states of the shape of its inputs, "
                f"{tuple(inputs.shape)}, got {tuple(hidden.shape)}. dim={self.dim} is its width."
            )
        return hidden

    def predict(self, state: Tensor) -> Tensor:
        """P_out: states (*b, dim) -> vectors (*b, out_features) that the decoder reads."""
        weight = self.get_parameter("output_projection.0.weight")
        prediction: Tensor = self.output_projection(state.to(weight.dtype))
        return prediction

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"in_features={self.in_features}, dim={self.dim}, out_features={self.out_features}, "
            f"dropout={self.dropout:g}"
        )


def _projection(in_features: int, out_features: int) -> nn.Sequential:
    """Linear, GELU, Linear, with the mean of both widths between."""
    hidden = (in_features + out_features) // 2
    return nn.Sequential(nn.Linear(in_features, hidden), nn.GELU(), nn.Linear(hidden, out_features))


class TerminationHead(nn.Module):
    """One logit per vector: is this the last sentence?  Linear layers with GELU between.

    Train it by ``torch.nn.functional.binary_cross_entropy_with_logits`` on the vectors that a
    roll-out will see, and stop where the logit is above 0.

    Args:
        dim: width of the vectors.
        hidden: widths of the hidden layers.

    Raises:
        ValueError: if a width is below 1, or the input has another.
        TypeError: if the input is not floating.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, the termination classifier.

    >>> TerminationHead(768)(torch.randn(4, 768)).shape
    torch.Size([4])
    """

    def __init__(self, dim: int, hidden: Sequence[int] = (192, 48)) -> None:
        super().__init__()
        check_at_least("TerminationHead", "dim", dim, 1)
        for width in hidden:
            check_at_least("TerminationHead", "each width of hidden", width, 1)
        self.dim = dim
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((dim, *hidden, 1)))

    def reset_parameters(self) -> None:
        """Give the linear layers torch's own initialisation."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, embedding: Tensor) -> Tensor:
        """(*b, dim) -> (*b)."""
        check_floating("embedding", embedding)
        check_last_dim("embedding", embedding, self.dim, "A head fits one width: rebuild it.")
        x = embedding.to(self.get_parameter("layers.0.weight").dtype)
        for place, layer in enumerate(self.layers):
            x = layer(F.gelu(x) if place else x)
        return rearrange(x, "... 1 -> ...").to(embedding.dtype)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dim={self.dim}"
