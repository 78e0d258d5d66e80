"""Matryoshka training: one loss at several prefix widths of the same embedding."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from embedkit._checks import check_widths


def check_dims(owner: str, dims: Sequence[int], width: int) -> None:
    """Raise where ``dims`` exceed the width of the embeddings, warn where they end before it."""
    if dims[-1] > width:
        raise ValueError(f"{owner}: dims go up to {dims[-1]}, but embeddings have width {width}")
    if dims[-1] < width:
        warnings.warn(
            f"{owner}: dims end at {dims[-1]}, so the last {width - dims[-1]} of {width} entries "
            f"are not trained; add {width} to dims or narrow the head.",
            stacklevel=3,
        )


def sum_over_widths(
    loss: Callable[..., Tensor],
    dims: Sequence[int],
    weights: Sequence[float] | None,
    tensors: Sequence[Any],
    named: Mapping[str, Any],
) -> Tensor:
    """The sum that :class:`MatryoshkaLoss` describes, over ``dims`` that it has checked."""
    if getattr(loss, "fuses_widths", False):
        return loss(*tensors, **named, dims=list(dims), dim_weights=weights)
    width = tensors[0].shape[-1]

    def cut(value: Any, dim: int) -> Any:
        embeds = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
        return value[..., :dim] if embeds and value.shape[-1] == width else value

    total: Tensor | None = None
    for dim, weight in zip(dims, weights or [1.0] * len(dims), strict=True):
        part = loss(*(cut(t, dim) for t in tensors), **{k: cut(t, dim) for k, t in named.items()})
        total = weight * part if total is None else total + weight * part
    assert total is not None
    return total


class MatryoshkaLoss(nn.Module):
    """Sum of a loss over prefixes of its embeddings:  sum_m w_m loss(x[:, :m], y[:, :m], ...).

    Every floating tensor argument of two or more axes whose last axis is as wide as the first
    argument's is cut to its first m entries; ids, labels, masks and per-row weights pass as they
    are. With a contrastive loss of this package all widths share one
    sweep: the Gram matrix of a width is that of the next narrower one plus one slice
    product, and gradients flow back likewise. Any other loss, yours too, is called once per width.

    Args:
        loss: takes embeddings and gives a number (or one per row).
        dims: increasing widths, the last one usually the whole width.
        weights: factor of each width; None: 1.

    Raises:
        ValueError: if ``dims`` is empty, not increasing, or exceeds the width of the embeddings, or
            if ``weights`` has another length.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, eq. 1.
    Differs: prefixes are cut, not normalised; the contrastive losses normalise each for themselves.

    >>> import torch
    >>> from embedkit.losses import InfoNCELoss
    >>> MatryoshkaLoss(InfoNCELoss(), dims=[2, 4])(torch.eye(4), torch.eye(4)).shape
    torch.Size([])
    """

    def __init__(
        self, loss: nn.Module, dims: Sequence[int], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        check_widths("MatryoshkaLoss", dims)
        if weights is not None and len(weights) != len(dims):
            raise ValueError(
                f"MatryoshkaLoss: expected {len(dims)} weights, one per width, got {len(weights)}"
            )
        self.loss = loss
        self.dims = [int(d) for d in dims]
        self.weights = None if weights is None else [float(w) for w in weights]

    def forward(self, *tensors: Any, **named: Any) -> Tensor:
        """The sum over widths; arguments are those of the wrapped loss, embeddings first."""
        check_dims("MatryoshkaLoss", self.dims, tensors[0].shape[-1])
        return sum_over_widths(self.loss, self.dims, self.weights, tensors, named)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dims={self.dims}" + ("" if self.weights is None else f", weights={self.weights}")
