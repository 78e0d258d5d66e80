"""Starbucks: train a few pairs of depth and width, from small to large, instead of all."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from embedkit.losses.depth._layers import Layers, check_states
from embedkit.losses.depth.alignment import check_alignment, embedding_alignment
from embedkit.losses.nested import sum_over_widths

Pairs = Sequence[tuple[int, int]]


def _check_pairs(owner: str, pairs: Pairs) -> None:
    if not pairs or len(set(pairs)) < len(pairs) or any(n < 1 or dim < 1 for n, dim in pairs):
        raise ValueError(
            f"{owner}: pairs must be different (layer, dim), both from 1, got {list(pairs)}. "
            "Small to large is usual, such as (2, 32), (4, 64), (6, 128)."
        )


def layer_dim_pairs(
    loss_at: Callable[[int, list[int]], Tensor],
    states: Sequence[Float[Tensor, "b d"]],
    pairs: Pairs,
    *,
    kl_weight: float = 1.0,
    kl_temperature: float = 1.0,
) -> Float[Tensor, "*q"]:
    """Sum of a loss over pairs of depth and width, each pulled towards the full depth.

    L = sum_j loss(u_{n_j}[:d_j]) + kl_weight t KL(softmax(u_N[:d_j] / t) ||
    softmax(u_{n_j}[:d_j] / t)),  the full depth in the divergence a constant.

    Args:
        loss_at: ``loss_at(n, dims)`` gives the sum of the loss after layer n, from 1, over widths,
            e.g. ``lambda n, dims: info_nce(query[n-1], key[n-1], dims=dims)``. It is called once
            for each layer that occurs.
        states: pooled states u_1 to u_N, which the divergence compares.
        pairs: (layer, dim), e.g. (2, 32), (4, 64), ..., (12, 768).
        kl_weight: factor of the alignment; 0 leaves it out.
        kl_temperature: t, in units of the coordinates.

    Returns:
        What ``loss_at`` gives, a scalar as a rule.

    Raises:
        ValueError: if pairs repeat or exceed the layers or the width, or states differ in shape.
        TypeError: if states are not floating.

    Warns:
        UserWarning: if the whole last layer is not among the pairs.

    Source: Zhuang et al. 2024, Starbucks: Improved Training for 2D Matryoshka Embeddings, the loss
    of fine-tuning and the alignment of its variant for similarity.
    Differs: the teacher is detached, and its softmax has the temperature, too. Its variant for
    retrieval compares scores: add :class:`embedkit.losses.SimilarityDistillationLoss`.
    """
    check_states("layer_dim_pairs", states)
    _check_pairs("layer_dim_pairs", pairs)
    last, width = len(states), states[0].shape[1]
    beyond = [(n, dim) for n, dim in pairs if n > last or dim > width]
    if beyond:
        raise ValueError(f"layer_dim_pairs: pairs {beyond} exceed {last} layers of width {width}")
    if (last, width) not in pairs:
        warnings.warn(
            f"layer_dim_pairs: the whole model is not trained; add ({last}, {width}) to pairs.",
            stacklevel=3,
        )
    parts = []
    for n in sorted({n for n, _ in pairs}):
        dims = sorted(dim for layer, dim in pairs if layer == n)
        part = loss_at(n, dims)
        if kl_weight and n < last:
            for dim in dims:
                part = part + embedding_alignment(
                    states[n - 1][:, :dim],
                    states[-1][:, :dim],
                    temperature=kl_temperature,
                    kl_weight=kl_weight,
                )
        parts.append(part)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class LayerDimPairsLoss(nn.Module):
    """:func:`layer_dim_pairs` around a loss of yours (Starbucks).

    Arguments are those of :class:`embedkit.losses.AdaptiveLayerLoss`: a list over layers in place
    of each argument that changes with depth. Nothing is drawn. Widths of one layer share a sweep
    where the loss can do that (:class:`embedkit.losses.MatryoshkaLoss`).

    Args:
        loss: takes embeddings and gives a number.
        pairs: (layer, dim), layers counted from 1, the whole model last.
        kl_weight: factor of the alignment with the last layer; 0 leaves it out.
        kl_temperature: in units of the coordinates of an embedding.

    Raises:
        ValueError: if pairs repeat or exceed the layers or the width, a setting is out of range, or
            lists or shapes do not fit each other.
        TypeError: if the first argument is no list, or embeddings are not floating.

    Source: Zhuang et al. 2024, Starbucks: Improved Training for 2D Matryoshka Embeddings.
    Differs: as in :func:`layer_dim_pairs`.

    >>> import torch
    >>> from embedkit.losses import InfoNCELoss
    >>> query, key = ([torch.randn(8, 16) for _ in range(6)] for _ in range(2))
    >>> loss = LayerDimPairsLoss(InfoNCELoss(temperature=0.05), [(2, 4), (4, 8), (6, 16)])
    >>> loss(query, key).shape
    torch.Size([])
    """

    def __init__(
        self,
        loss: nn.Module,
        pairs: Pairs,
        kl_weight: float = 1.0,
        kl_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        pairs = [(int(n), int(dim)) for n, dim in pairs]
        _check_pairs("LayerDimPairsLoss", pairs)
        check_alignment("LayerDimPairsLoss", kl_weight, kl_temperature)
        self.loss, self.pairs = loss, pairs
        self.kl_weight, self.kl_temperature = kl_weight, kl_temperature

    def forward(self, *tensors: Any, **named: Any) -> Tensor:
        """The loss of arguments as those of the wrapped loss, lists over layers first."""
        layers = Layers("LayerDimPairsLoss", tensors, named)

        def loss_at(n: int, dims: list[int]) -> Tensor:
            return sum_over_widths(self.loss, dims, None, *layers.at(n))

        return layer_dim_pairs(
            loss_at,
            layers.states(),
            self.pairs,
            kl_weight=self.kl_weight,
            kl_temperature=self.kl_temperature,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"pairs={self.pairs}, kl_weight={self.kl_weight:g}, "
            f"kl_temperature={self.kl_temperature:g}"
        )
