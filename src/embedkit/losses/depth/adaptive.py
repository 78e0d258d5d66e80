"""Train early layers beside the last one, so that an encoder may stop at any of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_widths
from embedkit.losses.depth._draws import StepDraws
from embedkit.losses.depth._layers import Layers, Weighting, check_states, check_weighting
from embedkit.losses.depth.alignment import check_alignment, embedding_alignment
from embedkit.losses.nested import check_dims, sum_over_widths


def layer_weights(num_layers: int, weighting: Weighting | Sequence[float]) -> list[float]:
    """Factors of the losses after layers 1 to num_layers - 1.

    "uniform" is 1, "linear" 1 / n, "log" 1 / (1 + ln n): the last two favour early layers. A list
    of num_layers - 1 numbers is given back.

    Raises:
        ValueError: for another name, a negative number, or another count of numbers.

    Source: Li et al. 2025, ESE: Espresso Sentence Embeddings ("log"); Li et al. 2024, 2D
    Matryoshka Sentence Embeddings, released code ("linear").

    >>> layer_weights(4, "linear")
    [1.0, 0.5, 0.3333333333333333]
    """
    check_weighting("layer_weights", weighting)
    if not isinstance(weighting, str):
        if len(weighting) != num_layers - 1:
            raise ValueError(
                f"layer_weights: expected {num_layers - 1} weights, one for each layer before the "
                f"last of {num_layers}, got {len(weighting)}"
            )
        return [float(weight) for weight in weighting]
    layers = range(1, num_layers)
    if weighting == "uniform":
        return [1.0 for _ in layers]
    return [1.0 / (n if weighting == "linear" else 1.0 + math.log(n)) for n in layers]


def adaptive_layer(
    loss_at: Callable[[int], Tensor],
    states: Sequence[Float[Tensor, "b d"]],
    *,
    layers: Sequence[int] | None = None,
    layer_weighting: Weighting | Sequence[float] = "uniform",
    kl_weight: float = 1.0,
    kl_temperature: float = 0.3,
) -> Float[Tensor, "*q"]:
    """A loss after the last layer, plus the mean over earlier layers of loss and alignment.

    L = loss(N) + 1/|S| sum_{n in S} (w_n loss(n) + kl_weight t KL(softmax(u_N / t) ||
    softmax(u_n / t))),  layers n counted from 1, u_N in the divergence a constant.

    Args:
        loss_at: gives the loss after layer n, e.g. ``lambda n: info_nce(query[n-1], key[n-1])``.
        states: pooled states u_1 to u_N, which the divergence compares; the embedding layer's
            output is not among them.
        layers: S, drawn from 1 to N - 1. None: all of these.
        layer_weighting: w_n, see :func:`layer_weights`.
        kl_weight: factor of the alignment; 0 leaves it out.
        kl_temperature: t, in units of the coordinates.

    Returns:
        What ``loss_at`` gives, a scalar as a rule. With one state the loss alone.

    Raises:
        ValueError: if states differ in shape, or a layer or weight is out of range.
        TypeError: if states are not floating.

    Source: Li et al. 2024, 2D Matryoshka Sentence Embeddings, section 3.
    Differs: the teacher is detached; the alignment is averaged over S like the loss, so that all
    layers give what one drawn layer gives on average; factor t, not t^2.
    """
    check_states("adaptive_layer", states)
    last = len(states)
    weights = layer_weights(last, layer_weighting)
    chosen = list(range(1, last)) if layers is None else list(layers)
    if any(not 1 <= n < last for n in chosen) or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"adaptive_layer: layers must be different and from 1 to {last - 1}, got {chosen}. "
            f"The last of the {last} is always trained."
        )
    total = loss_at(last)
    for n in chosen:
        part = weights[n - 1] * loss_at(n)
        if kl_weight:
            part = part + embedding_alignment(
                states[n - 1], states[-1], temperature=kl_temperature, kl_weight=kl_weight
            )
        total = total + part / len(chosen)
    return total


def _check_drawn(owner: str, name: str, count: int) -> None:
    if count != -1:
        check_at_least(owner, name, count, 1, "-1 takes all.")


class AdaptiveLayerLoss(nn.Module):
    """:func:`adaptive_layer` around a loss of yours, with earlier layers drawn at each step.

    Call it as the loss itself, with a list (or tuple) over layers in place of each argument that
    changes with depth: ``loss(query_layers, key_layers, key_ids=ids)``. Ids, labels and what else
    has no layers go to the loss at every layer. Layers are drawn in training mode only, from the
    seed and a step counter of its own, both in ``state_dict``: ranks draw alike, and a resumed run
    goes on as it would have. In eval mode, and with ``layers_per_step=-1``, all layers take part:
    that is the form for ``torch.compile``, since a drawn layer is another graph.

    Args:
        loss: takes embeddings and gives a number.
        layers_per_step: how many of the layers before the last to draw; -1: all.
        layer_weighting: "uniform", "linear" (1 / n), "log" (1 / (1 + ln n)), or a number for each
            layer before the last.
        kl_weight: factor of the alignment with the last layer; 0 leaves it out.
        kl_temperature: in units of the coordinates of an embedding.
        seed: where the draws start; the same on every rank.

    Raises:
        ValueError: if a setting is out of range, or lists or shapes do not fit each other.
        TypeError: if the first argument is no list, or embeddings are not floating.

    Source: Li et al. 2024, 2D Matryoshka Sentence Embeddings, section 3.
    Differs: no model is wrapped, pooled states come in; see also :func:`adaptive_layer`.

    >>> import torch
    >>> from embedkit.losses import InfoNCELoss
    >>> query, key = ([torch.randn(8, 16) for _ in range(6)] for _ in range(2))
    >>> AdaptiveLayerLoss(InfoNCELoss(temperature=0.05))(query, key).shape
    torch.Size([])
    """

    def __init__(
        self,
        loss: nn.Module,
        layers_per_step: int = 1,
        layer_weighting: Weighting | Sequence[float] = "uniform",
        kl_weight: float = 1.0,
        kl_temperature: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_drawn("AdaptiveLayerLoss", "layers_per_step", layers_per_step)
        check_weighting("AdaptiveLayerLoss", layer_weighting)
        check_alignment("AdaptiveLayerLoss", kl_weight, kl_temperature)
        self.loss, self.layers_per_step = loss, layers_per_step
        self.layer_weighting = layer_weighting
        self.kl_weight, self.kl_temperature = kl_weight, kl_temperature
        self.draws = StepDraws("AdaptiveLayerLoss", seed)

    def forward(self, *tensors: Any, **named: Any) -> Tensor:
        """The loss of arguments as those of the wrapped loss, lists over layers first."""
        layers = Layers("AdaptiveLayerLoss", tensors, named)

        def loss_at(n: int) -> Tensor:
            args, others = layers.at(n)
            result: Tensor = self.loss(*args, **others)
            return result

        chosen = None
        if self.training and 0 < self.layers_per_step < layers.count - 1:
            (drawn,) = self.draws.draw((layers.count - 1, self.layers_per_step))
            chosen = [n + 1 for n in drawn]
        return adaptive_layer(
            loss_at,
            layers.states(),
            layers=chosen,
            layer_weighting=self.layer_weighting,
            kl_weight=self.kl_weight,
            kl_temperature=self.kl_temperature,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"layers_per_step={self.layers_per_step}, layer_weighting={self.layer_weighting!r}, "
            f"kl_weight={self.kl_weight:g}, kl_temperature={self.kl_temperature:g}"
        )


class Matryoshka2dLoss(nn.Module):
    """:func:`adaptive_layer` over a sum of widths: any depth and any width is an embedding.

    L = loss(u_N) + loss(u_N[:d]) + loss(u_n[:d]) + loss(u_n) + kl_weight t KL(u_N || u_n)  for a
    layer n and a width d drawn at each step; several of either are averaged. Contrastive losses of
    this package make both widths in one sweep (:class:`embedkit.losses.MatryoshkaLoss`). Arguments,
    draws, eval mode and ``state_dict`` are those of :class:`AdaptiveLayerLoss`.

    Args:
        loss: takes embeddings and gives a number.
        dims: increasing widths; the last one, usually the whole, is trained at every step.
        per_step: how many layers before the last, and widths before the last, to draw; -1: all.
        kl_weight: factor of the alignment with the last layer; 0 leaves it out.
        kl_temperature: in units of the coordinates of an embedding.
        seed: where the draws start; the same on every rank.

    Raises:
        ValueError: if a setting is out of range, widths exceed that of the embeddings, or lists or
            shapes do not fit each other.
        TypeError: if the first argument is no list, or embeddings are not floating.

    Source: Li et al. 2024, 2D Matryoshka Sentence Embeddings, section 3.
    Differs: as in :func:`adaptive_layer`.

    >>> import torch
    >>> from embedkit.losses import InfoNCELoss
    >>> query, key = ([torch.randn(8, 16) for _ in range(6)] for _ in range(2))
    >>> Matryoshka2dLoss(InfoNCELoss(temperature=0.05), dims=[4, 8, 16])(query, key).shape
    torch.Size([])
    """

    def __init__(
        self,
        loss: nn.Module,
        dims: Sequence[int],
        per_step: tuple[int, int] = (1, 1),
        kl_weight: float = 1.0,
        kl_temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_widths("Matryoshka2dLoss", dims)
        if not isinstance(per_step, tuple | list) or len(per_step) != 2:
            raise ValueError(
                "Matryoshka2dLoss: per_step must be two numbers, of layers and of widths, got "
                f"{per_step!r}"
            )
        for name, count in zip(("layers", "widths"), per_step, strict=True):
            _check_drawn("Matryoshka2dLoss", f"per_step ({name})", count)
        check_alignment("Matryoshka2dLoss", kl_weight, kl_temperature)
        self.loss, self.dims = loss, [int(dim) for dim in dims]
        self.per_step = (int(per_step[0]), int(per_step[1]))
        self.kl_weight, self.kl_temperature = kl_weight, kl_temperature
        self.draws = StepDraws("Matryoshka2dLoss", seed)

    def _chosen(self, layers: Layers) -> tuple[list[int] | None, list[int]]:
        """Layers (None: all) and narrower widths of this step."""
        sizes = (layers.count - 1, len(self.dims) - 1)
        counts = [
            count if 0 < count < size else size
            for count, size in zip(self.per_step, sizes, strict=True)
        ]
        if not self.training or tuple(counts) == sizes:
            return None, self.dims[:-1]
        drawn, widths = self.draws.draw(*zip(sizes, counts, strict=True))
        return [n + 1 for n in drawn], [self.dims[i] for i in widths]

    def forward(self, *tensors: Any, **named: Any) -> Tensor:
        """The loss of arguments as those of the wrapped loss, lists over layers first."""
        layers = Layers("Matryoshka2dLoss", tensors, named)
        check_dims("Matryoshka2dLoss", self.dims, layers.width)
        chosen, narrow = self._chosen(layers)
        weights = [*[1.0 / len(narrow) for _ in narrow], 1.0]

        def loss_at(n: int) -> Tensor:
            return sum_over_widths(self.loss, [*narrow, self.dims[-1]], weights, *layers.at(n))

        return adaptive_layer(
            loss_at,
            layers.states(),
            layers=chosen,
            kl_weight=self.kl_weight,
            kl_temperature=self.kl_temperature,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"dims={self.dims}, per_step={self.per_step}, kl_weight={self.kl_weight:g}, "
            f"kl_temperature={self.kl_temperature:g}"
        )
