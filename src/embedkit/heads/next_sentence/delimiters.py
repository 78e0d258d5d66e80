"""Where sentences end: the states of a text at its delimiters."""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import check_at_least, check_floating, check_mask, check_ndim
from embedkit.ops import zero_padding


def delimiter_states(
    hidden: Float[Tensor, "b n d"], delimiter: Bool[Tensor, "b n"], num_steps: int
) -> tuple[Float[Tensor, "b r d"], Bool[Tensor, "b r"]]:
    """Gather the states at a text's delimiters, the r-th delimiter's in column r.

    A causal encoder's state at the delimiter that ends a sentence has read the text up to there:
    one pass over the whole text gives the vectors of all its sentences. The last token is not the
    delimiter where padding or a trailing text follows.

    Args:
        hidden: states of the encoder.
        delimiter: True at the delimiters, e.g. ``(tokens == newline) & mask``.
        num_steps: number of columns r. A text's further delimiters are left out; missing columns
            are zeros.

    Returns:
        The states in the dtype of ``hidden``, and a mask that is True where a column is real.

    Raises:
        ValueError: if ``delimiter`` hasn't the shape of ``hidden``'s leading axes, or ``num_steps``
            is negative.
        TypeError: if ``delimiter`` is not bool or ``hidden`` not floating.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, contextual embeddings.

    >>> text = torch.tensor([[5, 0, 7, 7, 0]])  # 0 ends a sentence
    >>> delimiter_states(torch.arange(5.0).reshape(1, 5, 1), text == 0, num_steps=3)
    (tensor([[[1.],
             [4.],
             [0.]]]), tensor([[ True,  True, False]]))
    """
    _check_delimiter(delimiter)
    check_floating("hidden", hidden)
    check_ndim("hidden", hidden, "b n d")
    check_mask(delimiter, hidden, "hidden", "delimiter")
    check_at_least("delimiter_states", "num_steps", num_steps, 0)
    (rows, length), steps = delimiter.shape, torch.arange(num_steps, device=hidden.device)
    mask = steps < delimiter.sum(dim=1, keepdim=True)
    if length == 0:
        return hidden.sum(dim=1, keepdim=True).expand(-1, num_steps, -1), mask
    # Column r takes the place of delimiter r; all other places write to one column more.
    order = delimiter.cumsum(dim=1) - 1
    column = torch.where(delimiter & (order < num_steps), order, num_steps)
    places = repeat(torch.arange(length, device=hidden.device), "n -> b n", b=rows)
    place = column.new_zeros(rows, num_steps + 1).scatter(1, column, places)[:, :num_steps]
    states = hidden.gather(1, repeat(place, "b r -> b r d", d=hidden.shape[2]))
    return zero_padding(states, mask), mask


def question_mask(delimiter: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
    """True up to and including a text's first delimiter: the question that its steps answer.

    A text without a delimiter is a question as a whole. Combine with the mask of real tokens by
    ``&``, and hand both parts to :class:`NextEmbeddingPredictor`.

    Args:
        delimiter: True at the delimiters.

    Raises:
        TypeError: if ``delimiter`` is not bool.

    Source: Hwang et al. 2025, Let's Predict Sentence by Sentence, the latent model's inputs.

    >>> question_mask(torch.tensor([[5, 0, 7, 0], [1, 2, 3, 4]]) == 0)
    tensor([[ True,  True, False, False],
            [ True,  True,  True,  True]])
    """
    _check_delimiter(delimiter)
    return delimiter.cumsum(dim=1) - delimiter.long() == 0


def padding_first(
    tokens: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
    """Move padding to the left, as zeros: the last column is the last real token of each row."""
    if mask is None:
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    order = mask.int().argsort(dim=1, stable=True)
    tokens = zero_padding(tokens, mask).gather(1, repeat(order, "b n -> b n d", d=tokens.shape[2]))
    return tokens, mask.gather(1, order)


def last_real(states: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
    """The last state whose mask is True; zeros where there is none."""
    if states.shape[1] == 0:
        return states.sum(dim=1)
    place = states.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
    picked = states.gather(1, repeat(place, "b -> b 1 d", d=states.shape[2]))
    return zero_padding(rearrange(picked, "b 1 d -> b d"), mask.any(dim=1))


def _check_delimiter(delimiter: Tensor) -> None:
    if delimiter.dtype != torch.bool:
        raise TypeError(
            f"delimiter: expected bool, True where a sentence ends, got {delimiter.dtype}. "
            "From token ids it is tokens == newline_id."
        )
    check_ndim("delimiter", delimiter, "b n")
