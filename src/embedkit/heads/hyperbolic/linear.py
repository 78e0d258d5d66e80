"""Linear layers of the Poincaré ball: a Möbius product with a bias, and HNN++'s."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_choice, check_last_dim
from embedkit.geometry._curvature import (
    check_parameters,
    check_vectors,
    curvature_of,
    edge_margin,
    wide,
    wide_and_plain,
)
from embedkit.geometry._scalars import dot, tanhc
from embedkit.geometry.learnable_curvature import check_curvature, current, described
from embedkit.geometry.poincare._ball import entry, exp0, gap, inside, log0_factor
from embedkit.heads.hyperbolic.regression import signed_scores
from embedkit.ops._precision import full_precision


def mobius_linear(
    x: Float[Tensor, "*b d"],
    weight: Float[Tensor, "e d"],
    bias: Float[Tensor, " e"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "*b e"]:
    """A matrix in the tangent space, then a translation:  exp0(W log0(x)) (+) exp0(b).

    It is ``mobius_add(mobius_matvec(W, x), expmap0(b))`` of :mod:`embedkit.geometry.poincare` in
    one pass: the product runs on the points themselves, in their precision (float32 at least), and
    what remains are factors per row, in float64. Without the bias, log0 of the result is the linear
    map W log0(x), and a stack of such layers is one matrix.

    Args:
        x: points of the ball.
        weight: W.
        bias: b, a tangent vector at the origin. None: no translation.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``x``.

    Raises:
        ValueError: if the curvature is not > 0, or widths do not fit.
        TypeError: if arguments are not floating, or of several dtypes (but under autocast).

    Source: Ganea et al. 2018, Hyperbolic Neural Networks, sec. 3.2; Chami et al. 2019, Hyperbolic
    Graph Convolutional Neural Networks, eq. 5-6.
    Differs: the bias is stored in the tangent space, so that any optimiser trains it. The sum takes
    its lengths from factors per row: of two float64 points beyond radius 12 that cancel it has
    fewer digits than ``mobius_add``.
    """
    check_vectors(x=x)
    check_last_dim("x", x, weight.shape[-1], "As wide as the rows of weight.")
    check_parameters("mobius_linear", x, weight=weight, bias=bias)
    c = curvature_of("mobius_linear", curvature, x)
    margin = edge_margin(x.dtype)
    a, plain = wide_and_plain(x)
    with full_precision(x):
        product = wide(plain @ weight.to(plain.dtype).mT)
    # W (x) x = factor * product
    pull, squared = entry(a, c, x.dtype)
    factor, squared = pull * log0_factor(squared, x.dtype), dot(product, product)
    factor = factor * tanhc(c * factor.square() * squared)
    factor = factor * _pull(factor.square() * squared, c, margin)
    if bias is None:
        return inside(factor * product, c, x.dtype)
    check_last_dim("bias", bias, weight.shape[0], "One number for each row of weight.")
    b = wide(bias)
    b = inside(exp0(b, c, bias.dtype), c, b.dtype, margin)
    # y (+) b as in geometry.poincare, with y = factor * product
    size = factor.square() * squared
    of_y, of_b = (1 - c * size).clamp(min=torch.finfo(x.dtype).eps), gap(b, c, x.dtype)
    between = c * (size + 2 * factor * dot(product, b) + dot(b, b)).clamp(min=0)
    below = between + of_y * of_b
    return inside((of_y + between) / below * factor * product + of_y / below * b, c, x.dtype)


def _pull(squared: Tensor, c: Tensor, margin: float) -> Tensor:
    """What brings points of this squared length to at most (1 - margin) of the ball's radius."""
    limit = (1 - margin) ** 2 / c
    outside = squared > limit
    return torch.where(outside, (limit / squared.masked_fill(~outside, 1.0)).sqrt(), 1.0)


def poincare_linear(
    x: Float[Tensor, "*b d"],
    weight: Float[Tensor, "e d"],
    offset: Float[Tensor, " e"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
) -> Float[Tensor, "*b e"]:
    """The point whose signed distances from the axes' hyperplanes are the scores of x.

    y = w / (1 + sqrt(1 + c|w|^2)),  w_k = sinh(s v_k) / s,  s = sqrt(c),  with v_k the scores of
    :func:`embedkit.heads.hyperbolic.regression.hyperbolic_logits`. Unlike a Möbius product it is
    not a linear map of tangent vectors, so layers of it can be stacked as they are.

    Args:
        x: points of the ball.
        weight: one normal z_k for each coordinate of the result.
        offset: r_k, how far each hyperplane is from the origin. None: 0.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.

    Returns:
        Points inside the ball, in the dtype of ``x``.

    Raises:
        ValueError: if the curvature is not > 0, or widths do not fit.
        TypeError: if arguments are not floating, or of several dtypes (but under autocast).

    Source: Shimizu et al. 2021, Hyperbolic Neural Networks++, sec. 3.2, eq. 7.
    Differs: s v_k ends at 300 in absolute value, where sinh has left every dtype's ball.
    """
    c = curvature_of("poincare_linear", curvature, x)
    root = c.sqrt()
    w = (signed_scores("poincare_linear", x, weight, offset, c) * root).clamp(
        -300, 300
    ).sinh() / root
    return inside(w / (1 + (1 + c * dot(w, w)).sqrt()), c, x.dtype)


class MobiusLinear(nn.Module):
    """:func:`mobius_linear` with a learned matrix and bias: ``nn.Linear`` from ball to ball.

    Both start as in HGCN: Xavier-uniform with gain sqrt(2), and zero.

    Args:
        in_features: width of the points that come in.
        out_features: width of the points that come out.
        bias: translate the result by a learned point.
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).

    Raises:
        ValueError: if a width is below 1, or the curvature is not > 0.
        TypeError: if the curvature is a tensor.

    >>> from embedkit.geometry import poincare
    >>> points = poincare.expmap0(torch.randn(4, 8))
    >>> MobiusLinear(8, 3)(points).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        curvature: float | nn.Module = 1.0,
    ) -> None:
        super().__init__()
        check_at_least("MobiusLinear", "in_features", in_features, 1)
        check_at_least("MobiusLinear", "out_features", out_features, 1)
        check_curvature("MobiusLinear", curvature)
        self.curvature = curvature
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrix anew; the bias is zero."""
        nn.init.xavier_uniform_(self.weight, gain=2**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Points (..., in_features) to points (..., out_features)."""
        return mobius_linear(x, self.weight, self.bias, curvature=current(self.curvature))

    def extra_repr(self) -> str:
        """Sizes and a fixed curvature for ``print``."""
        return described(_sizes(self.weight, self.bias), curvature=self.curvature)


class PoincareLinear(nn.Module):
    """:func:`poincare_linear` with learned normals and offsets: HNN++'s fully connected layer.

    Args:
        in_features: width of the points that come in.
        out_features: width of the points that come out.
        bias: learn the offsets of the hyperplanes, which start at 0.
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).
        init: "hnnpp" draws normals with variance 1 / (2 in_features out_features); "identity"
            starts with half the unit matrix, which gives points back as they are (padded with
            zeros, or cut).

    Raises:
        ValueError: if a width is below 1, the curvature is not > 0, or ``init`` is unknown.
        TypeError: if the curvature is a tensor.

    >>> from embedkit.geometry import poincare
    >>> points = poincare.expmap0(torch.randn(4, 8))
    >>> PoincareLinear(8, 3)(points).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        curvature: float | nn.Module = 1.0,
        init: str = "hnnpp",
    ) -> None:
        super().__init__()
        check_at_least("PoincareLinear", "in_features", in_features, 1)
        check_at_least("PoincareLinear", "out_features", out_features, 1)
        check_curvature("PoincareLinear", curvature)
        check_choice("PoincareLinear", "init", init, ("hnnpp", "identity"))
        self.curvature, self.init = curvature, init
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.offset = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the normals anew, or set the identity; offsets are zero."""
        if self.init == "hnnpp":
            nn.init.normal_(self.weight, std=(2 * self.weight.numel()) ** -0.5)
        else:
            nn.init.eye_(self.weight).mul_(0.5)
        if self.offset is not None:
            nn.init.zeros_(self.offset)

    def forward(self, x: Tensor) -> Tensor:
        """Points (..., in_features) to points (..., out_features)."""
        return poincare_linear(x, self.weight, self.offset, curvature=current(self.curvature))

    def extra_repr(self) -> str:
        """Sizes, the start and a fixed curvature for ``print``."""
        text = f"{_sizes(self.weight, self.offset)}, init={self.init!r}"
        return described(text, curvature=self.curvature)


def _sizes(weight: Tensor, bias: Tensor | None) -> str:
    out_features, in_features = weight.shape
    return f"in_features={in_features}, out_features={out_features}, bias={bias is not None}"
