"""The one engine under every contrastive loss: potentials of a Gram matrix minus positive logits.

A row's loss at one width is  f_i - g_i,  with f_i the logsumexp (or sum of softplus) over the keys
that compete, and g_i the mean (or sum) over its positives. Both come from the blockwise operator of
:mod:`embedkit.ops.gram`: nothing of size q x k is stored.

With ranks, each takes its own rows against the keys of all. Its share of the sum and the number of
rows are added over ranks, so every rank returns the same global mean.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from embedkit.losses._matches import Ids, match_counts
from embedkit.losses._reduce import row_shares
from embedkit.losses.pairs._request import Checked, Request, check_request, remembered
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops._exchange import Ranks, find_ranks, withdraw
from embedkit.ops.collectives import gather_with_ids, mean_gradient, sum_over_ranks
from embedkit.ops.gram import Gram, gram_rows, gram_sum


def contrast(query: Tensor, key: Tensor, request: Request) -> Tensor:
    """The loss of ``request`` on embeddings (q, d) and (k, d): a scalar, or (q,) for "none"."""
    r = request
    if r.gather is False:
        dims, ids, own = check_request(query, key, r)
        key, ids = remembered(key, ids, r)
        return _local(query, key, Checked(dims, ids, own), r)
    ranks = find_ranks(r.owner, r.gather)
    try:
        checked = check_request(query, key, r)
    except (TypeError, ValueError) as error:
        withdraw(ranks, query.device, error)
        raise
    return _gathered(query, key, checked, r, ranks)


def _gathered(query: Tensor, key: Tensor, checked: Checked, r: Request, ranks: Ranks) -> Tensor:
    """This rank's rows against the keys of all ranks; its own keys come first."""
    dims, ids, own = checked
    local = r._replace(gather=False, symmetric=False)
    if isinstance(r.temperature, Tensor):
        local = local._replace(temperature=mean_gradient(r.temperature, ranks))
    if r.bias is not None:
        local = local._replace(bias=mean_gradient(r.bias, ranks))

    def direction(rows: Tensor, others: Tensor, pair: Ids | None, r: Request) -> Tensor:
        wide = accumulation_dtype(others.dtype)
        others, other_ids = gather_with_ids(
            others.to(wide), None if pair is None else pair.key, ranks, own_first=True
        )
        if pair is not None and other_ids is not None:
            pair = Ids(pair.query, other_ids)
        others, pair = remembered(others, pair, r)
        if r.reduction != "mean":
            part = _local(rows, others, Checked(dims, pair, own), r)
            return part if r.reduction == "none" else sum_over_ranks(part, ranks)
        count = _taking_part(r, _counts(rows, others, pair, own, r), pair, others.shape[0]).sum()
        part = _local(rows, others, Checked(dims, pair, own), r._replace(reduction="sum"))
        total = sum_over_ranks(torch.stack([part, count.to(part.dtype)]), ranks)
        return total[0] / total[1].clamp(min=1)

    loss = direction(query, key, ids, local)
    if not r.symmetric:
        return loss
    if own:  # surplus keys are nobody's query
        key = key[: query.shape[0]]
        ids = None if ids is None else Ids(ids.query, ids.key[: query.shape[0]])
    local = local._replace(negative=None, negative_mask=None)
    other = direction(key, query, None if ids is None else ids.swapped(), local)
    return (loss + other) / 2


def _local(query: Tensor, key: Tensor, checked: Checked, r: Request) -> Tensor:
    """The loss where all keys are at hand."""
    dims, ids, own = checked
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    query, key = query.to(wide)[:, : dims[-1]], key.to(wide)[:, : dims[-1]]
    if isinstance(r.temperature, Tensor):
        scale = 1.0 / r.temperature.to(wide).reshape(())
    else:
        scale = query.new_full((), 1.0 / r.temperature)
    count = _counts(query, key, ids, own, r)
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
            swapped = None if ids is None else ids.swapped()
            rows = (rows + _local(key, query, Checked(dims, swapped, own), other)) / 2
        return rows

    row_weight, key_weight = width_weight * share, None
    if r.symmetric:
        row_weight = row_weight / 2
        swapped = None if ids is None else ids.swapped()
        key_count = _counts(key, query, swapped, own, r)
        key_part = _taking_part(r._replace(negative=None), key_count, swapped, query.shape[0])
        key_share = row_shares(key_part, r.reduction, query)
        if r.weight is not None:
            key_share = key_share * r.weight.to(wide)
        gram = gram._replace(key_positive=_positive_weight(key_count, r, wide))
        key_weight = width_weight * key_share / 2
    loss = gram_sum(gram, row_weight, key_weight)
    return loss if softplus_extra is None else loss + (row_weight * softplus_extra).sum()


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


def _counts(query: Tensor, key: Tensor, ids: Ids | None, own: bool, r: Request) -> Tensor:
    """The number of positives of each row."""
    if own or ids is None:
        return (torch.arange(query.shape[0], device=query.device) < key.shape[0]).long()
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
