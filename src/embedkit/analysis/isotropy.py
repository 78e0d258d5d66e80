"""How embeddings fill their space: alignment and uniformity."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import (
    check_finite,
    check_floating,
    check_ndim,
    check_positive,
    check_same_shape,
)

BLOCK = 512  # rows on either side of one block of distances


def _check(owner: str, **rows: Tensor) -> None:
    for name, x in rows.items():
        check_ndim(name, x, "n d")
        check_floating(name, x)
        check_finite(owner, name, x)


@torch.no_grad()
def alignment(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], exponent: int | float = 2) -> float:
    """How far apart matching rows lie:  mean_i ||x_i - y_i||^exponent.

    0 is best. Rows are taken as they are; for rows of length 1 (:func:`embedkit.ops.normalize`),
    as in the paper, it is at most 2^exponent; for exponent 2 it is 2 - 2 * (mean cosine).

    Args:
        x: one row per pair.
        y: what row i of ``x`` should lie close to: another view, a paraphrase, the parent.
        exponent: above 0; the paper's default is 2.

    Returns:
        A float, computed in float64; 0.0 for no rows.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for shapes that differ, exponent <= 0, NaN or infinity.

    Source: Wang and Isola 2020, Understanding Contrastive Representation Learning through
    Alignment and Uniformity on the Hypersphere, section 4.1.1.

    >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    2.0
    """
    _check("alignment", x=x, y=y)
    check_same_shape("Row i of one matches row i of the other.", x=x, y=y)
    check_positive("alignment", "exponent", exponent)
    if x.shape[0] == 0:
        return 0.0
    squared = (x.double() - y.double()).square().sum(dim=1)
    return float(squared.pow(exponent / 2).mean())


@torch.no_grad()
def uniformity(x: Float[Tensor, "n d"], t: int | float = 2) -> float:
    """How evenly rows are spread:  log of the mean over pairs i < j of exp(-t ||x_i - x_j||^2).

    Lower is more uniform. Rows are taken as they are; for rows of length 1
    (:func:`embedkit.ops.normalize`), as in the paper, it lies between -4t and 0, and is 0 where
    all rows are equal. Rows that are uniform on the sphere come close to -2t in a high dimension.
    Distances are computed block by block in float64, exact to about 1e-15 of the largest squared
    one: memory is linear in n, time quadratic. 10,000 rows take a second or two; a random sample
    of that size tells as much as all rows.

    Args:
        x: one row per item.
        t: above 0; the paper's default is 2.

    Returns:
        A float, computed in float64; 0.0 for fewer than two rows, which have no pair.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for t <= 0, NaN or infinity.

    Source: Wang and Isola 2020, Understanding Contrastive Representation Learning through
    Alignment and Uniformity on the Hypersphere, section 4.1.2.
    Differs: the mean is over pairs of different rows, as in the authors' code; the formula of the
    paper draws both at random.

    >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    -8.0
    """
    _check("uniformity", x=x)
    check_positive("uniformity", "t", t)
    n = x.shape[0]
    if n < 2:
        return 0.0
    # Distances do not depend on the origin, and around the mean their Gram form rounds least.
    blocks = torch.split(x.double() - x.double().mean(dim=0), BLOCK)
    squares = [rows.square().sum(dim=1) for rows in blocks]
    sums = []
    for i, rows in enumerate(blocks):
        for j, others in enumerate(blocks[: i + 1]):
            squared = squares[i][:, None] + squares[j] - 2 * rows @ others.T
            potential = squared.clamp_(min=0).mul_(-t)
            if i == j:
                not_earlier = torch.ones_like(potential, dtype=torch.bool).triu_()
                potential.masked_fill_(not_earlier, -torch.inf)
            sums.append(potential.flatten().logsumexp(dim=0))
    total = float(torch.stack(sums).logsumexp(dim=0))
    return min(total - math.log(n * (n - 1) / 2), 0.0)  # rounding must not leave the range
