"""A sentence as one vector: a user's encoder makes it, a user's decoder reads it back."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_last_dim, check_ndim, check_rows

_WIDTHS = (
    "The decoder reads the vector as if it were a token, so the two widths must be equal: build "
    "NextEmbeddingPredictor with out_features equal to the width of the decoder's tokens, or "
    "project the vector."
)


def prefix_condition(
    embedding: Float[Tensor, "b d"], token_embeddings: Float[Tensor, "b n d"]
) -> Float[Tensor, "b n+1 d"]:
    """Put a sentence's vector in front of its tokens, as position 0 of a causal decoder.

    Position t of the decoder then predicts token t from the vector and the tokens before t: the
    vector alone predicts the first token, and the last token predicts the end.

    Args:
        embedding: one vector per sentence.
        token_embeddings: the decoder's own token vectors, as many as have been written so far; none
            (n = 0) when decoding starts.

    Returns:
        What the decoder reads, in the wider of the two dtypes.

    Raises:
        ValueError: if the widths or the numbers of rows differ.
        TypeError: if an input is not floating.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, the sentence autoencoder.

    >>> prefix_condition(torch.zeros(2, 4), torch.ones(2, 3, 4)).shape
    torch.Size([2, 4, 4])
    """
    check_floating("embedding", embedding)
    check_floating("token_embeddings", token_embeddings, "Look the ids up in the decoder's table.")
    check_ndim("embedding", embedding, "b d")
    check_ndim("token_embeddings", token_embeddings, "b n d")
    check_last_dim("embedding", embedding, token_embeddings.shape[-1], _WIDTHS)
    check_rows("token_embeddings", token_embeddings, embedding.shape[0], "One row per sentence.")
    return torch.cat([rearrange(embedding, "b d -> b 1 d"), token_embeddings], dim=1)


class Autoencoding(NamedTuple):
    """What :class:`SequenceAutoencoder` gives.

    ``embedding`` is (*b, d), one vector per target sentence; ``logits`` is (*b, n, v), at place t
    those of the target's token t.
    """

    embedding: Tensor
    logits: Tensor


class SequenceAutoencoder(nn.Module):
    """A user's encoder and decoder around a bottleneck of one vector per sentence.

    *Semantic* vectors say what a sentence is: the target is the source. *Contextual* vectors say
    what comes next: the source is a text, the target its next sentence, or, with an encoder that
    gives (b, r, d), the r sentences that follow r places of the text (:func:`delimiter_states`), so
    one pass through the encoder trains all of them. Train either by
    :func:`embedkit.losses.sequence_cross_entropy` of the logits and the target.

    Args:
        encoder: (source) or (source, mask) -> vectors (*b, d); a transformer followed by a pool.
        decoder: (vectors (b, d), token ids (b, n)) -> logits (b, n + 1, v), causal: the logits at
            place t depend on the vector and on ids before t. A model of token vectors becomes one
            by :func:`prefix_condition`. It may share parameters with the encoder.
        prefix_dropout: rate at which entries of the vector are dropped before the decoder reads
            it, in training; 0.2 is the paper's for contextual vectors.

    Raises:
        ValueError: if the rate is not in [0, 1), or if what encoder or decoder gave doesn't fit the
            target.
        TypeError: if the encoder's or decoder's result is no floating-point tensor, or targets are
            no integers.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, semantic and contextual
    embeddings.

    >>> class Bag(nn.Module):  # reads only the vector: each position from the same features
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.out = nn.Linear(8, 20)
    ...     def forward(self, embedding, tokens):
    ...         return self.out(embedding)[:, None].expand(-1, tokens.shape[1] + 1, -1)
    >>> model = SequenceAutoencoder(nn.EmbeddingBag(20, 8), Bag())
    >>> embedding, logits = model(torch.randint(20, (3, 5)))
    >>> embedding.shape, logits.shape
    (torch.Size([3, 8]), torch.Size([3, 5, 20]))
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prefix_dropout: float = 0.0) -> None:
        super().__init__()
        check_rate("SequenceAutoencoder", "prefix_dropout", prefix_dropout)
        self.encoder, self.decoder, self.prefix_dropout = encoder, decoder, prefix_dropout

    def forward(
        self, source: Tensor, target: Tensor | None = None, mask: Tensor | None = None
    ) -> Autoencoding:
        """Encode, then decode with the true tokens given (teacher forcing).

        ``source`` and ``mask`` go to the encoder as they are, ``mask`` only if given. ``target`` is
        (*b, n) ids, ending with the end token and padding; None: the source itself.
        """
        embedding = self.encoder(source) if mask is None else self.encoder(source, mask)
        target = source if target is None else target
        return Autoencoding(embedding, self.decode(embedding, target))

    def decode(self, embedding: Tensor, target: Tensor) -> Tensor:
        """Logits (*b, n, v) of the ids (*b, n), each from the vector and the ids before."""
        check_result("SequenceAutoencoder: the encoder", embedding, "vectors (*b, d)")
        if target.is_floating_point() or target.shape[:-1] != embedding.shape[:-1]:
            raise (TypeError if target.is_floating_point() else ValueError)(
                "SequenceAutoencoder: target must be integers, one row of ids per vector, shape "
                f"{(*embedding.shape[:-1], 'n')}, got {target.dtype} {tuple(target.shape)}"
            )
        rows = rearrange(embedding, "... d -> (...) d")
        rows = F.dropout(rows, self.prefix_dropout, self.training)
        ids = target.reshape(rows.shape[0], target.shape[-1])
        logits: Tensor = self.decoder(rows, ids[:, :-1])
        check_result("SequenceAutoencoder: the decoder", logits, "logits (b, n + 1, v) of n ids")
        places = max(ids.shape[1], 1)
        if logits.ndim != 3 or logits.shape[:2] != (rows.shape[0], places):
            raise ValueError(
                f"SequenceAutoencoder: the decoder must give logits ({rows.shape[0]}, {places}, v) "
                f"for {rows.shape[0]} vectors and {places - 1} ids each, got "
                f"{tuple(logits.shape)}. The vector takes a place of its own, which predicts the "
                "first token: see prefix_condition."
            )
        return logits[:, : ids.shape[1]].reshape(*target.shape, logits.shape[-1])

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"prefix_dropout={self.prefix_dropout:g}"


@torch.no_grad()
def greedy_decode(
    decoder: nn.Module,
    embedding: Float[Tensor, "b d"],
    *,
    max_length: int,
    pad_id: int,
    end_id: int | None = None,
) -> Int[Tensor, "b n"]:
    """Write the sentence of a vector, taking the most likely token at each place.

    The decoder runs anew for every token, so any decoder will do; a large one with a cache of its
    own is better served by its own generation. Put it into ``eval()`` first.

    Args:
        decoder: as in :class:`SequenceAutoencoder`.
        embedding: one vector per sentence, e.g. predicted ones.
        max_length: most tokens to write, the end included.
        pad_id: what fills the places after the end.
        end_id: the token that ends a sentence; None: ``pad_id``, as where the first pad is the end.

    Returns:
        (b, max_length) ids.

    Raises:
        ValueError: if ``max_length`` is below 1.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, the decoder.
    """
    check_at_least("greedy_decode", "max_length", max_length, 1)
    end = pad_id if end_id is None else end_id
    tokens = torch.full((embedding.shape[0], max_length), pad_id, device=embedding.device)
    writing = torch.ones(embedding.shape[0], dtype=torch.bool, device=embedding.device)
    for place in range(max_length):
        best = decoder(embedding, tokens[:, :place])[:, -1].argmax(dim=-1)
        tokens[:, place] = torch.where(writing, best, pad_id)
        writing &= best != end
        if not writing.any():
            break
    return tokens


def check_rate(owner: str, name: str, rate: float) -> None:
    """Raise unless ``rate`` is in [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(
            f"{owner}: {name} must be in [0, 1), got {rate:g}. It is the share of entries that are "
            "dropped in training; 0.2 is the paper's, 0 drops none."
        )


def check_result(owner: str, result: object, wanted: str) -> None:
    """Raise unless what a user's module gave is a floating-point tensor."""
    if not isinstance(result, Tensor) or not result.is_floating_point():
        got = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(
            f"{owner} must give a floating-point tensor, {wanted}, got {got}. Wrap a model whose "
            "result is a structure in a Module that picks the tensor, such as .last_hidden_state."
        )
