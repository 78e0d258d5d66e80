"""Hyperbolic softmax regression: logits are signed distances from one hyperplane per class."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_last_dim
from embedkit.geometry._curvature import (
    check_parameters,
    check_vectors,
    curvature_of,
    narrow,
    wide,
    wide_and_plain,
)
from embedkit.geometry._scalars import length
from embedkit.geometry.learnable_curvature import check_curvature, current, described
from embedkit.geometry.poincare._ball import entry, floor
from embedkit.ops._precision import full_precision


def hyperbolic_logits(
    x: Float[Tensor, "*b d"],
    weight: Float[Tensor, "k d"],
    offset: Float[Tensor, " k"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "*b k"]:
    """2|z_k| times the signed distance of x from a hyperplane for each class.

    v_k = (2|z_k|/s) asinh( (2s<x, z_k/|z_k|> cosh(2s r_k) - (1 + c|x|^2) sinh(2s r_k))
    / (1 - c|x|^2) ),  s = sqrt(c). The hyperplane is orthogonal to z_k and goes through
    exp0(r_k z_k / |z_k|). Where c goes to 0 this is the linear layer 4 (<x, z_k> - r_k |z_k|).

    Args:
        x: points of the ball.
        weight: z_k, one normal per class; a class with a normal of length 0 has logit 0, and its
            gradient is 0.
        offset: r_k, how far from the origin the hyperplane is, as half a distance. None: 0.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Logits in the dtype of ``x``, for ``cross_entropy``.

    Raises:
        ValueError: if the curvature is not > 0, or widths do not fit.
        TypeError: if arguments are not floating, or of several dtypes (but under autocast).

    Source: Shimizu et al. 2021, Hyperbolic Neural Networks++, sec. 3.1, eq. 6.
    Differs: 2s r_k ends at 300 in absolute value, far beyond every dtype's ball.
    """
    c = curvature_of("hyperbolic_logits", curvature, x)
    return narrow(signed_scores("hyperbolic_logits", x, weight, offset, c), x.dtype)


def signed_scores(
    owner: str, x: Tensor, weight: Tensor, offset: Tensor | None, c: Tensor
) -> Tensor:
    """The formula of :func:`hyperbolic_logits`, wide."""
    check_vectors(x=x)
    check_last_dim("x", x, weight.shape[-1], "As wide as the rows of weight.")
    check_parameters(owner, x, weight=weight, offset=offset)
    root = c.sqrt()
    normal = wide(weight)
    size = length(normal)
    normal = normal / size.masked_fill(size == 0, 1.0)
    a, plain = wide_and_plain(x)
    pull, squared = entry(a, c, x.dtype)
    with full_precision(x):
        along = wide(plain @ normal.to(plain.dtype).mT)
    sign = 2 * root * pull * along
    if offset is not None:
        check_last_dim("offset", offset, weight.shape[0], "One number for each row of weight.")
        angle = (2 * root * wide(offset)).clamp(-300, 300)
        sign = sign * angle.cosh() - (1 + squared) * angle.sinh()
    return 2 * size[:, 0] / root * (sign / floor(1 - squared, x.dtype)).asinh()


class HyperbolicMLR(nn.Module):
    """:func:`hyperbolic_logits` with learned normals and offsets: softmax regression on the ball.

    Normals start as in HNN++, with variance 1 / (c in_features), offsets at 0.

    Args:
        in_features: width of the points.
        num_classes: number of logits.
        bias: learn how far the hyperplanes are from the origin; else they go through it.
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).

    Raises:
        ValueError: if a size is below 1, or the curvature is not > 0.
        TypeError: if the curvature is a tensor.

    >>> from embedkit.geometry import poincare
    >>> points = poincare.expmap0(torch.randn(4, 8))
    >>> HyperbolicMLR(8, 3)(points).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        bias: bool = True,
        curvature: float | nn.Module = 1.0,
    ) -> None:
        super().__init__()
        check_at_least("HyperbolicMLR", "in_features", in_features, 1)
        check_at_least("HyperbolicMLR", "num_classes", num_classes, 1)
        check_curvature("HyperbolicMLR", curvature)
        self.curvature = curvature
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.offset = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the normals anew; the hyperplanes go through the origin."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)
        self.weight.div_(current(self.curvature) ** 0.5)
        if self.offset is not None:
            nn.init.zeros_(self.offset)

    def forward(self, x: Tensor) -> Tensor:
        """Points (..., in_features) to logits (..., num_classes)."""
        return hyperbolic_logits(x, self.weight, self.offset, curvature=current(self.curvature))

    def extra_repr(self) -> str:
        """Sizes and a fixed curvature for ``print``."""
        classes, width = self.weight.shape
        bias = self.offset is not None
        text = f"in_features={width}, num_classes={classes}, bias={bias}"
        return described(text, curvature=self.curvature)
