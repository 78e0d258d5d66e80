"""How embeddings fill their space: alignment, uniformity, and two counts of isotropy."""

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
from embedkit.ops import normalize

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


@torch.no_grad()
def mean_cosine(x: Float[Tensor, "n d"]) -> float:
    """Mean cosine of two different rows:  (||sum_i x_i / ||x_i|| ||^2 - n) / (n (n - 1)).

    0 where rows spread evenly over directions, close to 1 where all lie in a narrow cone, as the
    states of language models do; -1 / (n - 1) is the least, and what centred, white rows come to.
    Time and memory are linear in n: no pair is computed.

    Args:
        x: one row per item; a zero row has cosine 0 with every other.

    Returns:
        A float, computed in float64; 0.0 for fewer than two rows, which have no pair.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for NaN or infinity.

    Source: Ethayarajh 2019, How Contextual are Contextualized Word Representations? Comparing the
    Geometry of BERT, ELMo, and GPT-2 Embeddings, the measure of anisotropy.
    Differs: all pairs of rows in place of a sample.

    >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    0.3333333333333333
    """
    _check("mean_cosine", x=x)
    n = x.shape[0]
    if n < 2:
        return 0.0
    total, own = x.new_zeros(x.shape[1], dtype=torch.float64), 0.0
    for rows in torch.split(x, BLOCK):
        unit = normalize(rows.double())
        total += unit.sum(dim=0)
        own += float(unit.square().sum())
    return float(total.square().sum() - own) / (n * (n - 1))


@torch.no_grad()
def isotropy_score(x: Float[Tensor, "n d"]) -> float:
    """How even the partition function is:  min_v Z(v) / max_v Z(v),  Z(v) = sum_i exp(<x_i, v>).

    v runs over the eigenvectors of X^T X and their negatives. 1 is isotropic, 0 is a direction that
    all rows share. Rows are taken as they are and the score depends on their scale: bring what you
    compare to one scale first, e.g. mean length 1.

    Args:
        x: one row per item.

    Returns:
        A float in [0, 1], computed in float64; 1.0 for rows of zeros, and where there is no entry.

    Raises:
        TypeError: if rows are not floating-point.
        ValueError: for NaN or infinity.

    Source: Mu and Viswanath 2018, All-but-the-Top: Simple and Effective Postprocessing for Word
    Representations, the measure of isotropy.
    Differs: the negatives, too: an eigenvector's sign is arbitrary, and without them the score
    depends on it.

    >>> round(isotropy_score(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 4)
    0.6481
    """
    _check("isotropy_score", x=x)
    if x.numel() == 0:
        return 1.0
    square = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in torch.split(x, BLOCK):
        square.addmm_(rows.double().mT, rows.double())
    directions = torch.linalg.eigh(square).eigenvectors
    sums = []
    for rows in torch.split(x, BLOCK):
        along = rows.double() @ directions
        sums.append(torch.cat([along.logsumexp(dim=0), (-along).logsumexp(dim=0)]))
    log_z = torch.stack(sums).logsumexp(dim=0)
    return float((log_z.min() - log_z.max()).exp())
