"""Distances between the features of two domains, as losses: no discriminator, nothing reversed."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from embedkit._checks import check_at_least
from embedkit.geometry.divergence import bandwidths, coral_distance, mmd, sliced_wasserstein


class MMDLoss(nn.Module):
    """:func:`embedkit.geometry.mmd` of source and target features.

    Args:
        bandwidth: of the Gaussian kernel, > 0, or several; None: five around the mean distance.
        unbiased: leave out the pairs of a row with itself.

    Raises:
        ValueError: if a bandwidth is not above 0, or the list is empty.

    >>> import torch
    >>> MMDLoss(bandwidth=1.0)(torch.zeros(2, 1), torch.ones(3, 1))
    tensor(0.7869)
    """

    def __init__(
        self,
        bandwidth: int | float | Sequence[int | float] | Tensor | None = None,
        unbiased: bool = False,
    ) -> None:
        super().__init__()
        self.bandwidth = None if bandwidth is None else bandwidths("MMDLoss", bandwidth)
        self.unbiased = unbiased

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The loss of features (n, d) and (m, d)."""
        return mmd(source, target, bandwidth=self.bandwidth, unbiased=self.unbiased)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"bandwidth={self.bandwidth}, unbiased={self.unbiased}"


class CORALLoss(nn.Module):
    """:func:`embedkit.geometry.coral_distance` of source and target features.

    It is divided by 4 d^2, so it needs a weight that grows with the width.

    >>> import torch
    >>> CORALLoss()(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [5.0]]))
    tensor(1.)
    """

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The loss of features (n, d) and (m, d)."""
        return coral_distance(source, target)


class SlicedWassersteinLoss(nn.Module):
    """:func:`embedkit.geometry.sliced_wasserstein` of source and target features.

    Args:
        num_projections: directions drawn at every call, at least 1.
        order: of the distance, 1 or 2.

    Raises:
        ValueError: if a setting is out of range.

    >>> import torch
    >>> SlicedWassersteinLoss()(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
    tensor(1.)
    """

    def __init__(self, num_projections: int = 64, order: Literal[1, 2] = 2) -> None:
        super().__init__()
        check_at_least("SlicedWassersteinLoss", "num_projections", num_projections, 1)
        if order not in (1, 2):
            raise ValueError(f"SlicedWassersteinLoss: order must be 1 or 2, got {order}")
        self.num_projections, self.order = num_projections, order

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        directions: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of features (n, d) and (m, d); ``directions`` (l, d) replace those drawn."""
        return sliced_wasserstein(
            source,
            target,
            directions=directions,
            num_projections=self.num_projections,
            order=self.order,
            generator=generator,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"num_projections={self.num_projections}, order={self.order}"
