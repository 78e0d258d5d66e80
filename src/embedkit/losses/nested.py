"""Matryoshka training: one loss at several prefix widths of the same embedding."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from embedkit._checks import check_widths


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
        width = tensors[0].shape[-1]
        if self.dims[-1] > width:
            raise ValueError(
                f"MatryoshkaLoss: dims go up to {self.dims[-1]}, but embeddings have width {width}"
            )
        if self.dims[-1] < width:
            warnings.warn(
                f"MatryoshkaLoss: dims end at {self.dims[-1]}, so the last "
                f"{width - self.dims[-1]} of {width} entries are not trained; add {width} to dims "
                "or narrow the head.",
                stacklevel=2,
            )
        if getattr(self.loss, "fuses_widths", False):
            fused: Tensor = self.loss(*tensors, **named, dims=self.dims, dim_weights=self.weights)
            return fused

        def cut(value: Any, dim: int) -> Any:
            embeds = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
            return value[..., :dim] if embeds and value.shape[-1] == width else value

        total: Tensor | None = None
        for dim, weight in zip(self.dims, self.weights or [1.0] * len(self.dims), strict=True):
            part = self.loss(
                *(cut(t, dim) for t in tensors), **{name: cut(t, dim) for name, t in named.items()}
            )
            total = weight * part if total is None else total + weight * part
        assert total is not None
        return total

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dims={self.dims}" + ("" if self.weights is None else f", weights={self.weights}")
