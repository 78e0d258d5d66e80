"""Few-shot episodes: classify by the nearest class prototype, and shape the space for that.

Prototypes are class means, ``ek.ops.segment_mean(support, labels, num_ways)``. Vectors are taken as
they are; where you scale them to length 1, lower the margin.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype

_FLOOR = 1e-6  # added to squared distances: a square root has no slope at zero


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n, m) from exact differences, in float32 or wider."""
    wide = accumulation_dtype(torch.promote_types(x.dtype, y.dtype))
    return torch.cdist(x.to(wide), y.to(wide), compute_mode="donot_use_mm_for_euclid_dist")


def _check_pair(rows: Tensor, others: Tensor, name: str, other_name: str) -> None:
    check_floating(name, rows)
    check_floating(other_name, others)
    check_ndim(name, rows, "n d")
    check_ndim(other_name, others, "m d")
    check_last_dim(other_name, others, rows.shape[1], f"It meets {name} in one space.")


def _check_labels(name: str, labels: Tensor, rows: int) -> None:
    check_integer(name, labels, "Labels say by equality who matches; number the classes.")
    check_ndim(name, labels, "n")
    check_rows(name, labels, rows, "One label per row.")


def prototypical_logits(
    query: Float[Tensor, "q d"], prototypes: Float[Tensor, "c d"]
) -> Float[Tensor, "q c"]:
    """Class scores  -||query - prototype||^2  for ``F.cross_entropy``, in float32 or wider.

    Args:
        query: rows to classify.
        prototypes: one row per class, e.g. ``ek.ops.segment_mean(support, labels, num_ways)``.

    Raises:
        ValueError, TypeError: if widths differ or rows are not floating point.

    Source: Snell et al. 2017, Prototypical Networks for Few-shot Learning, eq. 2.
    """
    _check_pair(query, prototypes, "query", "prototypes")
    return -_distances(query, prototypes).square()


def proto_triplet_loss(
    query: Float[Tensor, "q d"],
    labels: Int[Tensor, " q"],
    prototypes: Float[Tensor, "c d"],
    *,
    margin: float = 0.5,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """Triplet loss whose positive and negative are prototypes: own class, nearest other class.

    Row loss:  max(0, D_iy - min_{c != y} D_ic + margin),  D = sqrt(||q_i - p_c||^2 + 1e-6), y the
    label of row i. The gradient reaches queries and, through prototypes, the support.

    Args:
        query: rows of any scale; distances are not squared.
        labels: the class of each query, 0 to c - 1: its row in ``prototypes``.
        prototypes: one row per class, at least two.
        margin: in units of the distance, >= 0.
        reduction: "mean" divides by the number of queries.

    Returns:
        A scalar, or (q,) for "none", in float32 or wider; 0 for an empty batch. Where it is 0 with
        a margin > 0, every query is nearest to its own prototype.

    Raises:
        ValueError, TypeError: if shapes, kinds or margin do not fit, or there is one prototype.
        IndexError: if a label names no prototype.

    Source: Mendez-Ruiz et al. 2023, SuSana Distancia is all you need, the Proto-Triplet loss.
    """
    _check_pair(query, prototypes, "query", "prototypes")
    _check_labels("labels", labels, query.shape[0])
    _check_margin("proto_triplet_loss", margin)
    if prototypes.shape[0] < 2:
        raise ValueError(
            f"prototypes: expected at least 2 classes, got {prototypes.shape[0]}. The negative is "
            "the nearest prototype of another class."
        )
    distance = (_distances(query, prototypes).square() + _FLOOR).sqrt()
    own = labels.long()[:, None]
    try:
        positive = distance.gather(1, own)[:, 0]
        negative = distance.scatter(1, own, torch.inf).amin(dim=1)
    except (IndexError, RuntimeError) as error:
        raise IndexError(
            f"labels: expected 0 to {prototypes.shape[0] - 1}, a row of prototypes each, got "
            f"{int(own.min())} to {int(own.max())}. Number the classes of an episode from 0, as "
            "ek.batch.split_episode does."
        ) from error
    row = (positive - negative + margin).relu()
    return reduce_rows(row, torch.ones_like(row, dtype=torch.bool), reduction)


def _check_margin(owner: str, margin: float) -> None:
    if not 0 <= margin < float("inf"):
        raise ValueError(
            f"{owner}: margin must be >= 0, got {margin}. It is in units of the distance; 0.5 "
            "suits vectors that are not scaled to length 1."
        )


class ProtoTripletLoss(nn.Module):
    """:func:`proto_triplet_loss` with its settings.

    >>> query, prototypes = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> ProtoTripletLoss(margin=2.0)(query, torch.tensor([0, 1]), prototypes)
    tensor(0.5868)
    """

    def __init__(self, margin: float = 0.5, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        _check_margin("ProtoTripletLoss", margin)
        check_choice("ProtoTripletLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.margin, self.reduction = margin, reduction

    def forward(self, query: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
        """The loss of queries (q, d) with labels (q,) against prototypes (c, d)."""
        return proto_triplet_loss(
            query, labels, prototypes, margin=self.margin, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"margin={self.margin:g}, reduction={self.reduction!r}"


class ICNNScore(NamedTuple):
    """How well neighbourhoods separate the classes: each part in [0, 1], larger is better."""

    score: Float[Tensor, ""]
    """((compactness + separation) / 2 + purity) / 2."""
    compactness: Float[Tensor, ""]
    """Near neighbours of the same class, against the nearest of another class; has a gradient."""
    separation: Float[Tensor, ""]
    """Far neighbours of other classes, against the farthest of them; has a gradient."""
    purity: Float[Tensor, ""]
    """Share of neighbours of the same class; a count, so without a gradient."""


def icnn_score(
    x: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    reference: Float[Tensor, "m d"] | None = None,
    reference_labels: Int[Tensor, " m"] | None = None,
    *,
    k: int = 4,
    radius: int | None = None,
) -> ICNNScore:
    """Inter- and intra-class nearest-neighbour score: a measure of class structure to train on.

    d is the distance sqrt(||x_i - r_j||^2 + 1e-6). Each row looks at its ``radius`` nearest
    neighbours for the distance u_i of the first one of another class, and counts on the k nearest:

    - compactness: 1 - mean over rows of the mean of d / u_i over neighbours of the same class, a
      row being divided by its largest ratio where that is above 1; without another class in the
      radius the ratio is 0, the best there is;
    - separation: mean over rows of the mean of d over neighbours of other classes, divided by the
      largest such distance of all rows; 1 where there is none;
    - purity: the share of neighbours of the same class.

    Args:
        x: rows of any scale. The score does not depend on it, nor on shifts and rotations.
        labels: integers; equal labels are one class.
        reference: rows to find neighbours among, e.g. the support or prototypes. None: the other
            rows of ``x``.
        reference_labels: their labels.
        k: neighbours that count. It is lowered so that, of all the neighbours there are, one is
            left over; then purity is 1 by definition. Above the size of a class - 1 purity
            cannot reach 1.
        radius: neighbours looked through for the nearest other class. None: k + 1.

    Returns:
        The score and its parts, 0-d in float32 or wider; all 1 where there are no neighbours.
        Of neighbours at equal distance those of the same class come first.

    Raises:
        ValueError, TypeError: if shapes, kinds or sizes do not fit, or one of reference and its
            labels is missing.

    Source: Mendez-Ruiz et al. 2023, SuSana Distancia is all you need, the ICNN loss as in
    the released code.
    Differs: with a reference every neighbour counts (the released code drops the nearest, meant
    for the row itself). Counts instead of small constants guard the divisions. The variance part,
    switched off in the released code, is left out.

    >>> x = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
    >>> icnn_score(x, torch.tensor([0, 0, 1, 1])).score
    tensor(0.8958)
    """
    alone = reference is None
    if reference is None or reference_labels is None:
        if reference is not None or reference_labels is not None:
            raise ValueError("reference and reference_labels: expected both or neither, got one")
        reference, reference_labels = x, labels
    _check_pair(x, reference, "x", "reference")
    _check_labels("labels", labels, x.shape[0])
    _check_labels("reference_labels", reference_labels, reference.shape[0])
    _check_neighbours("icnn_score", k, radius)
    there = max(reference.shape[0] - alone, 0)
    every = _distances(x, reference)
    if not there or not x.shape[0]:
        one = 1.0 + every.sum()
        return ICNNScore(one, one, one, one.detach())
    whole = k + 1 >= there
    k = max(min(k, there - 1), 1)
    radius = min(max(k + 1 if radius is None else radius, k), there)
    near = _nearest(every.detach(), labels[:, None] == reference_labels, alone)[:, :radius]
    distance = (every.gather(1, near).square() + _FLOOR).sqrt()
    same = labels[:, None] == reference_labels[near]
    bound = distance.masked_fill(same, torch.inf).amin(dim=1, keepdim=True)
    alien = ~same.all(dim=1, keepdim=True)
    distance, same = distance[:, :k], same[:, :k]

    ratio = torch.where(alien, distance / torch.where(alien, bound, 1.0), 0.0)
    ratio = ratio / ratio.amax(dim=1, keepdim=True).clamp(min=1.0)
    compactness = 1.0 - _mean_of_means(ratio, same)
    outside = distance.masked_fill(same, 0.0)
    farthest = outside.amax()
    share = outside / torch.where(farthest > 0, farthest, 1.0)
    separation = torch.where(same.all(), 1.0, _mean_of_means(share, ~same))
    purity = torch.ones_like(farthest) if whole else same.to(distance.dtype).mean()
    spoilt = 0.0 * (x.detach().sum(dtype=purity.dtype) + reference.detach().sum(dtype=purity.dtype))
    score = ((compactness + separation) / 2 + purity) / 2 + spoilt  # NaN does not get lost
    return ICNNScore(score, compactness, separation, purity.detach())


def _nearest(distance: Tensor, same: Tensor, alone: bool) -> Tensor:
    """Neighbours from near to far, of equal ones those of the same class first."""
    if alone:
        distance = distance.clone().fill_diagonal_(torch.inf)
    order = same.sort(dim=1, descending=True, stable=True).indices
    return order.gather(1, distance.gather(1, order).sort(dim=1, stable=True).indices)


def _mean_of_means(value: Tensor, mask: Tensor) -> Tensor:
    """The mean over rows with an entry of the mean over their entries; 0 without any."""
    count = mask.sum(dim=1)
    row = value.masked_fill(~mask, 0.0).sum(dim=1) / count.clamp(min=1)
    return row.sum() / (count > 0).sum().clamp(min=1)


def _check_neighbours(owner: str, k: int, radius: int | None) -> None:
    check_at_least(owner, "k", k, 1)
    if radius is not None:
        check_at_least(owner, "radius", radius, 1)


class ICNNLoss(nn.Module):
    """-log of :func:`icnn_score`: classes grow compact and apart where neighbourhoods mix.

    An addition to a classification loss: alone and from scratch it learns slowly. The paper's modes
    are what is passed: a whole episode (``radius`` = its rows per class), its support alone, or its
    queries with the support or the prototypes as reference.

    >>> x = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
    >>> ICNNLoss()(x, torch.tensor([0, 0, 1, 1]))
    tensor(0.1100)
    """

    def __init__(self, k: int = 4, radius: int | None = None) -> None:
        super().__init__()
        _check_neighbours("ICNNLoss", k, radius)
        self.k, self.radius = k, radius

    def forward(
        self,
        x: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of rows (n, d) with labels (n,); arguments as in :func:`icnn_score`."""
        found = icnn_score(x, labels, reference, reference_labels, k=self.k, radius=self.radius)
        return -found.score.clamp(min=1e-12).log()
