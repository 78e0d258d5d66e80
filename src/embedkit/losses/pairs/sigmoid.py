"""Sigmoid contrastive loss: every pair is a yes-or-no question of its own."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_choice, check_positive
from embedkit.losses._reduce import Reduction
from embedkit.losses.pairs._contrast import contrast
from embedkit.losses.pairs._request import Gather, Request, SameId


def sigmoid_contrastive(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    query_ids: Int[Tensor, " q"] | None = None,
    key_ids: Int[Tensor, " k"] | None = None,
    same_id: SameId = "positive",
    weight: Float[Tensor, " q"] | None = None,
    dims: Sequence[int] | None = None,
    dim_weights: Sequence[float] | None = None,
    gather: Gather = False,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """Binary cross-entropy of all pairs: match or no match.

    Row loss:  sum_j softplus(u_ij) - sum over positives p of u_ip,  u = cosine / t + b.
    Symmetric in queries and keys; no normaliser couples the pairs. Memory and time as in
    :func:`info_nce`.

    Args:
        query: vectors of any length.
        key: vectors of the same width; row i matches key i unless ids say otherwise.
        temperature: > 0, a number or a 0-d tensor; the paper starts at 1 / 10.
        bias: a number or a 0-d tensor; the paper starts at -10, for mostly negative pairs.
        query_ids: integers; equal ids match.
        key_ids: integers.
        same_id: "positive", or "ignore": equal ids other than row i's own key are left out.
        weight: importance of each query, >= 0.
        dims: prefix widths whose losses are summed; see :func:`info_nce`.
        dim_weights: factor of each width; None: 1.
        gather: True or a process group: rows of all its ranks are candidates; see :func:`info_nce`.
        reduction: "mean" divides by the number of queries, not of pairs, as in the paper.

    Returns:
        A scalar, or (q,) for "none"; 0 where there is no key. Queries without a positive take part.

    Raises:
        ValueError: if shapes do not fit or ``temperature`` is not > 0.
        TypeError: if vectors are not floating or ids not integers.

    Source: Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training, sec. 3.2.
    """
    if not isinstance(bias, Tensor):
        wide = torch.promote_types(query.dtype, torch.float32)
        bias = torch.full((), bias, dtype=wide, device=query.device)
    return contrast(
        query,
        key,
        Request(
            "sigmoid_contrastive",
            temperature,
            form="sigmoid",
            bias=bias,
            query_ids=query_ids,
            key_ids=key_ids,
            same_id=same_id,
            weight=weight,
            dims=dims,
            dim_weights=dim_weights,
            gather=gather,
            reduction=reduction,
        ),
    )


class SigmoidContrastiveLoss(nn.Module):
    """:func:`sigmoid_contrastive` whose temperature and bias are trained, as in SigLIP.

    Args:
        temperature: its value at the start, > 0; trained as ``log_scale`` = -log temperature.
        bias: its value at the start.
        same_id: "positive" or "ignore".
        gather: rows of all ranks are candidates; True, or a process group.
        reduction: "mean", "sum" or "none".

    >>> SigmoidContrastiveLoss()(torch.eye(2), torch.eye(2))
    tensor(0.6932, grad_fn=...)
    """

    fuses_widths = True

    def __init__(
        self,
        temperature: float = 0.1,
        bias: float = -10.0,
        *,
        same_id: SameId = "positive",
        gather: Gather = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive(
            "SigmoidContrastiveLoss", "temperature", temperature, "SigLIP starts at 0.1."
        )
        check_choice("SigmoidContrastiveLoss", "same_id", same_id, ("positive", "ignore"))
        check_choice("SigmoidContrastiveLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.start = (-math.log(temperature), bias)
        self.same_id, self.gather, self.reduction = same_id, gather, reduction
        self.log_scale = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to the values at the start."""
        nn.init.constant_(self.log_scale, self.start[0])
        nn.init.constant_(self.bias, self.start[1])

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
        return sigmoid_contrastive(
            query,
            key,
            temperature=(-self.log_scale).exp(),
            bias=self.bias,
            query_ids=query_ids,
            key_ids=key_ids,
            same_id=self.same_id,
            weight=weight,
            dims=dims,
            dim_weights=dim_weights,
            gather=self.gather,
            reduction=self.reduction,
        )
