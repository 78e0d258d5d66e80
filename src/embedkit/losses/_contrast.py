"""The one engine under every contrastive loss: potentials of a Gram matrix minus positive logits.

A row's loss at one width is  f_i - g_i,  with f_i the logsumexp (or sum of softplus) over the keys
that compete, and g_i the mean (or sum) over its positives. Both come from the blockwise operator of
:mod:`embedkit.ops.gram`: nothing of size q x k is stored.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from embedkit._checks import (
    check_choice,
    check_floating,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
    check_widths,
)
from embedkit.losses._matches import Ids, match_counts, resolve_ids
from embedkit.losses._reduce import Reduction, row_shares
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops.gram import Gram, gram_rows, gram_sum

SameId = Literal["positive", "ignore"]
Similarity = Literal["cosine", "dot"]


class Request(NamedTuple):
    """What one loss asks of the engine. ``owner`` is the name that errors speak with.

    form: "softmax" (positives stay in the denominator), "decoupled" (they don't) or "sigmoid".
    same_rows: query and key are the same rows, and no row is its own candidate.
    """

    owner: str
    temperature: float | Tensor
    form: Literal["softmax", "decoupled", "sigmoid"] = "softmax"
    bias: Tensor | None = None
    query_ids: Tensor | None = None
    key_ids: Tensor | None = None
    same_id: SameId = "positive"
    same_rows: bool = False
    negative: Tensor | None = None
    negative_mask: Tensor | None = None
    weight: Tensor | None = None
    symmetric: bool = False
    similarity: Similarity = "cosine"
    dims: Sequence[int] | None = None
    dim_weights: Sequence[float] | None = None
    reduction: Reduction = "mean"


def contrast(query: Tensor, key: Tensor, request: Request) -> Tensor:
    """The loss of ``request`` on embeddings (q, d) and (k, d): a scalar, or (q,) for "none"."""
    r = request
    dims = _check(query, key, r)
    ids = resolve_ids(r.query_ids, r.key_ids, query.shape[0], key.shape[0])
    own = ids is None or r.same_id == "ignore"
    if key.shape[0] < query.shape[0] and own:
        raise ValueError(
            f"key: expected at least {query.shape[0]} rows, one per query, got shape "
            f"{tuple(key.shape)}. Without ids row i matches key i."
        )
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    query, key = query.to(wide)[:, : dims[-1]], key.to(wide)[:, : dims[-1]]
    if isinstance(r.temperature, Tensor):
        scale = 1.0 / r.temperature.to(wide).reshape(())
    else:
        scale = query.new_full((), 1.0 / r.temperature)
    count = _positives(query.shape[0], key.shape[0], None if own else ids, r, query.device)
    extra, softplus_extra = _own_negatives(query, scale, dims, r)
    gram = Gram(
        query=query,
        key=key,
        widths=dims,
        scale=scale,
        extra=extra,
        bias=r.bias,
        query_ids=None if ids is None else ids.query,
        key_ids=None if ids is None else ids.key,
        row_positive=_positive_weight(count, r, wide),
        cosine=r.similarity == "cosine",
        own=own,
        same_rows=r.same_rows,
        decoupled=r.form == "decoupled",
        sigmoid=r.form == "sigmoid",
        bound=_bound(r),
    )
    width_weight = query.new_tensor(r.dim_weights or [1.0] * len(dims))[:, None]
    share = row_shares(_taking_part(r, count, ids, key.shape[0]), r.reduction, query)
    if r.weight is not None:
        share = share * r.weight.to(wide)

    if r.reduction == "none":
        rows = gram_rows(gram)
        if softplus_extra is not None:
            rows = rows + softplus_extra
        rows = (rows * width_weight).sum(dim=0) * share
        if r.symmetric:
            other = r._replace(symmetric=False, negative=None, negative_mask=None)
            if ids is not None:
                other = other._replace(query_ids=ids.key, key_ids=ids.query)
            rows = (rows + contrast(key, query, other)) / 2
        return rows

    row_weight, key_weight = width_weight * share, None
    if r.symmetric:
        row_weight = row_weight / 2
        swapped = None if ids is None else ids.swapped()
        key_count = _positives(
            key.shape[0], query.shape[0], None if own else swapped, r, query.device
        )
        key_part = _taking_part(r._replace(negative=None), key_count, swapped, query.shape[0])
        key_share = row_shares(key_part, r.reduction, query)
        if r.weight is not None:
            key_share = key_share * r.weight.to(wide)
        gram = gram._replace(key_positive=_positive_weight(key_count, r, wide))
        key_weight = width_weight * key_share / 2
    loss = gram_sum(gram, row_weight, key_weight)
    return loss if softplus_extra is None else loss + (row_weight * softplus_extra).sum()


def _check(query: Tensor, key: Tensor, r: Request) -> list[int]:
    check_floating("query", query)
    check_floating("key", key)
    check_ndim("query", query, "q d")
    check_ndim("key", key, "k d")
    width = query.shape[1]
    check_last_dim("key", key, width, "Queries and keys meet in one space: project one of them.")
    check_choice(r.owner, "similarity", r.similarity, ("cosine", "dot"))
    check_choice(r.owner, "same_id", r.same_id, ("positive", "ignore"))
    if not isinstance(r.temperature, Tensor):
        hint = "It divides the similarities; try 0.05 for cosine similarity."
        check_positive(r.owner, "temperature", r.temperature, hint)
    elif r.temperature.numel() != 1:
        raise ValueError(
            f"{r.owner}: temperature must be one number, got shape {tuple(r.temperature.shape)}"
        )
    rows = query.shape[0]
    if r.weight is not None and r.weight.shape != (rows,):
        raise ValueError(
            f"weight: expected shape ({rows},), one number >= 0 per query, "
            f"got {tuple(r.weight.shape)}"
        )
    if r.symmetric and key.shape[0] != rows and (r.weight is not None or r.reduction == "none"):
        raise ValueError(
            f"{r.owner}: symmetric with {rows} queries and {key.shape[0]} keys has no row-wise "
            'form: leave out weight and use reduction "mean" or "sum", or drop surplus keys.'
        )
    if r.negative is not None:
        check_ndim("negative", r.negative, "q h d")
        check_rows("negative", r.negative, rows, "Each query has its own negatives.")
        check_last_dim("negative", r.negative, width)
        if r.negative_mask is not None and r.negative_mask.shape != r.negative.shape[:2]:
            raise ValueError(
                f"negative_mask: expected shape {tuple(r.negative.shape[:2])}, "
                f"got {tuple(r.negative_mask.shape)}"
            )
    if r.dims is None:
        return [width]
    check_widths(r.owner, r.dims)
    if r.dims[-1] > width:
        raise ValueError(
            f"{r.owner}: dims go up to {r.dims[-1]}, but embeddings have width {width}"
        )
    if r.dim_weights is not None and len(r.dim_weights) != len(r.dims):
        raise ValueError(
            f"{r.owner}: expected {len(r.dims)} dim_weights, one per width, "
            f"got {len(r.dim_weights)}"
        )
    return list(r.dims)


def _own_negatives(
    query: Tensor, scale: Tensor, dims: list[int], r: Request
) -> tuple[Tensor | None, Tensor | None]:
    """Own hard negatives as a logit that joins each row: their logsumexp, or sum of softplus."""
    if r.negative is None or not r.negative.shape[1]:
        return None, None
    negative = r.negative.to(query.dtype)
    logits = []
    for dim in dims:
        left, right = query[:, None, :dim], negative[..., :dim]
        if r.similarity == "cosine":
            left, right = normalize(left), normalize(right)
        logits.append((left * right).sum(dim=-1) * scale)
    logit = torch.stack(logits)
    keep = r.negative_mask
    if keep is None:
        keep = torch.ones_like(logit[0], dtype=torch.bool)
    if r.form == "sigmoid":
        assert r.bias is not None
        value = softplus(logit + r.bias, threshold=40.0)
        return None, value.masked_fill(~keep, 0.0).sum(dim=-1)
    lowest = torch.finfo(logit.dtype).min
    return logit.masked_fill(~keep, lowest).logsumexp(dim=-1), None


def _positives(rows: int, keys: int, ids: Ids | None, r: Request, device: torch.device) -> Tensor:
    """The number of positives of each row."""
    if ids is None:
        return (torch.arange(rows, device=device) < keys).long()
    return match_counts(ids) - int(r.same_rows)


def _positive_weight(count: Tensor, r: Request, dtype: torch.dtype) -> Tensor:
    """The weight of one positive logit: their mean counts, or for the sigmoid form their sum."""
    part = (count > 0).to(dtype)
    return part if r.form == "sigmoid" else part / count.clamp(min=1)


def _bound(r: Request) -> float:
    """The largest possible logit, where it is known without looking at values."""
    if r.similarity == "cosine" and not isinstance(r.temperature, Tensor):
        return 1.0 / r.temperature
    return float("inf")


def _taking_part(r: Request, count: Tensor, ids: Ids | None, keys: int) -> Tensor:
    if r.form == "sigmoid":
        candidates = keys + (0 if r.negative is None else r.negative.shape[1])
        return torch.ones_like(count, dtype=torch.bool) if candidates else count > 0
    if r.form == "softmax":
        return count > 0
    same = count if ids is None else match_counts(ids)
    negatives = keys - same
    if r.negative is not None:
        negatives = negatives + r.negative.shape[1]
        if r.negative_mask is not None:
            negatives = keys - same + r.negative_mask.sum(dim=1)
    return (count > 0) & (negatives > 0)
