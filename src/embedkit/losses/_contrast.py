"""The one engine under every contrastive loss: potentials of a Gram matrix minus positive logits.

A row's loss at one width is  f_i - g_i,  with f_i the logsumexp (or sum of softplus) over the keys
that compete, and g_i the mean (or sum) over its positives. f comes from the blockwise operator of
:mod:`embedkit.ops.gram`; g costs one product per row, because the positives of one id can be summed
before they meet the query. Nothing of size q x k is stored.
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
from embedkit.losses._matches import Ids, match_counts, match_products, own_products, resolve_ids
from embedkit.losses._reduce import Reduction, row_shares
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops.gram import DROP, KEEP, Gram

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


class Vectors(NamedTuple):
    """Rows as the engine wants them: unit length at the full width, factors for the prefixes."""

    rows: Tensor
    factor: Tensor | None  # (w - 1, rows): 1 / length of each prefix


def contrast(query: Tensor, key: Tensor, request: Request) -> Tensor:
    """The loss of ``request`` on embeddings (q, d) and (k, d): a scalar, or (q,) for "none"."""
    r = request
    dims = _check(query, key, r)
    ids = resolve_ids(r.query_ids, r.key_ids, query.shape[0], key.shape[0])
    if key.shape[0] < query.shape[0] and (ids is None or r.same_id == "ignore"):
        raise ValueError(
            f"key: expected at least {query.shape[0]} rows, one per query, got shape "
            f"{tuple(key.shape)}. Without ids row i matches key i."
        )
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    left = _vectors(query.to(wide), dims, r.similarity)
    right = left if r.same_rows else _vectors(key.to(wide), dims, r.similarity)
    left = Vectors(left.rows / r.temperature, left.factor)

    extra, softplus_extra = _own_negatives(left, dims, r)
    own_only = ids is None or r.same_id == "ignore"
    apart = None if (own_only and ids is None) or _positives_compete(r) else ids
    gram = Gram(
        query=left.rows,
        key=right.rows,
        widths=dims,
        row_factor=left.factor,
        key_factor=right.factor,
        extra=extra,
        bias=r.bias,
        query_ids=None if apart is None else apart.query,
        key_ids=None if apart is None else apart.key,
        diagonal=_diagonal(r, ids),
        bound=_bound(r),
        sigmoid=r.form == "sigmoid",
    )
    positive, count = _positives(left, right, None if own_only else ids, dims, r)
    taking_part = _taking_part(r, count, ids, key.shape[0])
    scale = left.rows.new_tensor(r.dim_weights or [1.0] * len(dims))[:, None]
    share = row_shares(taking_part, r.reduction, left.rows)
    if r.weight is not None:
        share = share * r.weight.to(wide)

    if r.reduction == "none":
        rows = gram.rows() - positive
        if softplus_extra is not None:
            rows = rows + softplus_extra
        rows = (rows * scale).sum(dim=0) * share
        if r.symmetric:
            other = r._replace(symmetric=False, negative=None, negative_mask=None)
            if ids is not None:
                other = other._replace(query_ids=ids.key, key_ids=ids.query)
            rows = (rows + contrast(key, query, other)) / 2
        return rows

    row_weight = scale * share
    key_weight = None
    if r.symmetric:
        row_weight = row_weight / 2
        swapped = None if own_only or ids is None else ids.swapped()
        key_positive, key_count = _positives(right, left, swapped, dims, r)
        other = r._replace(negative=None)
        key_part = _taking_part(
            other, key_count, None if ids is None else ids.swapped(), query.shape[0]
        )
        key_share = row_shares(key_part, r.reduction, left.rows)
        if r.weight is not None:
            key_share = key_share * r.weight.to(wide)
        key_weight = scale * key_share / 2
    loss = gram.weighted_sum(row_weight, key_weight) - (row_weight * positive).sum()
    if key_weight is not None:
        loss = loss - (key_weight * key_positive).sum()
    if softplus_extra is not None:
        loss = loss + (row_weight * softplus_extra).sum()
    return loss


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


def _vectors(rows: Tensor, dims: list[int], similarity: Similarity) -> Vectors:
    rows = rows[..., : dims[-1]]
    if similarity == "dot":
        return Vectors(rows, None)
    rows = normalize(rows)
    if len(dims) == 1:
        return Vectors(rows, None)
    squares = rows.square()
    slices = [
        squares[..., a:b].sum(dim=-1) for a, b in zip([0, *dims[:-2]], dims[:-1], strict=True)
    ]
    squared = torch.stack(slices).cumsum(dim=0)
    short = squared < 1e-24
    return Vectors(rows, squared.masked_fill(short, 1.0).rsqrt().masked_fill(short, 0.0))


def _own_negatives(
    left: Vectors, dims: list[int], r: Request
) -> tuple[Tensor | None, Tensor | None]:
    """Own hard negatives as a logit that joins each row: their logsumexp, or sum of softplus."""
    if r.negative is None or not r.negative.shape[1]:
        return None, None
    vectors = _vectors(r.negative.to(left.rows.dtype), dims, r.similarity)
    product = left.rows[:, None] * vectors.rows
    slices = [product[..., a:b].sum(dim=-1) for a, b in zip([0, *dims[:-1]], dims, strict=True)]
    logits = list(torch.stack(slices).cumsum(dim=0))
    for index in range(len(dims) - 1):
        if left.factor is not None and vectors.factor is not None:
            logits[index] = logits[index] * left.factor[index, :, None] * vectors.factor[index]
    logit = torch.stack(logits)
    keep = (
        torch.ones_like(logit[0], dtype=torch.bool) if r.negative_mask is None else r.negative_mask
    )
    if r.form == "sigmoid":
        assert r.bias is not None
        value = softplus(logit + r.bias, threshold=40.0)
        return None, value.masked_fill(~keep, 0.0).sum(dim=-1)
    lowest = torch.finfo(logit.dtype).min
    return logit.masked_fill(~keep, lowest).logsumexp(dim=-1), None


def _positives(
    left: Vectors, right: Vectors, ids: Ids | None, dims: list[int], r: Request
) -> tuple[Tensor, Tensor]:
    """Mean (softmax forms) or sum (sigmoid) of each row's positive logits, and their number."""
    rows, keys = left.rows.shape[0], right.rows.shape[0]
    if ids is None:
        total = own_products(left.rows, right.rows, dims)
        count = (torch.arange(rows, device=left.rows.device) < keys).long()
        if left.factor is not None and right.factor is not None:
            pad = torch.nn.functional.pad(right.factor[:, :rows], (0, max(rows - keys, 0)))
            total = torch.cat([total[:-1] * left.factor * pad, total[-1:]])
    else:
        total = match_products(left.rows, right.rows, right.factor, ids, dims)
        count = match_counts(ids)
        if left.factor is not None:
            total = torch.cat([total[:-1] * left.factor, total[-1:]])
        if r.same_rows:
            own, _ = _positives(left, right, None, dims, r._replace(form="softmax"))
            total, count = total - own, count - 1
    if r.form == "sigmoid":
        assert r.bias is not None
        return total + r.bias * count, count
    return (total / count.clamp(min=1)).masked_fill(count == 0, 0.0), count


def _positives_compete(r: Request) -> bool:
    return r.same_id == "positive" and r.form != "decoupled"


def _diagonal(r: Request, ids: Ids | None) -> int:
    if r.same_rows:
        return DROP
    if r.form == "decoupled":
        return DROP if ids is None or r.same_id == "ignore" else 0
    return KEEP if ids is not None and r.same_id == "ignore" else 0


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
