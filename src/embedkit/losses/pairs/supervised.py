"""Supervised contrastive loss: rows of one label attract each other."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_choice
from embedkit.losses._reduce import Reduction
from embedkit.losses.pairs._contrast import contrast
from embedkit.losses.pairs._request import Gather, Request
from embedkit.losses.temperature import check_temperature, current


def sup_con(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    temperature: float | Tensor = 0.1,
    weight: Float[Tensor, " b"] | None = None,
    dims: Sequence[int] | None = None,
    dim_weights: Sequence[float] | None = None,
    memory: Float[Tensor, "m d"] | None = None,
    memory_labels: Int[Tensor, " m"] | None = None,
    gather: Gather = False,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Cross-entropy of finding the rows with a row's own label among all other rows.

    Row loss: mean over p != i of equal label of  logsumexp_{j != i}(s_ij / t) - s_ip / t,  with
    cosine similarity. Two augmented views stacked, with the image's number as label, give
    SimCLR's NT-Xent. Time and memory as in :func:`info_nce`: linear memory, no b x b tensor.

    Args:
        embeddings: vectors of any length; a zero vector has similarity 0 and gets no gradient.
        labels: integers, one per row.
        temperature: > 0, a number or a 0-d tensor.
        weight: importance of each row as anchor, >= 0.
        dims: prefix widths whose losses are summed; see :func:`info_nce`.
        dim_weights: factor of each width; None: 1.
        memory: further candidates that are no anchors, e.g. rows of
            :class:`embedkit.batch.CrossBatchMemory`, the same on every rank.
        memory_labels: their labels.
        gather: True or a process group: rows of all its ranks are candidates; see :func:`info_nce`.
        reduction: "mean" divides by the rows whose label appears again.

    Returns:
        A scalar, or (b,) for "none". A row without a partner gives 0, an empty batch too.

    Raises:
        ValueError: if there is not one label per row, or ``temperature`` is not > 0.
        TypeError: if vectors are not floating or labels not integers.

    Source: Khosla et al. 2020, Supervised Contrastive Learning, eq. 2 (L_out); Chen et al. 2020,
    A Simple Framework for Contrastive Learning of Visual Representations, eq. 1 (two views).
    """
    return contrast(
        embeddings,
        embeddings,
        Request(
            "sup_con",
            temperature,
            query_ids=labels,
            key_ids=labels,
            same_rows=True,
            weight=weight,
            dims=dims,
            dim_weights=dim_weights,
            memory=memory,
            memory_ids=memory_labels,
            gather=gather,
            reduction=reduction,
        ),
    )


class SupConLoss(nn.Module):
    """:func:`sup_con` with its settings.

    Args:
        temperature: a number > 0, or a Module that gives it (:class:`LearnableTemperature`).
        gather: rows of all ranks are candidates; True, or a process group.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> SupConLoss(temperature=0.5)(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    tensor(1.0986)
    """

    fuses_widths = True

    def __init__(
        self,
        temperature: float | nn.Module = 0.1,
        *,
        gather: Gather = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_temperature("SupConLoss", temperature, "0.1")
        check_choice("SupConLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.temperature, self.gather, self.reduction = temperature, gather, reduction

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        weight: Tensor | None = None,
        dims: Sequence[int] | None = None,
        dim_weights: Sequence[float] | None = None,
        memory: Tensor | None = None,
        memory_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings (b, d) with labels (b,); arguments as in :func:`sup_con`."""
        return sup_con(
            embeddings,
            labels,
            temperature=current(self.temperature),
            weight=weight,
            dims=dims,
            dim_weights=dim_weights,
            memory=memory,
            memory_labels=memory_labels,
            gather=self.gather,
            reduction=self.reduction,
        )
