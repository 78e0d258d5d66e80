"""Contrast rows with the centres of their clusters, each as spread out as it is: ProtoNCE."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
)
from embedkit.losses._reduce import Reduction
from embedkit.losses._targets import IGNORED, explained_classes
from embedkit.losses.classes.frozen_prototypes import prototype_cross_entropy
from embedkit.ops import accumulation_dtype, normalize

_LEAST = 1e-6  # a concentration divides


@torch.no_grad()
def cluster_concentration(
    embeddings: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    centroids: Float[Tensor, "k d"],
    *,
    temperature: float = 0.5,
    alpha: float = 5.0,
    clip: float = 0.1,
) -> Float[Tensor, " k"]:
    """How spread out each cluster is:  phi_c = mean_(j in c) |x_j - mu_c| / log(n_c + alpha).

    The values are then brought into the range of their quantiles ``clip`` to 1 - ``clip`` and
    scaled to a mean of ``temperature``: a temperature of its own for each cluster, small for tight
    and for large ones. A cluster with fewer than two rows has no spread; it gets the largest.

    Args:
        embeddings: rows, as they were clustered.
        labels: the cluster of each row, 0 to k - 1.
        centroids: of the clusters, in the same space.
        temperature: mean of the result, > 0.
        alpha: > 1, lessens the differences between small clusters; 10 in PCL, 5 in MEOW's code.
        clip: 0 to 0.5; 0 leaves extremes alone.

    Returns:
        (k,) positive numbers in float32 or wider, without a gradient; ``temperature`` for all where
        no cluster has two rows.

    Raises:
        ValueError: if shapes do not fit, a label is out of range, or a setting is.
        TypeError: if vectors are not floating or labels not integers.

    Source: Li et al. 2021, Prototypical Contrastive Learning of Unsupervised Representations,
    eq. 12, with the clipping of the released code.
    Differs: MEOW's released code averages roots of similarities in place of distances, which turns
    the meaning round.

    >>> points = torch.tensor([[0.0, 0], [1, 0], [0, 2], [5, 5], [5, 6]])
    >>> centres = torch.tensor([[1 / 3, 2 / 3], [5, 5.5]])
    >>> cluster_concentration(points, torch.tensor([0, 0, 0, 1, 1]), centres, clip=0.0)
    tensor([0.6564, 0.3436])
    """
    owner = "cluster_concentration"
    _check(owner, "embeddings", embeddings, "centroids", centroids, labels)
    check_positive(owner, "temperature", temperature, "It is the mean of the result; try 0.5.")
    if not alpha > 1:
        raise ValueError(f"{owner}: alpha must be > 1, got {alpha:g}; log(n + alpha) divides.")
    if not 0 <= clip <= 0.5:
        raise ValueError(f"{owner}: clip must be in [0, 0.5], got {clip:g}. It is a quantile.")
    wide = accumulation_dtype(torch.promote_types(embeddings.dtype, centroids.dtype))
    rows, centres, labels = embeddings.to(wide), centroids.to(wide), labels.long()
    count = len(centres)
    with explained_classes(owner, "labels", labels, count, ignored=False):
        distance = torch.linalg.vector_norm(rows - centres.index_select(0, labels), dim=1)
    size = rows.new_zeros(count).index_add(0, labels, torch.ones_like(distance))
    total = rows.new_zeros(count).index_add(0, labels, distance)
    spread = total / size.clamp(min=1) / (size + alpha).log()
    if not count:
        return spread
    several = size > 1
    highest = torch.where(several, spread, 0.0).amax()
    spread = torch.where(several, spread, torch.where(several.any(), highest, 1.0))
    low, high = torch.quantile(spread, torch.tensor([clip, 1 - clip]).to(spread))
    spread = spread.clamp(low, high).clamp(min=_LEAST)
    return spread * (temperature / spread.mean())


def proto_nce(
    embeddings: Float[Tensor, "n d"],
    prototypes: Float[Tensor, "k d"],
    labels: Int[Tensor, " n"],
    concentration: Float[Tensor, " k"] | float,
    *,
    weight: Float[Tensor, " n"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*n"]:
    """Cross-entropy of finding a row's cluster among all, by cosine, each with its concentration.

    Row loss:  log sum_c exp(s_ic / phi_c) - s_iy / phi_y,  y the cluster of row i.

    Every prototype divides by its own concentration, which keeps loose clusters from drawing
    everything near. Prototypes and concentrations are constants: whatever made them gets no
    gradient. Memory is linear in n and k. Average the losses of several clusterings.

    Args:
        embeddings: rows of any length.
        prototypes: centres of the clusters, of any length.
        labels: the cluster of each row, 0 to k - 1; -100 leaves the row out.
        concentration: > 0, of :func:`cluster_concentration`, or one number for all. On a GPU, and
            compiled, what is below 1e-6 counts as that: looking at it would wait for the device.
        weight: importance of each row, >= 0.
        reduction: "mean" divides by the rows that have a cluster, "sum" or "none".

    Returns:
        A scalar, or (n,) for "none", in float32 or wider. Rows left out and empty batches give 0.

    Raises:
        ValueError: if shapes do not fit, there is no prototype, a number is not > 0, or a label is
            out of range.
        TypeError: if vectors are not floating or labels not integers.

    Source: Li et al. 2021, Prototypical Contrastive Learning of Unsupervised Representations,
    eq. 11, the part with prototypes; Yu et al. 2022, MEOW.
    Differs: all clusters are negatives, as in MEOW; PCL draws some. The part with instances is
    :func:`embedkit.losses.info_nce`.

    >>> rows = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> centres, spread = torch.tensor([[1.0, 0.2], [0.0, 1.0]]), torch.tensor([0.4, 0.6])
    >>> proto_nce(rows, centres, torch.tensor([0, 0, 1]), spread)
    tensor(0.2307)
    """
    _check("proto_nce", "embeddings", embeddings, "prototypes", prototypes, labels)
    wide = accumulation_dtype(torch.promote_types(embeddings.dtype, prototypes.dtype))
    centres = normalize(prototypes.detach().to(wide))
    if isinstance(concentration, Tensor):
        check_floating("concentration", concentration)
        check_ndim("concentration", concentration, "k")
        check_rows("concentration", concentration, len(prototypes), "One number per prototype.")
        _check_above_zero(concentration)
        centres = centres / concentration.detach().to(wide).clamp(min=_LEAST)[:, None]
    else:
        check_positive("proto_nce", "concentration", concentration, "It divides cosines; try 0.5.")
        centres = centres / concentration
    rows = normalize(embeddings.to(wide))
    with explained_classes(
        "proto_nce", "labels", labels.masked_fill(labels == IGNORED, 0), len(prototypes)
    ):
        return prototype_cross_entropy(rows, centres, labels, weight=weight, reduction=reduction)


def _check_above_zero(concentration: Tensor) -> None:
    """Raise where a number is not, if looking at it waits for no other device."""
    if concentration.device.type == "cpu" and not torch.compiler.is_compiling():
        bad = concentration <= 0  # a NaN shows in the loss
        if bad.any():
            first = int(bad.nonzero()[0])
            raise ValueError(
                f"proto_nce: every concentration must be > 0, got {int(bad.sum())} that are not, "
                f"first {float(concentration[first]):g} of prototype {first}. They divide cosines: "
                "take cluster_concentration's."
            )


class ProtoNCELoss(nn.Module):
    """:func:`proto_nce`; clusters come with the call, since they change as training goes on.

    Args:
        reduction: "mean", "sum" or "none".

    >>> rows, centres = torch.eye(3), torch.eye(3)
    >>> ProtoNCELoss()(rows, centres, torch.arange(3), 0.5)
    tensor(0.2395)
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("ProtoNCELoss", "reduction", reduction, ("mean", "sum", "none"))
        self.reduction = reduction

    def forward(
        self,
        embeddings: Tensor,
        prototypes: Tensor,
        labels: Tensor,
        concentration: Tensor | float,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of rows (n, d) that belong to the clusters ``labels`` of (k, d) prototypes."""
        return proto_nce(
            embeddings, prototypes, labels, concentration, weight=weight, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"reduction={self.reduction!r}"


def _check(
    owner: str, name: str, rows: Tensor, other: str, centres: Tensor, labels: Tensor
) -> None:
    check_floating(name, rows)
    check_ndim(name, rows, "n d")
    check_floating(other, centres)
    check_ndim(other, centres, "k d")
    check_last_dim(other, centres, rows.shape[1], f"As wide as {name}.")
    check_integer("labels", labels, "Number the clusters from 0.")
    check_ndim("labels", labels, "n")
    check_rows("labels", labels, rows.shape[0], f"{owner}: one cluster per row.")
