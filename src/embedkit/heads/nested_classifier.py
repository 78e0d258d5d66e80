"""Classify by every prefix of an embedding: one head for each width, or one for all."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_last_dim,
    check_ndim,
    check_widths,
)


class MatryoshkaClassifier(nn.Module):
    """Logits of every nested width of an embedding:  x[:, :m] W_m^T + b_m  for each of ``dims``.

    With a matrix for each width (MRL) these are kept side by side in one parameter, (classes, sum
    of dims). With ``shared`` (MRL-E) there is one matrix, W_m = W[:, :m], and one offset; the
    logits of a width are those of the next narrower one plus the product of one slice, so that all
    widths together cost one product. Train with
    :func:`embedkit.losses.matryoshka_cross_entropy`; at inference :meth:`at` makes the logits of
    one width alone.

    Args:
        in_features: width of the embedding, at least the last of ``dims``.
        num_classes: how many logits.
        dims: nested widths in increasing order; kept as ``dims``, a tuple.
        shared: one matrix for all widths (MRL-E): fewer parameters, less accurate where narrow.
        bias: add a learned offset.

    Raises:
        TypeError: if the input is not floating point.
        ValueError: if ``dims`` is empty, not increasing, not positive or wider than
            ``in_features``, a size is below 1, or the input has another width.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, section 3 (MRL and MRL-E).

    >>> classifier = MatryoshkaClassifier(8, 10, dims=[2, 4, 8])
    >>> x = torch.randn(3, 8)
    >>> classifier(x).shape, classifier.at(x, 4).shape
    (torch.Size([3, 3, 10]), torch.Size([3, 10]))
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        dims: Sequence[int],
        shared: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_at_least("MatryoshkaClassifier", "in_features", in_features, 1)
        check_at_least("MatryoshkaClassifier", "num_classes", num_classes, 1)
        check_widths("MatryoshkaClassifier", dims)
        if dims[-1] > in_features:
            raise ValueError(
                f"MatryoshkaClassifier: dims go up to {dims[-1]}, but in_features={in_features}. "
                "A prefix is no wider than the whole."
            )
        self.in_features, self.dims, self.shared = in_features, tuple(dims), shared
        columns = self.dims[-1] if shared else sum(self.dims)
        self.weight = nn.Parameter(torch.empty(num_classes, columns))
        offsets = (num_classes,) if shared else (len(self.dims), num_classes)
        self.bias = nn.Parameter(torch.empty(offsets)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Give each head the initialisation of ``nn.Linear`` at its width."""
        with torch.no_grad():
            heads = [self.weight] if self.shared else self._heads()
            for i, head in enumerate(heads):
                bound = head.shape[1] ** -0.5
                head.uniform_(-bound, bound)
                if self.bias is not None:
                    (self.bias if self.shared else self.bias[i]).uniform_(-bound, bound)

    def _heads(self) -> list[Tensor]:
        """The matrix of each width, without ``shared``."""
        return list(torch.split(self.weight, list(self.dims), dim=1))

    def head(self, dim: int) -> tuple[Tensor, Tensor | None]:
        """Matrix (classes, dim) and offset (classes,) of one of ``dims``, as views."""
        if dim not in self.dims:
            raise ValueError(
                f"MatryoshkaClassifier: dim must be one of {self.dims}, got {dim}. "
                "Other widths have no head."
            )
        i = self.dims.index(dim)
        weight = self.weight[:, :dim] if self.shared else self._heads()[i]
        return weight, self.bias if self.shared or self.bias is None else self.bias[i]

    def at(self, x: Float[Tensor, "b d"], dim: int) -> Float[Tensor, "b c"]:
        """Logits of one width; ``x`` may be cut to it already. The others are not computed."""
        check_floating("x", x)
        check_ndim("x", x, "b d")
        if x.shape[1] != dim:
            check_last_dim("x", x, self.in_features, f"Pass it whole, or cut to {dim}.")
        weight, bias = self.head(dim)
        logits = nn.functional.linear(x[:, :dim].to(weight.dtype), weight, bias)
        return logits.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_features) -> (g, b, classes), narrowest width first."""
        check_floating("x", x)
        check_ndim("x", x, "b d")
        check_last_dim("x", x, self.in_features, "A head fits one width: rebuild it.")
        if not self.shared:
            # Split once: the gradients of all heads are then put side by side in one step.
            heads = self._heads()
            bias = [None] * len(heads) if self.bias is None else self.bias.unbind()
            wide = x.to(self.weight.dtype)
            logits = [
                nn.functional.linear(wide[:, :dim], head, offset)
                for dim, head, offset in zip(self.dims, heads, bias, strict=True)
            ]
            return torch.stack(logits).to(x.dtype)
        sizes = [b - a for a, b in pairwise((0, *self.dims))]
        wide = x[:, : self.dims[-1]].to(self.weight.dtype)
        total = self.weight.new_zeros(()) if self.bias is None else self.bias
        logits = []
        parts, weights = (torch.split(t, sizes, dim=1) for t in (wide, self.weight))
        for part, weight in zip(parts, weights, strict=True):
            total = torch.addmm(total, part, weight.T)
            logits.append(total)
        return torch.stack(logits).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        return (
            f"in_features={self.in_features}, num_classes={self.weight.shape[0]}, "
            f"dims={self.dims}, shared={self.shared}, bias={self.bias is not None}"
        )
