"""Weights: how much a row, or a negative, counts in a loss that takes ``weight`` or ``candidate``.

All are constants to the loss: no gradient flows through a weight, unless asked.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import check_floating, check_integer, check_ndim, check_rows
from embedkit.ops import accumulation_dtype

_STEEPEST = 80.0  # exp(80) still fits float32


def focal_weights(
    rows: Float[Tensor, " q"], gamma: float = 0.5, *, detach: bool = True
) -> Float[Tensor, " q"]:
    """Weigh each row by how far it is from solved:  w = (1 - p)^gamma,  p = exp(-row loss).

    Take the rows of a softmax loss once, weigh and average them; nothing is computed twice:

    >>> rows = torch.tensor([0.709464, 0.665258])  # info_nce(..., reduction="none")
    >>> (focal_weights(rows) * rows).mean()
    tensor(0.4847)

    A row that takes no part has loss 0, hence weight 0. To divide by the rows that took part, or
    where the loss is fused with others, hand the weights to a second call with ``weight=``.

    Args:
        rows: row losses that are minus the logarithm of a probability. p above 1 (a loss below 0,
            as decoupled losses have) gets weight 0.
        gamma: 0 weighs all rows alike, larger ones forget solved rows faster.
        detach: True reweighs; False is the focal loss with the gradient through its weight, where
            1 - p is at least 1e-7 because a root has no slope at 0.

    Returns:
        Weights in [0, 1], in float32 or wider; they never increase with p.

    Raises:
        ValueError: if ``gamma`` is negative or not finite, or ``rows`` has not one axis.
        TypeError: if ``rows`` is not floating point.

    Source: Zhao et al. 2025, KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A
    Versatile Embedding Model, the focal-style reweighting.
    Differs: the paper does not say whether the weight is a constant; here it is unless asked.
    """
    check_floating("rows", rows, 'Pass a loss with reduction="none".')
    check_ndim("rows", rows, "q")
    _check_range("focal_weights", "gamma", gamma, math.inf, "0.5 is usual, 0 weighs all alike")
    rows = rows.to(accumulation_dtype(rows.dtype))
    if detach:
        return (-torch.expm1(-rows.detach())).clamp(min=0.0) ** gamma
    return (-torch.expm1(-rows)).clamp(min=1e-7) ** gamma


def hardness_weights(similarity: Float[Tensor, "q k"], alpha: float = 5.0) -> Float[Tensor, "q k"]:
    """Weigh each negative by how similar it is:  w = exp(alpha s),  s taken as a constant.

    Hand it to ``info_nce_from_similarity(similarity, positive, candidate=weights)``, which adds
    log w = alpha s to the logits of negatives and leaves positives alone.

    Args:
        similarity: cosine of queries and keys, in [-1, 1].
        alpha: 0 to 80; 5 to 9 in the literature. 0 weighs all alike.

    Returns:
        Weights > 0 without a gradient, in float32 or wider. A similarity of NaN has weight 1, so
        that it stays in the loss where it is seen.

    Raises:
        ValueError: if ``alpha`` is out of range.
        TypeError: if ``similarity`` is not floating point.

    Source: Lan et al. 2025, LLaVE: Large Language and Vision Embedding Models with
    Hardness-Weighted Contrastive Learning.
    """
    check_floating("similarity", similarity)
    check_ndim("similarity", similarity, "q k")
    _check_range("hardness_weights", "alpha", alpha, _STEEPEST, "5 to 9 is usual")
    bias = alpha * similarity.detach().to(accumulation_dtype(similarity.dtype))
    return bias.clamp(-_STEEPEST, _STEEPEST).nan_to_num(nan=0.0).exp()


def cluster_weights(
    clusters: Int[Tensor, "c q"], key_clusters: Int[Tensor, "c k"] | None = None
) -> Float[Tensor, "q k"]:
    """Mute negatives that share clusters:  w_ij = c - number of clusterings with i and j together.

    0 means together in all of them (probably no negative at all), c apart in all. The weights of
    row i to itself are 0. :func:`embedkit.losses.weighted_info_nce` asks for them block by block
    and leaves a row's own key out of the denominator, as MEOW does;
    ``info_nce_from_similarity(..., candidate=weights)`` keeps it in.

    Args:
        clusters: one row per clustering of the queries, e.g. k-means with several numbers of
            clusters, many small ones rather than as many as there are classes.
        key_clusters: the same clusterings of the keys; None: queries and keys are the same rows.
            Pass a slice of ``clusters`` first and all of them here to get the weights of a block.

    Returns:
        Whole numbers 0 to c as float32.

    Raises:
        ValueError: if the number of clusterings differs, or a tensor has not two axes.
        TypeError: if cluster numbers are not integers.

    Source: Yu et al. 2022, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, the hard weights of MEOW.

    >>> cluster_weights(torch.tensor([[0, 0, 1], [0, 1, 1]]))
    tensor([[0., 1., 2.],
            [1., 0., 1.],
            [2., 1., 0.]])
    """
    check_integer("clusters", clusters)
    check_ndim("clusters", clusters, "c q")
    if key_clusters is None:
        key_clusters = clusters
    check_integer("key_clusters", key_clusters)
    check_ndim("key_clusters", key_clusters, "c k")
    check_rows("key_clusters", key_clusters, clusters.shape[0], "One row per clustering.")
    weight = torch.zeros(clusters.shape[1], key_clusters.shape[1], device=clusters.device)
    for own, other in zip(clusters, key_clusters, strict=True):
        weight += own[:, None] != other
    return weight


def _check_range(owner: str, name: str, value: float, most: float, hint: str) -> None:
    if not (0 <= value <= most and math.isfinite(value)):
        limit = "" if math.isinf(most) else f" and at most {most:g}"
        raise ValueError(f"{owner}: {name} must be >= 0{limit}, got {value:g}; {hint}.")
