"""ESE: every layer learns to express itself in few coordinates, and to compress itself there."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_ndim, check_positive
from embedkit.losses.depth._layers import Layers, Weighting, check_states, check_weighting
from embedkit.losses.depth.adaptive import layer_weights
from embedkit.losses.depth.alignment import embedding_alignment
from embedkit.losses.nested import sum_over_widths
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision


def _check_dim(owner: str, dim: int, width: int) -> None:
    check_at_least(owner, "dim", dim, 1)
    if dim > width:
        raise ValueError(f"{owner}: dim={dim} is wider than the embeddings, of width {width}")


@torch.no_grad()
def pca_compress(x: Float[Tensor, "b d"], dim: int) -> Float[Tensor, "b {dim}"]:
    """What the first coordinates should hold:  x U_k S_k,  with k = ``dim``.

    A = softmax over rows of x^T x / sqrt(d) = U S V^T. The decomposition is exact and the sign of
    each column of U is fixed (its largest entry is positive), so the target does not flip from step
    to step. Costs d^3.

    Args:
        x: a batch of embeddings; half precision is computed in float32.
        dim: how many coordinates, at most d.

    Returns:
        (b, dim) in the dtype of ``x``, without a gradient. NaN where ``x`` holds what is not
        finite.

    Raises:
        ValueError: if ``dim`` is below 1 or above d.
        TypeError: if ``x`` is not floating.

    Source: Li et al. 2025, ESE: Espresso Sentence Embeddings, learn-to-compress.
    Differs: the released code takes a randomised decomposition with signs as they come.
    """
    check_floating("x", x)
    check_ndim("x", x, "b d")
    _check_dim("pca_compress", dim, x.shape[1])
    with full_precision(x):
        wide = x.to(accumulation_dtype(x.dtype))
        attention = (wide.T @ wide / wide.shape[1] ** 0.5).softmax(dim=1)
        finite = attention.isfinite().all()  # the decomposition of anything else would raise
        left, size, _ = torch.linalg.svd(attention.where(finite, 0.0))
        left, size = left[:, :dim], size[:dim]
        peak = left.gather(0, left.abs().argmax(dim=0, keepdim=True))
        target = wide @ (torch.where(peak < 0, -left, left) * size)
    steady: Tensor = target.where(finite, torch.nan).to(x.dtype)
    return steady


def learn_to_express(
    loss_at: Callable[[int, list[int]], Tensor],
    states: Sequence[Float[Tensor, "b d"]],
    dim: int = 128,
    *,
    layer_weighting: Weighting | Sequence[float] = "log",
) -> Float[Tensor, "*q"]:
    """Loss of the whole last layer, and of the first coordinates of every layer.

    L = loss(u_N) + loss(u_N[:k]) + 1/(N - 1) sum_{n < N} w_n loss(u_n[:k]),  all layers at each
    step.

    Args:
        loss_at: ``loss_at(n, dims)`` gives the sum of the loss after layer n, from 1, over widths,
            e.g. ``lambda n, dims: info_nce(query[n-1], key[n-1], dims=dims)``.
        states: pooled states u_1 to u_N; their number and width are what counts here.
        dim: k, at most d.
        layer_weighting: w_n, see :func:`embedkit.losses.layer_weights`.

    Returns:
        What ``loss_at`` gives, a scalar as a rule.

    Raises:
        ValueError: if states differ in shape, ``dim`` is wider, or weights do not fit.
        TypeError: if states are not floating.

    Source: Li et al. 2025, ESE: Espresso Sentence Embeddings, learn-to-express.
    Differs: layers are those of the paper; the released loop starts at the output of the embedding
    layer and leaves out layer N - 1.
    """
    check_states("learn_to_express", states)
    width = states[0].shape[1]
    _check_dim("learn_to_express", dim, width)
    last = len(states)
    total = loss_at(last, [dim, width] if dim < width else [width])
    for n, weight in enumerate(layer_weights(last, layer_weighting), 1):
        total = total + weight / (last - 1) * loss_at(n, [dim])
    return total


def learn_to_compress(
    states: Sequence[Float[Tensor, "b d"]],
    dim: int = 128,
    *,
    layer_weighting: Weighting | Sequence[float] = "log",
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Pull the first coordinates of every layer towards its own :func:`pca_compress`.

    L = a(u_N) + 1/(N - 1) sum_{n < N} w_n a(u_n),  a(u) = mean squared difference of u[:k] and
    P(u), plus t KL(softmax(P(u) / t) || softmax(u[:k] / t)).

    Args:
        states: pooled states u_1 to u_N.
        dim: k, at most d.
        layer_weighting: w_n, see :func:`embedkit.losses.layer_weights`.
        temperature: t, in units of the coordinates.

    Returns:
        A scalar in float32 or wider; 0 for an empty batch.

    Raises:
        ValueError: if states differ in shape, ``dim`` is wider, or weights do not fit.
        TypeError: if states are not floating.

    Source: Li et al. 2025, ESE: Espresso Sentence Embeddings, learn-to-compress.
    """
    check_states("learn_to_compress", states)
    _check_dim("learn_to_compress", dim, states[0].shape[1])
    last = len(states)
    shares = [w / (last - 1) for w in layer_weights(last, layer_weighting)]
    parts = [
        share
        * embedding_alignment(
            u[:, :dim], pca_compress(u, dim), temperature=temperature, mse_weight=1.0
        )
        for share, u in zip([*shares, 1.0], states, strict=True)
    ]
    return torch.stack(parts).sum()


class EspressoLoss(nn.Module):
    """:func:`learn_to_express` around a loss of yours, plus :func:`learn_to_compress`.

    Arguments are those of :class:`embedkit.losses.AdaptiveLayerLoss`: a list over layers in place
    of each argument that changes with depth. All layers take part at each step and nothing is
    drawn. Compression decomposes a d x d matrix for each layer: at d = 768 that is what costs time.

    Args:
        loss: takes embeddings and gives a number.
        dim: how many leading coordinates every layer is to be good at.
        layer_weighting: "log" (1 / (1 + ln n)), "linear" (1 / n), "uniform", or a number for each
            layer before the last.
        compress_weight: factor of :func:`learn_to_compress`; 0 leaves it out.
        temperature: of its divergence, in units of the coordinates.

    Raises:
        ValueError: if a setting is out of range, ``dim`` is wider than the embeddings, or lists or
            shapes do not fit each other.
        TypeError: if the first argument is no list, or embeddings are not floating.

    Source: Li et al. 2025, ESE: Espresso Sentence Embeddings.
    Differs: as in :func:`learn_to_express` and :func:`pca_compress`.

    >>> from embedkit.losses import InfoNCELoss
    >>> query, key = ([torch.randn(8, 16) for _ in range(6)] for _ in range(2))
    >>> EspressoLoss(InfoNCELoss(temperature=0.05), dim=4)(query, key).shape
    torch.Size([])
    """

    def __init__(
        self,
        loss: nn.Module,
        dim: int = 128,
        layer_weighting: Weighting | Sequence[float] = "log",
        compress_weight: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_at_least("EspressoLoss", "dim", dim, 1)
        check_weighting("EspressoLoss", layer_weighting)
        hint = "It divides the coordinates; 1 is the paper's."
        check_positive("EspressoLoss", "temperature", temperature, hint)
        if not compress_weight >= 0:
            raise ValueError(f"EspressoLoss: compress_weight must be >= 0, got {compress_weight:g}")
        self.loss, self.dim, self.layer_weighting = loss, dim, layer_weighting
        self.compress_weight, self.temperature = compress_weight, temperature

    def forward(self, *tensors: Any, **named: Any) -> Tensor:
        """The loss of arguments as those of the wrapped loss, lists over layers first."""
        layers = Layers("EspressoLoss", tensors, named)

        def loss_at(n: int, dims: list[int]) -> Tensor:
            return sum_over_widths(self.loss, dims, None, *layers.at(n))

        states, weighting = layers.states(), self.layer_weighting
        total = learn_to_express(loss_at, states, self.dim, layer_weighting=weighting)
        if self.compress_weight:
            total = total + self.compress_weight * learn_to_compress(
                states, self.dim, layer_weighting=weighting, temperature=self.temperature
            )
        return total

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"dim={self.dim}, layer_weighting={self.layer_weighting!r}, "
            f"compress_weight={self.compress_weight:g}, temperature={self.temperature:g}"
        )
