"""Classes as points: logits from how near each is."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_choice, check_positive
from embedkit.geometry import poincare
from embedkit.geometry._curvature import check_matrices
from embedkit.geometry.learnable_curvature import check_curvature, current, described
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops._precision import full_precision

SIMILARITIES = ("neg_distance", "cosine")


def hyperbolic_prototype_logits(
    x: Float[Tensor, "b d"],
    prototypes: Float[Tensor, "k d"],
    *,
    curvature: float | Tensor = 1.0,
    similarity: str = "neg_distance",
    scale: float | Tensor = 1.0,
) -> Float[Tensor, "b k"]:
    """Scaled similarity of every point to every prototype: minus the distance, or the cosine.

    Args:
        x: points of the ball.
        prototypes: one point per class, e.g. of the class's text, of the same width and dtype.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.
        similarity: "neg_distance" or "cosine" of directions from the origin, which does not look at
            radii, nor at the curvature.
        scale: what multiplies it, > 0; a number or a 0-d tensor.

    Returns:
        Logits in the dtype of ``x``, for ``cross_entropy``.

    Raises:
        ValueError: if ``similarity`` is unknown, ``scale`` or the curvature is not > 0, widths
            differ, or points are not in rows.
        TypeError: if points are not floating, or of two dtypes.

    Source: Zhang et al. 2025, H4G: Unlocking Faithful Inference for Zero-Shot Graph Learning in
    Hyperbolic Space (abstract; details are a reconstruction).

    >>> classes = torch.tensor([[0.3, 0.1], [-0.2, 0.4]])
    >>> hyperbolic_prototype_logits(torch.tensor([[0.3, 0.1]]), classes)
    tensor([[-0.0000, -1.2843]])
    """
    owner = "hyperbolic_prototype_logits"
    check_choice(owner, "similarity", similarity, SIMILARITIES)
    if not isinstance(scale, Tensor):
        check_positive(owner, "scale", scale)
    check_matrices(x=x, prototypes=prototypes)
    kind = accumulation_dtype(x.dtype)
    if similarity == "cosine":
        with full_precision(x):
            near = normalize(x.to(kind)) @ normalize(prototypes.to(kind)).mT
    else:
        near = -poincare.pairwise_distance(x, prototypes, curvature=curvature).to(kind)
    return (scale * near).to(x.dtype)


class HyperbolicPrototypeHead(nn.Module):
    """:func:`hyperbolic_prototype_logits` with a learned scale; prototypes come with each call.

    The scale is trained through its logarithm, ``log_scale``, like that of CLIP: as a plain number
    it moves more slowly than distances need. Exclude it from weight decay.

    Args:
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).
        similarity: "neg_distance" or "cosine".
        scale: what multiplies it at the start, > 0; 1 suits distances, 10 to 100 cosines.
        learnable_scale: train it.

    Raises:
        ValueError: if ``similarity`` is unknown, or a number is not > 0.
        TypeError: if the curvature is a tensor.

    >>> from embedkit.geometry import poincare
    >>> points = poincare.expmap0(torch.randn(7, 8))
    >>> HyperbolicPrototypeHead()(points[:4], points[4:]).shape
    torch.Size([4, 3])
    """

    log_scale: Tensor

    def __init__(
        self,
        curvature: float | nn.Module = 1.0,
        similarity: str = "neg_distance",
        scale: float = 1.0,
        learnable_scale: bool = True,
    ) -> None:
        super().__init__()
        check_curvature("HyperbolicPrototypeHead", curvature)
        check_choice("HyperbolicPrototypeHead", "similarity", similarity, SIMILARITIES)
        check_positive("HyperbolicPrototypeHead", "scale", scale)
        self.curvature, self.similarity, self.scale = curvature, similarity, scale
        if learnable_scale:
            self.log_scale = nn.Parameter(torch.empty(()))
        else:
            self.register_buffer("log_scale", torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to the scale at the start."""
        nn.init.constant_(self.log_scale, math.log(self.scale))

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """Points (b, d) and prototypes (k, d) to logits (b, k)."""
        return hyperbolic_prototype_logits(
            x,
            prototypes,
            curvature=current(self.curvature),
            similarity=self.similarity,
            scale=self.log_scale.exp(),
        )

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        text = f"similarity={self.similarity!r}, scale={self.scale:g}"
        return described(text, curvature=self.curvature)
