"""Decoupled contrastive loss: InfoNCE whose denominator leaves the positives out."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_choice
from embedkit.losses._reduce import Reduction
from embedkit.losses.pairs._contrast import contrast
from embedkit.losses.pairs._request import Gather, Request
from embedkit.losses.temperature import check_temperature, current


def decoupled_contrastive(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    *,
    temperature: float | Tensor = 0.1,
    query_ids: Int[Tensor, " q"] | None = None,
    key_ids: Int[Tensor, " k"] | None = None,
    weight: Float[Tensor, " q"] | None = None,
    dims: Sequence[int] | None = None,
    dim_weights: Sequence[float] | None = None,
    gather: Gather = False,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """Pull positives, push negatives, with no factor that vanishes when the positive is close.

    Row loss: mean over positives p of  logsumexp_{j not positive}(s_ij / t) - s_ip / t,  cosine
    similarity; unbounded below. Positives, ids, memory and time as in :func:`info_nce`.

    Args:
        query: vectors of any length.
        key: vectors of the same width; row i matches key i unless ids say otherwise.
        temperature: > 0, a number or a 0-d tensor.
        query_ids: integers; equal ids match, and never repel.
        key_ids: integers.
        weight: importance of each query, >= 0.
        dims: prefix widths whose losses are summed; see :func:`info_nce`.
        dim_weights: factor of each width; None: 1.
        gather: True or a process group: rows of all its ranks are candidates; see :func:`info_nce`.
        reduction: "mean" divides by the queries that have a positive and a negative.

    Returns:
        A scalar, or (q,) for "none". A query without a positive or without a negative gives 0.

    Raises:
        ValueError: if shapes do not fit or ``temperature`` is not > 0.
        TypeError: if vectors are not floating or ids not integers.

    Source: Yeh et al. 2022, Decoupled Contrastive Learning, eq. 6 (L_DC).
    Differs: one direction; the von Mises-Fisher weight of L_DCW can be passed as ``weight`` only
    where it shall scale the whole row.
    """
    return contrast(
        query,
        key,
        Request(
            "decoupled_contrastive",
            temperature,
            form="decoupled",
            query_ids=query_ids,
            key_ids=key_ids,
            weight=weight,
            dims=dims,
            dim_weights=dim_weights,
            gather=gather,
            reduction=reduction,
        ),
    )


class DecoupledContrastiveLoss(nn.Module):
    """:func:`decoupled_contrastive` with its settings.

    Args:
        temperature: a number > 0, or a Module that gives it (:class:`LearnableTemperature`).
        gather: rows of all ranks are candidates; True, or a process group.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> DecoupledContrastiveLoss(temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(-0.3069)
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
        check_temperature("DecoupledContrastiveLoss", temperature, "0.1")
        check_choice("DecoupledContrastiveLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.temperature, self.gather, self.reduction = temperature, gather, reduction

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        *,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
        dims: Sequence[int] | None = None,
        dim_weights: Sequence[float] | None = None,
    ) -> Tensor:
        """The loss of queries (q, d) against keys (k, d)."""
        return decoupled_contrastive(
            query,
            key,
            temperature=current(self.temperature),
            query_ids=query_ids,
            key_ids=key_ids,
            weight=weight,
            dims=dims,
            dim_weights=dim_weights,
            gather=self.gather,
            reduction=self.reduction,
        )
