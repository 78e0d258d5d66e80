"""Layers in the tangent space at the origin: maps, activations, block-diagonal scaling."""

from collections.abc import Callable

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_choice, check_last_dim, check_positive
from embedkit.geometry import poincare
from embedkit.geometry._curvature import (
    check_parameters,
    check_vectors,
    curvature_of,
    narrow,
    wide,
)
from embedkit.geometry.learnable_curvature import check_curvature, current, described
from embedkit.geometry.poincare._ball import exp0, inside, log0
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision


class ExpMap0(nn.Module):
    """:func:`embedkit.geometry.poincare.expmap0` for ``nn.Sequential``: features to points.

    Args:
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if the curvature is a tensor.

    >>> model = nn.Sequential(nn.Linear(4, 2), ExpMap0(), LogMap0())
    >>> model(torch.randn(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(self, curvature: float | nn.Module = 1.0) -> None:
        super().__init__()
        check_curvature("ExpMap0", curvature)
        self.curvature = curvature

    def forward(self, v: Tensor) -> Tensor:
        """Tangent vectors at the origin (..., d) to points (..., d)."""
        return poincare.expmap0(v, curvature=current(self.curvature))

    def extra_repr(self) -> str:
        """A fixed curvature for ``print``."""
        return described(curvature=self.curvature)


class LogMap0(nn.Module):
    """:func:`embedkit.geometry.poincare.logmap0` for ``nn.Sequential``: points to features.

    Arguments and errors as for :class:`ExpMap0`.

    >>> LogMap0()(torch.tensor([0.3, 0.1]))
    tensor([0.3106, 0.1035])
    """

    def __init__(self, curvature: float | nn.Module = 1.0) -> None:
        super().__init__()
        check_curvature("LogMap0", curvature)
        self.curvature = curvature

    def forward(self, x: Tensor) -> Tensor:
        """Points (..., d) to tangent vectors at the origin (..., d)."""
        return poincare.logmap0(x, curvature=current(self.curvature))

    def extra_repr(self) -> str:
        """A fixed curvature for ``print``."""
        return described(curvature=self.curvature)


class HyperbolicActivation(nn.Module):
    """A Euclidean activation in the tangent space:  exp0(f(log0(x))).

    Args:
        activation: f, a Module or function of tensors that keeps their shape, e.g. ``nn.ReLU()``;
            it is called in the dtype of the points.
        curvature: c > 0 of the points that come in, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).
        curvature_out: c of those that go out. None: the same.

    Raises:
        ValueError: if a curvature is not > 0.
        TypeError: if a curvature is a tensor.

    Source: Chami et al. 2019, Hyperbolic Graph Convolutional Neural Networks, eq. 10.

    >>> HyperbolicActivation(nn.ReLU())(torch.tensor([0.3, -0.1]))
    tensor([0.3010, 0.0000])
    """

    def __init__(
        self,
        activation: Callable[[Tensor], Tensor],
        curvature: float | nn.Module = 1.0,
        curvature_out: float | nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_curvature("HyperbolicActivation", curvature)
        if curvature_out is not None:
            check_curvature("HyperbolicActivation", curvature_out)
        self.activation = activation
        self.curvature, self.curvature_out = curvature, curvature_out

    def forward(self, x: Tensor) -> Tensor:
        """Points (..., d) to points (..., d)."""
        check_vectors(x=x)
        given = current(self.curvature)
        c = curvature_of("HyperbolicActivation", given, x)
        out = given if self.curvature_out is None else current(self.curvature_out)
        v = self.activation(narrow(log0(x, c), x.dtype))
        return _exp0(v, curvature_of("HyperbolicActivation", out, x), x)

    def extra_repr(self) -> str:
        """Fixed curvatures for ``print``."""
        return described(curvature=self.curvature, curvature_out=self.curvature_out)


def block_diagonal_scaling(
    x: Float[Tensor, "*b d"],
    blocks: Float[Tensor, "m k k"],
    *,
    curvature: float | Tensor | None = 1.0,
) -> Float[Tensor, "*b d"]:
    """M (x) x = exp0(M log0(x)) with M block-diagonal, which is never built.

    The hyperbolic radius of x changes by the factor |M v| / |v|, v = log0(x): exactly a for a times
    the identity, and always between the smallest and the largest singular value of the blocks.
    Compare results by distance: by cosine of log0 the whole is a linear map.

    Args:
        x: points of the ball, or tangent vectors.
        blocks: m square blocks, m * k = d; block i maps channels i k to (i + 1) k.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor. None: ``x`` are
            tangent vectors at the origin, and so are the results, M x.

    Returns:
        Points inside the ball, or vectors, in the dtype of ``x``.

    Raises:
        ValueError: if the curvature is not > 0, or the blocks do not fit.
        TypeError: if arguments are not floating, or of two dtypes (but under autocast).

    Source: Zhang et al. 2025, H4G: Unlocking Faithful Inference for Zero-Shot Graph Learning in
    Hyperbolic Space (abstract; details of the layer are a reconstruction).
    """
    check_vectors(x=x)
    count, size, across = blocks.shape
    if size != across:
        raise ValueError(f"blocks: expected square ones (m, k, k), got {tuple(blocks.shape)}")
    check_last_dim("x", x, count * size, "m blocks of k x k fit points of width m k.")
    check_parameters("block_diagonal_scaling", x, blocks=blocks)
    kind = accumulation_dtype(x.dtype)
    c = None if curvature is None else curvature_of("block_diagonal_scaling", curvature, x)
    v = x.to(kind) if c is None else log0(x, c).to(kind)
    with full_precision(x):
        parts = rearrange(v, "... (m k) -> ... m k", m=count)
        parts = einsum(parts, blocks.to(kind), "... m k, m j k -> ... m j")
    v = rearrange(parts, "... m j -> ... (m j)")
    return v.to(x.dtype) if c is None else _exp0(v, c, x)


def _exp0(v: Tensor, c: Tensor, like: Tensor) -> Tensor:
    return inside(exp0(wide(v), c, like.dtype), c, like.dtype)


class BlockDiagonalMobius(nn.Module):
    """:func:`block_diagonal_scaling` with learned blocks: moves frozen embeddings in or out.

    It starts as the identity and has dim * block_size parameters.

    Args:
        dim: width of the points.
        block_size: width of a block; divides ``dim``.
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).
        max_gain: no radius grows by more than this factor, > 0: each block whose largest singular
            value is above it is divided down to it. None: no bound.
        space: "ball" takes and gives points; "tangent" takes and gives tangent vectors at the
            origin, which have no edge (see :func:`embedkit.geometry.poincare.tangent_distance`).

    Raises:
        ValueError: if ``block_size`` does not divide ``dim``, a number is not > 0, or ``space`` is
            unknown.
        TypeError: if the curvature is a tensor.

    >>> from embedkit.geometry import poincare
    >>> points = poincare.expmap0(torch.randn(4, 8))
    >>> layer = BlockDiagonalMobius(8, block_size=4)
    >>> torch.allclose(layer(points), points, atol=1e-6)
    True
    """

    def __init__(
        self,
        dim: int,
        block_size: int,
        curvature: float | nn.Module = 1.0,
        max_gain: float | None = None,
        space: str = "ball",
    ) -> None:
        super().__init__()
        check_at_least("BlockDiagonalMobius", "dim", dim, 1)
        check_at_least("BlockDiagonalMobius", "block_size", block_size, 1)
        if dim % block_size:
            raise ValueError(
                f"BlockDiagonalMobius: block_size={block_size} must divide dim={dim}. "
                "Every block has channels of its own."
            )
        check_curvature("BlockDiagonalMobius", curvature)
        if max_gain is not None:
            hint = "1 lets no radius grow."
            check_positive("BlockDiagonalMobius", "max_gain", max_gain, hint)
        check_choice("BlockDiagonalMobius", "space", space, ("ball", "tangent"))
        self.curvature, self.max_gain, self.space = curvature, max_gain, space
        self.blocks = nn.Parameter(torch.empty(dim // block_size, block_size, block_size))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set every block to the identity."""
        self.blocks.copy_(torch.eye(self.blocks.shape[-1]).expand_as(self.blocks))

    def bounded(self) -> Tensor:
        """(m, k, k) The blocks as they are applied, within ``max_gain``."""
        if self.max_gain is None:
            return self.blocks
        with full_precision(self.blocks):
            kind = accumulation_dtype(self.blocks.dtype)
            gain = torch.linalg.matrix_norm(self.blocks.to(kind), ord=2)
        bounded: Tensor = self.blocks / (gain / self.max_gain).clamp(min=1)[:, None, None]
        return bounded

    def forward(self, x: Tensor) -> Tensor:
        """Points (..., dim) to points, or tangent vectors to tangent vectors."""
        c = None if self.space == "tangent" else current(self.curvature)
        return block_diagonal_scaling(x, self.bounded(), curvature=c)

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        count, size, _ = self.blocks.shape
        text = f"dim={count * size}, block_size={size}, space={self.space!r}"
        text = text if self.max_gain is None else f"{text}, max_gain={self.max_gain:g}"
        return described(text, curvature=self.curvature)
