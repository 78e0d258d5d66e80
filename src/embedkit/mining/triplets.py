"""Which triplets (anchor, positive, negative) of a batch the loss sees."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
    check_same_shape,
)
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops.distances import block_distances

_ENTRIES = 2**20  # of a block of distances
_FEW = 16  # positives per anchor from which on sorting is faster than scanning


def semihard_triplets(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    margin: float = 0.2,
    *,
    unit: bool = True,
    reference: Float[Tensor, "n d"] | None = None,
    reference_labels: Int[Tensor, " n"] | None = None,
) -> Int[Tensor, "t 3"]:
    """For every anchor-positive pair the closest negative that is farther than the positive.

    The triplet (a, p, n) is taken where  d_ap < d_an < d_ap + margin  with the smallest such d_an,
    d the squared distance; a pair without one is skipped. Ties go to the smaller index. Anchors
    are taken in blocks: sorting makes it O(b n log n) time, and nothing of size b x n is kept.

    Args:
        embeddings: anchors, and where there is no ``reference``, positives and negatives too.
        labels: integers; equal labels match.
        margin: in units of the squared distance, > 0; d is in [0, 4] for unit rows.
        unit: scale rows to length 1 first.
        reference: rows that positives and negatives come from, e.g. prototypes, a memory, or the
            embeddings of an old model. Pairs (i, i) are no pairs only where it is None.
        reference_labels: their labels.

    Returns:
        Row indices (anchor, positive, negative), sorted by anchor and positive.

    Raises:
        ValueError: if rows, widths and labels do not fit, or ``margin`` is not > 0.
        TypeError: if embeddings are not floating or labels not integers.

    Source: Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition and Clustering,
    eq. 4.
    """
    if not margin > 0:
        raise ValueError(
            f"semihard_triplets: margin must be > 0, got {margin}. It is in units of the squared "
            "distance; FaceNet takes 0.2 for rows of length 1."
        )

    def choose(distance: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, ...]:
        anchor, place = positive.nonzero(as_tuple=True)
        near, far = distance[anchor, place], distance.masked_fill(~negative, torch.inf)
        few = len(anchor) < _FEW * len(distance)
        closest, found = (_scan if few else _search)(far, anchor, near)
        keep = closest < near + margin
        return anchor[keep], place[keep], found[keep]

    return _mine(choose, embeddings, labels, unit, reference, reference_labels)


def hardest_triplets(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    unit: bool = True,
    reference: Float[Tensor, "n d"] | None = None,
    reference_labels: Int[Tensor, " n"] | None = None,
) -> Int[Tensor, "t 3"]:
    """For every anchor-positive pair the closest negative of all; arguments as in the semi-hard.

    Early in training these may pull everything to one point: start with
    :func:`semihard_triplets`.

    Source: Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition and Clustering,
    sec. 3.2.
    """

    def choose(distance: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, ...]:
        far = distance.masked_fill(~negative, torch.inf)
        closest = far.argmin(dim=1)
        anchor, place = (positive & negative.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
        return anchor, place, closest[anchor]

    return _mine(choose, embeddings, labels, unit, reference, reference_labels)


def batch_hard_triplets(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    unit: bool = True,
    reference: Float[Tensor, "n d"] | None = None,
    reference_labels: Int[Tensor, " n"] | None = None,
) -> Int[Tensor, "t 3"]:
    """One triplet per anchor: its farthest positive and its closest negative.

    Source: Hermans et al. 2017, In Defense of the Triplet Loss for Person Re-Identification, eq. 5.
    """

    def choose(distance: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, ...]:
        anchor = (positive.any(dim=1) & negative.any(dim=1)).nonzero()[:, 0]
        farthest = distance.masked_fill(~positive, -1.0).argmax(dim=1)
        closest = distance.masked_fill(~negative, torch.inf).argmin(dim=1)
        return anchor, farthest[anchor], closest[anchor]

    return _mine(choose, embeddings, labels, unit, reference, reference_labels)


def harmonic_triplets(
    new: Float[Tensor, "b d"],
    old: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    margin: float = 0.2,
    *,
    unit: bool = True,
) -> Int[Tensor, "t 3"]:
    """Semi-hard triplets across two versions of a model, to train a new one that fits old vectors.

    Row numbers are those of the pool ``torch.cat([new, old])``, 2 b rows with their labels twice:
    anchor, positive and negative come from either version, and a row's other version is a positive.
    Triplets of old rows alone, which train nothing, are left out. The loss is then
    ``triplet_loss(torch.cat([new, old.detach()]), triplets)``.

    Args:
        new: embeddings of the model that is trained.
        old: embeddings of the frozen one, of the same rows and width.
        labels: integers, one per row.
        margin: in units of the squared distance, > 0.
        unit: scale rows to length 1 first.

    Raises:
        ValueError: if shapes differ or ``margin`` is not > 0.
        TypeError: if embeddings are not floating or labels not integers.

    Source: Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition and Clustering,
    sec. 7 (the appendix on harmonic embeddings).
    Differs: the paper draws which versions meet and does not say how negatives are chosen; here
    they are semi-hard within the pool.
    """
    check_same_shape("Two versions of the same rows.", new=new, old=old)
    pool, rows = torch.cat([new, old.to(new.dtype)]), new.shape[0]
    found = semihard_triplets(pool, labels.repeat(2), margin, unit=unit)
    return found[(found < rows).any(dim=1)]


def random_triplets(
    labels: Int[Tensor, " b"], generator: torch.Generator | None = None
) -> Int[Tensor, "t 3"]:
    """For every anchor-positive pair one negative, each with the same chance: the baseline."""
    check_integer("labels", labels)
    check_ndim("labels", labels, "b")
    same = labels[:, None] == labels
    anchor, place = (same & ~_diagonal(same)).nonzero(as_tuple=True)
    ordered, order = labels.sort(stable=True)
    first = torch.searchsorted(ordered, labels)[anchor]
    count = torch.searchsorted(ordered, labels, right=True)[anchor] - first
    others = len(labels) - count
    anchor, place, first, count, others = (
        t[others > 0] for t in (anchor, place, first, count, others)
    )
    draw = torch.rand(len(anchor), generator=generator, device=labels.device, dtype=torch.float64)
    rank = (draw * others).long()
    rank = torch.where(rank >= first, rank + count, rank)  # step over the anchor's own class
    return torch.stack([anchor, place, order[rank]], dim=1)


def _scan(far: Tensor, row: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest entry of a row above each bound and its place; inf where there is none."""
    step = max(1, _ENTRIES // far.shape[1])
    parts = []
    for start in range(0, max(len(row), 1), step):
        block = slice(start, start + step)
        above = far[row[block]]
        parts.append(above.masked_fill_(above <= bound[block, None], torch.inf).min(dim=1))
    values, places = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(places)


def _search(far: Tensor, row: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The same by sorting each row once, for many bounds per row."""
    values, order = far.sort(dim=1, stable=True)
    low, high = torch.zeros_like(row), torch.full_like(row, values.shape[1])
    for _ in range(values.shape[1].bit_length()):  # of the first entry above: low <= it <= high
        middle = (low + high) // 2
        above = (middle == high) | (values[row, middle.clamp(max=values.shape[1] - 1)] > bound)
        low, high = torch.where(above, low, middle + 1), torch.where(above, middle, high)
    place = low.clamp(max=values.shape[1] - 1)
    found = torch.where(low < values.shape[1], values[row, place], torch.inf)
    return found, order[row, place]


def _diagonal(block: Tensor, start: int = 0) -> Tensor:
    own = torch.zeros_like(block)
    own.diagonal(start).fill_(True)
    return own


@torch.no_grad()
def _mine(
    choose: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]],
    embeddings: Tensor,
    labels: Tensor,
    unit: bool,
    reference: Tensor | None,
    reference_labels: Tensor | None,
) -> Tensor:
    """Run ``choose`` on blocks of anchors: distances, positives and negatives, (block, n)."""
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "b d")
    check_integer("labels", labels, "Labels say by equality who matches; number the classes.")
    check_rows("labels", labels, embeddings.shape[0], "One label per row.")
    own = reference is None
    if reference is None or reference_labels is None:
        if reference is not None or reference_labels is not None:
            raise ValueError("reference and reference_labels: expected both or neither, got one")
        reference, reference_labels = embeddings, labels
    check_ndim("reference", reference, "n d")
    check_last_dim("reference", reference, embeddings.shape[1], "One space for both.")
    check_rows("reference_labels", reference_labels, reference.shape[0], "One label per row.")
    wide = accumulation_dtype(torch.promote_types(embeddings.dtype, reference.dtype))
    x, y = embeddings.to(wide), reference.to(wide)
    if unit:
        x, y = normalize(x), normalize(y)
    squared, found = y.square().sum(dim=1), []
    step = max(1, _ENTRIES // max(len(y), 1))
    for start in range(0, len(x) if len(y) else 0, step):
        rows = slice(start, start + step)
        distance = block_distances(x[rows], y, squared)
        same = labels[rows, None] == reference_labels
        positive = same & ~_diagonal(same, start) if own else same
        anchor, place, negative = choose(distance, positive, ~same)
        found.append(torch.stack([anchor + start, place, negative], dim=1))
    return torch.cat(found) if found else labels.new_empty(0, 3, dtype=torch.long)
