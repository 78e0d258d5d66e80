"""Pools of the Poincaré ball: the gyromidpoint, with equal, given or attended weights."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_choice, check_last_dim, check_positive
from embedkit._checks import check_tokens as check_points
from embedkit.geometry import poincare
from embedkit.geometry._centroid import centroid_of_set
from embedkit.geometry._curvature import check_parameters, curvature_of, wide
from embedkit.geometry.learnable_curvature import check_curvature, current, described
from embedkit.geometry.poincare._ball import points_and_gap
from embedkit.geometry.poincare.midpoint import back
from embedkit.ops import accumulation_dtype, masked_softmax, zero_padding


class MidpointPool(nn.Module):
    """:func:`embedkit.geometry.poincare.midpoint` of the real points of each set.

    Padding may hold anything; a set of padding only gives the origin.

    Args:
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if the curvature is a tensor.

    >>> MidpointPool()(torch.tensor([[[0.3, 0.1], [-0.2, 0.4]]]))
    tensor([[0.0324, 0.2374]])
    """

    def __init__(self, curvature: float | nn.Module = 1.0) -> None:
        super().__init__()
        check_curvature("MidpointPool", curvature)
        self.curvature = curvature

    def forward(
        self, points: Tensor, mask: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """(b, n, d), an optional bool (b, n) and weights >= 0, (b, n) or (n,), to (b, d)."""
        return poincare.midpoint(points, weight, mask, curvature=current(self.curvature))

    def extra_repr(self) -> str:
        """A fixed curvature for ``print``."""
        return described(curvature=self.curvature)


def hyperbolic_attention_pool(
    points: Float[Tensor, "b n d"],
    query: Float[Tensor, " d"],
    mask: Bool[Tensor, "b n"] | None = None,
    *,
    curvature: float | Tensor = 1.0,
    score: str = "distance",
    temperature: float = 1.0,
) -> Float[Tensor, "b d"]:
    """The gyromidpoint of each set, weighted by how well its points match a query.

    Weights are softmax_n(a_n / t) with a_n = -d(x_n, exp0(q)) or a_n = <log0(x_n), q>.

    Args:
        points: points of the ball; padding may hold anything, NaN and infinity included.
        query: q, a tangent vector at the origin.
        mask: True where a point is real, False where it is padding. None: all real.
        curvature: c > 0 of a space of curvature -c; a number or a 0-d tensor.
        score: "distance" or "tangent". By distance the zero query prefers points near the origin
            (general concepts); by tangent vectors it gives the plain midpoint.
        temperature: t > 0, in units of the distance.

    Returns:
        Points inside the ball, in the dtype of ``points``; the origin for a set of padding only.

    Raises:
        ValueError: if the curvature or the temperature is not > 0, shapes do not fit, or ``score``
            is unknown.
        TypeError: if points are not floating, the query is of another dtype (but under autocast),
            or the mask is not bool.

    Source: Gulcehre et al. 2019, Hyperbolic Attention Networks, sec. 3.1 and 3.2.
    Differs: points of the ball instead of the hyperboloid, where the mean is the same point; one
    learned query; softmax without the sigmoid alternative.
    """
    check_points(points, mask)
    check_last_dim("points", points, query.shape[-1], "A pool fits one width.")
    check_choice("hyperbolic_attention_pool", "score", score, ("distance", "tangent"))
    check_positive("hyperbolic_attention_pool", "temperature", temperature)
    check_parameters("hyperbolic_attention_pool", points, query=query)
    c = curvature_of("hyperbolic_attention_pool", curvature, points)
    # widened once, so that gradients of all uses meet before they are cut to float16
    a, gap = points_and_gap(zero_padding(points, mask), c)
    if score == "distance":
        place = poincare.expmap0(wide(query), curvature=c)
        scores = -poincare.distance(a, place, curvature=c)
    else:
        scores = (poincare.logmap0(a, curvature=c) * wide(query)).sum(dim=-1)
    kind = accumulation_dtype(points.dtype)
    weight = wide(masked_softmax(scores.to(kind) / temperature, mask))[..., None]
    return back(centroid_of_set(2 * a / gap, weight, c), c, points.dtype)


class HyperbolicAttentionPool(nn.Module):
    """:func:`hyperbolic_attention_pool` with a learned query, which starts at zero.

    Args:
        dim: width of the points.
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).
        score: "distance" to the learned point, or "tangent", products with the learned vector.
        temperature: > 0, divides the scores.

    Raises:
        ValueError: if ``dim`` is below 1, a number is not > 0, or ``score`` is unknown.
        TypeError: if the curvature is a tensor.

    >>> from embedkit.geometry import poincare
    >>> points = poincare.expmap0(torch.randn(4, 5, 8))
    >>> HyperbolicAttentionPool(8)(points, torch.rand(4, 5) > 0.3).shape
    torch.Size([4, 8])
    """

    def __init__(
        self,
        dim: int,
        curvature: float | nn.Module = 1.0,
        score: str = "distance",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_at_least("HyperbolicAttentionPool", "dim", dim, 1)
        check_curvature("HyperbolicAttentionPool", curvature)
        check_choice("HyperbolicAttentionPool", "score", score, ("distance", "tangent"))
        check_positive("HyperbolicAttentionPool", "temperature", temperature)
        self.curvature, self.score, self.temperature = curvature, score, temperature
        self.query = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the query to zero, the origin."""
        nn.init.zeros_(self.query)

    def forward(self, points: Tensor, mask: Tensor | None = None) -> Tensor:
        """(b, n, d) and an optional bool (b, n) to (b, d)."""
        return hyperbolic_attention_pool(
            points,
            self.query,
            mask,
            curvature=current(self.curvature),
            score=self.score,
            temperature=self.temperature,
        )

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        text = f"dim={self.query.numel()}, score={self.score!r}, temperature={self.temperature:g}"
        return described(text, curvature=self.curvature)
