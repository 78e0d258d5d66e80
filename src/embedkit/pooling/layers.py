"""One tensor from those of several layers: a learned, convex mixture."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_same_shape
from embedkit.ops import accumulation_dtype


class LayerWeightedPool(nn.Module):
    """Mix the outputs of an encoder's layers:  sum_l softmax(w)_l x_l.

    It takes token states and gives token states, to be pooled, or takes vectors that are pooled
    already: mixing and averaging over tokens commute. The weights start at zero: the mean layer.

    Args:
        num_layers: how many layers are mixed.

    Raises:
        ValueError: if ``num_layers`` is below 1, another number of layers comes in, or their shapes
            differ.
        TypeError: if they are not floating point.

    Source: Peters et al. 2018, Deep Contextualized Word Representations, eq. 1.
    Differs: without the factor gamma, which a following layer or normalisation takes over.

    >>> LayerWeightedPool(2)([torch.zeros(1, 3), torch.ones(1, 3)])
    tensor([[0.5000, 0.5000, 0.5000]], grad_fn=<...>)
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        check_at_least("LayerWeightedPool", "num_layers", num_layers, 1)
        self.weight = nn.Parameter(torch.empty(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights to zero: every layer counts alike."""
        nn.init.zeros_(self.weight)

    def forward(self, layers: Sequence[Tensor] | Tensor) -> Tensor:
        """Layers of one shape, listed or stacked along a first axis -> one of them."""
        if len(layers) != self.weight.shape[0]:
            raise ValueError(
                f"layers: expected {self.weight.shape[0]}, one per weight, got {len(layers)}. With "
                "Hugging Face's output_hidden_states the embedding layer comes first: leave it "
                "out, or count it."
            )
        check_same_shape("One encoder pass gives layers of one shape.", **_named(layers))
        check_floating("layers", layers[0])
        wide = accumulation_dtype(layers[0].dtype)
        weight = self.weight.to(wide).softmax(dim=0)
        # One after the other: a stack would hold all layers twice.
        mixed = weight[0] * layers[0].to(wide)
        for share, layer in zip(weight[1:], layers[1:], strict=True):
            mixed = torch.addcmul(mixed, share, layer.to(wide))
        return mixed.to(layers[0].dtype)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        return f"num_layers={self.weight.shape[0]}"


def _named(layers: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
    return {f"layer {i}": layer for i, layer in enumerate(layers)}
