"""Nested (Matryoshka) embeddings: every prefix of the vector is itself an embedding."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_last_dim, check_widths
from embedkit.ops import normalize as unit_rows


def truncate_embedding(
    x: Float[Tensor, "*b d"], dim: int, normalize: bool = True
) -> Float[Tensor, "*b {dim}"]:
    """Keep the first ``dim`` coordinates, then scale them to length 1.

    The order matters: a slice of a unit vector is shorter than 1, which cosine code hides and an
    index of inner products does not.

    Args:
        x: embeddings, normalised or not, any number of leading axes.
        dim: how many coordinates to keep, at most the width of ``x``.
        normalize: scale the slice to L2 norm 1, in float32 or wider. False: slice only, as for a
            loss that normalises by itself.

    Returns:
        The truncated embeddings in the dtype of ``x``. A slice of zeros stays zero and has a zero
        gradient, as in :func:`embedkit.ops.normalize`.

    Raises:
        TypeError: if ``x`` is not floating point.
        ValueError: if ``dim`` is below 1 or wider than ``x``.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, section 3 (use at inference).

    >>> import torch
    >>> truncate_embedding(torch.tensor([3.0, 4.0, 12.0]), 2)
    tensor([0.6000, 0.8000])
    """
    check_floating("x", x)
    check_at_least("truncate_embedding", "dim", dim, 1)
    if x.ndim == 0 or dim > x.shape[-1]:
        raise ValueError(
            f"truncate_embedding: dim={dim} is wider than x, of shape {tuple(x.shape)}. "
            "Truncation keeps the first dim coordinates: pass at most the size of the last axis."
        )
    kept = x[..., :dim]
    return unit_rows(kept) if normalize else kept


class MatryoshkaHead(nn.Module):
    """Project to the widest of several nested widths: x W^T + b, of size ``dims[-1]``.

    One linear layer makes all widths: a narrower embedding is a prefix of the widest one. What
    makes the prefixes good is the loss, which must see each of ``dims``; pass it this attribute.
    The result is not normalised, since each prefix has a norm of its own: losses normalise what
    they slice, and :func:`truncate_embedding` does so at inference.

    Args:
        in_features: width of the input.
        dims: nested widths in increasing order, e.g. ``[64, 128, 256]``; kept as ``dims``, a tuple.
        bias: add a learned offset.

    Raises:
        TypeError: if the input is not floating point.
        ValueError: if ``dims`` is empty, not increasing or not positive, ``in_features`` is below
            1, or the input has another width.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, section 3.
    Differs: the paper nests the last layer of the encoder itself; this is a layer of its own, so an
        encoder of any width can be nested.

    >>> import torch
    >>> head = MatryoshkaHead(16, dims=[2, 4, 8])
    >>> head(torch.randn(3, 16)).shape, head.dims
    (torch.Size([3, 8]), (2, 4, 8))
    """

    def __init__(self, in_features: int, dims: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        check_at_least("MatryoshkaHead", "in_features", in_features, 1)
        check_widths("MatryoshkaHead", dims)
        self.dims = tuple(dims)
        self.linear = nn.Linear(in_features, self.dims[-1], bias=bias)

    def reset_parameters(self) -> None:
        """Give the linear layer torch's own initialisation."""
        self.linear.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(*b, in_features) -> (*b, dims[-1])."""
        check_floating("x", x)
        check_last_dim("x", x, self.linear.in_features, "A head fits one width: rebuild it.")
        return self.linear(x.to(self.linear.weight.dtype)).to(x.dtype)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Widths for ``print``."""
        return f"dims={self.dims}"
