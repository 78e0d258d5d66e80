"""Pairwise order: every pair with a higher wanted score should score higher than one below it."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from embedkit._checks import check_floating, check_ndim, check_positive, check_same_shape
from embedkit.losses.scores._scores import TEMPERATURE_HINT, check_scores, connected_zero
from embedkit.ops import accumulation_dtype, normalize

_ANGLE_HINT = "It divides the angle similarities; 0.05 is usual."


def cosent_loss(
    pred: Float[Tensor, " n"], target: Shaped[Tensor, " n"], *, temperature: float = 0.05
) -> Float[Tensor, ""]:
    """CoSENT: log(1 + sum over i, j with y_i > y_j of exp((x_j - x_i) / t)).

    Large where a pair j that should score lower scores higher than a pair i. Only the order of the
    targets matters, and equal ones (compared exactly) are not ordered; a constant added to all
    predictions does not matter. One sort by target and running logsumexps: O(n log n) time and
    O(n) memory, all n^2 pairs included.

    Args:
        pred: predicted scores, e.g. cosines of pairs; half precision is computed in float32.
        target: wanted scores on any scale; a constant.
        temperature: > 0, in units of ``pred``; 0.05 is the usual scale of 20.

    Returns:
        A scalar in float32 or wider, >= 0; it grows with the logarithm of the number of ordered
        pairs. 0 with a zero gradient where all targets are equal, for one pair and for none; a
        non-finite entry makes it NaN.

    Raises:
        ValueError: if shapes differ or ``temperature`` is not > 0.
        TypeError: if ``pred`` is not floating.

    Source: Huang et al. 2024, CoSENT: Consistent Sentence Embedding via Similarity Ranking.
    """
    check_positive("cosent_loss", "temperature", temperature, TEMPERATURE_HINT)
    x, y = check_scores(pred, target)
    zero = connected_zero(x, y)
    if not x.shape[0]:
        return zero
    y, order = y.sort()
    logits = (x / temperature)[order]
    # above[c] = log sum of exp(-x / t) over the c + 1 highest targets.
    above = (-logits).flip(0).logcumsumexp(dim=0)
    higher = x.shape[0] - torch.searchsorted(y, y, right=True)
    terms = (logits + above[(higher - 1).clamp(min=0)]).masked_fill(higher == 0, -torch.inf)
    return torch.cat([zero[None], terms]).logsumexp(dim=0)


class CoSENTLoss(nn.Module):
    """:func:`cosent_loss` with its setting.

    Args:
        temperature: > 0, in units of the predicted scores; 1 / the usual "scale".

    >>> CoSENTLoss()(torch.tensor([0.9, 0.2, 0.5, 0.4]), torch.tensor([5.0, 1.0, 3.0, 3.0]))
    tensor(0.0210)
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        check_positive("CoSENTLoss", "temperature", temperature, TEMPERATURE_HINT)
        self.temperature = temperature

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss of predicted scores (n,) against wanted scores (n,)."""
        return cosent_loss(pred, target, temperature=self.temperature)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"temperature={self.temperature:g}"


def angle_similarity(query: Float[Tensor, "n d"], key: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """AnglE's similarity of row i and row i: | Re + Im | of the cosine in complex space.

    The first half of a row holds real parts, the second half imaginary parts. For rows z, w of
    length 1,  s = | sum_c Re(z_c conj(w_c)) + Im(z_c conj(w_c)) |,  i.e. the cosine plus a sine
    that changes sign with the order of the two. It lies in [0, sqrt 2], and its gradient does not
    vanish at a cosine of 1.

    Args:
        query: rows of even width; half precision is computed in float32.
        key: rows of the same shape.

    Returns:
        One similarity per row in float32 or wider; 0 with a zero gradient for a zero vector.

    Raises:
        ValueError: if shapes differ or the width is odd.
        TypeError: if rows are not floating.

    Source: Li and Li 2023, AnglE-optimized Text Embeddings, the angle objective as its released
    code computes it.
    Differs: the paper's formula subtracts in the opposite order. An odd width is an error; some
    code pads a zero, which pairs coordinates differently.

    >>> angle_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([0.])
    """
    check_floating("query", query)
    check_floating("key", key)
    check_same_shape("Row i of one goes with row i of the other.", query=query, key=key)
    check_ndim("query", query, "n d")
    if query.shape[1] % 2:
        raise ValueError(
            f"angle_similarity: expected an even width, got {query.shape[1]}. Half of the "
            "coordinates are real parts and half imaginary ones: drop or add one coordinate."
        )
    z = normalize(query.to(accumulation_dtype(query.dtype)))
    w = normalize(key.to(accumulation_dtype(key.dtype)))
    (a, b), (c, d) = z.chunk(2, dim=1), w.chunk(2, dim=1)
    return (z * w).sum(dim=1).add((b * c - a * d).sum(dim=1)).abs()


def angle_loss(
    query: Float[Tensor, "n d"],
    key: Float[Tensor, "n d"],
    target: Shaped[Tensor, " n"],
    *,
    temperature: float = 0.05,
) -> Float[Tensor, ""]:
    """AnglE: :func:`cosent_loss` of :func:`angle_similarity` in place of the cosine.

    Cosines near 1 and -1 have next to no gradient; this similarity has. The paper adds it to
    :func:`cosent_loss` on cosines and to InfoNCE; it is not meant to be used alone.

    Args:
        query: one side of each pair, (n, d), d even.
        key: the other side.
        target: wanted scores on any scale, one per pair; a constant.
        temperature: > 0; 0.05 is the usual scale of 20.

    Returns:
        A scalar, as :func:`cosent_loss`.

    Raises:
        ValueError: if shapes do not fit, the width is odd, or ``temperature`` is not > 0.
        TypeError: if embeddings are not floating.

    Source: Li and Li 2023, AnglE-optimized Text Embeddings, the angle objective.
    """
    check_positive("angle_loss", "temperature", temperature, _ANGLE_HINT)
    return cosent_loss(angle_similarity(query, key), target, temperature=temperature)


class AnglELoss(nn.Module):
    """:func:`angle_loss` with its setting; it takes the embeddings of both sides.

    Args:
        temperature: > 0; 1 / the usual "scale".

    >>> AnglELoss()(torch.eye(4), torch.eye(4).flip(0), torch.arange(4)).shape
    torch.Size([])
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        check_positive("AnglELoss", "temperature", temperature, _ANGLE_HINT)
        self.temperature = temperature

    def forward(self, query: Tensor, key: Tensor, target: Tensor) -> Tensor:
        """The loss of pairs (n, d) and (n, d) against wanted scores (n,)."""
        return angle_loss(query, key, target, temperature=self.temperature)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"temperature={self.temperature:g}"
