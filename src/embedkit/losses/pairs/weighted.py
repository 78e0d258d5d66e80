"""InfoNCE whose negatives count as much as a function of the pair says: MEOW, AdaMEOW."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from embedkit._checks import (
    check_choice,
    check_floating,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
    check_same_shape,
    check_tensor,
    check_weight,
)
from embedkit.losses._matches import match_counts, resolve_ids
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses._row_blocks import map_row_blocks
from embedkit.losses.temperature import check_temperature, current
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops._precision import full_precision

PairWeight = Callable[[Tensor, Tensor], Tensor]
_ENTRIES = 2**20  # of a block: a learned weight builds several matrices of that size
_HINT = "It divides the similarities; try 0.5 for cosine similarity."


def weighted_info_nce(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    pair_weight: PairWeight,
    *,
    temperature: float | Tensor = 0.5,
    query_features: Shaped[Tensor, "q *f"] | None = None,
    key_features: Shaped[Tensor, "k *f"] | None = None,
    query_ids: Int[Tensor, " q"] | None = None,
    key_ids: Int[Tensor, " k"] | None = None,
    weight: Float[Tensor, " q"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """Cross-entropy against keys that count with a weight, given or learned, of each pair.

    Row loss: mean over positives p of  log sum_j w_ij exp(s_ij / t) - s_ip / t,  s the cosine. The
    weights of a block of queries against all keys are made when the block is computed, and again
    in backward: memory is linear in q and k. Every key counts as its weight says, positives, too:
    weight 0 for them is the decoupled loss, weight 1 everywhere InfoNCE.

    MEOW's hard weights, from clusterings ``clusters`` (c, n) of the rows: ``pair_weight=lambda
    a, b: cluster_weights(a.T, b.T)`` with ``query_features=key_features=clusters.T``. AdaMEOW's
    learned weights: ``pair_weight`` is a :class:`embedkit.mining.SoftNegativeWeight`.

    Args:
        query: vectors of any length; a zero vector has cosine 0 to all and gets no gradient.
        key: vectors of the same width; row i matches key i unless ids say otherwise.
        pair_weight: called with the features of a block of queries (r, ...) and of all keys
            (k, ...), gives weights of shape (r, k), where below 0 is 0; gradients flow through
            them. It must depend on its arguments alone: backward calls it once more. What it
            learns belongs into a Module: a function that closes over parameters takes more memory.
        temperature: > 0, a number or a 0-d tensor.
        query_features: what ``pair_weight`` sees of the queries; None: the queries as they are.
        key_features: what it sees of the keys; None: the keys as they are.
        query_ids: integers; equal ids match.
        key_ids: integers.
        weight: importance of each query, >= 0.
        reduction: "mean" divides by the queries that have a positive and a weight above 0.

    Returns:
        A scalar, or (q,) for "none", in float32 or wider; it can be negative. Other queries and
        empty batches give 0.

    Raises:
        ValueError: if shapes do not fit or ``temperature`` is not > 0.
        TypeError: if vectors are not floating or ids not integers.

    Source: Yu et al. 2022, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples (MEOW, AdaMEOW).
    Differs: several positives per row; rows without any weight are left out where the authors'
    code gives infinity.
    """
    check_floating("query", query)
    check_floating("key", key)
    check_ndim("query", query, "q d")
    check_ndim("key", key, "k d")
    check_last_dim("key", key, query.shape[1], "Queries and keys meet in one space.")
    _check_temperature(temperature)
    check_weight(weight, query.shape[0], "query")
    count, keys = query.shape[0], key.shape[0]
    ids = resolve_ids(query_ids, key_ids, count, keys)
    if ids is None and keys < count:
        raise ValueError(
            f"key: expected at least {count} rows, one per query, got shape {tuple(key.shape)}. "
            "Without ids row i matches key i."
        )
    query_features = query if query_features is None else query_features
    key_features = key if key_features is None else key_features
    check_rows("query_features", query_features, count, "Row i describes query i.")
    check_rows("key_features", key_features, keys, "Row j describes key j.")
    if not callable(pair_weight):
        raise TypeError(
            f"pair_weight: expected a function of two blocks, got {type(pair_weight).__name__}. A "
            "matrix goes into weighted_info_nce_from_similarity."
        )
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    query, key = normalize(query.to(wide)), normalize(key.to(wide))
    index = torch.arange(keys, device=key.device)
    own, other = (index[:count], index) if ids is None else (ids.query, ids.key)

    learned = dict(pair_weight.named_parameters()) if isinstance(pair_weight, nn.Module) else {}
    divisor = torch.as_tensor(temperature, dtype=wide, device=query.device)

    def weigh(features: Tensor, others: Tensor, parameters: Sequence[Tensor]) -> Any:
        if isinstance(pair_weight, nn.Module):
            named = dict(zip(learned, parameters, strict=True))
            return functional_call(pair_weight, named, (features, others))
        return pair_weight(features, others)

    def block(
        rows: Tensor,
        features: Tensor,
        own_ids: Tensor,
        keys_: Tensor,
        others: Tensor,
        divisor: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        pair = weigh(features, others, parameters)
        check_tensor("what pair_weight gave", pair)
        if pair.shape != (rows.shape[0], keys):
            raise ValueError(
                f"pair_weight: expected to give shape ({rows.shape[0]}, {keys}), one weight per "
                f"query of the block and key, got {tuple(pair.shape)}"
            )
        with full_precision(rows):
            logits = rows @ keys_.mT / divisor
        return _row_losses(logits, own_ids[:, None] == other, pair.to(wide))

    if count == 0 or keys == 0:
        rows = ((query.sum() + key.sum()) * 0.0).expand(count, 2)
    else:
        rows = map_row_blocks(
            block,
            (query, query_features, own),
            (key, key_features, divisor, *learned.values()),
            columns=keys,
            entries=_ENTRIES,
        )
    some = torch.ones_like(own) if ids is None else match_counts(ids)
    return _reduce(rows, some > 0, weight, reduction)


def weighted_info_nce_from_similarity(
    similarity: Float[Tensor, "q k"],
    positive: Bool[Tensor, "q k"],
    pair_weight: Float[Tensor, "q k"],
    *,
    temperature: float | Tensor,
    weight: Float[Tensor, " q"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """:func:`weighted_info_nce` on a similarity matrix and weights of your own.

    Row loss: mean over positives p of  log sum_j w_ij exp(s_ij / t) - s_ip / t. The decoupled loss
    of a matrix is ``pair_weight=(~positive).float()``.

    Args:
        similarity: larger is closer; minus the distance for a metric space.
        positive: True at every key that matches the query.
        pair_weight: of every key, positives as well; gradients flow through it. Below 0 is 0.
        temperature: > 0, in units of ``similarity``.
        weight: importance of each query, >= 0.
        reduction: "mean" divides by the queries that have a positive and a weight above 0.

    Returns:
        A scalar, or (q,) for "none". Other queries, and empty batches, give 0.

    Raises:
        ValueError: if shapes differ or ``temperature`` is not > 0.
        TypeError: if ``positive`` is not bool.

    Source: Yu et al. 2022, MEOW; Yeh et al. 2022, Decoupled Contrastive Learning.

    >>> same = torch.eye(3, dtype=torch.bool)
    >>> decoupled = (~same).float()
    >>> weighted_info_nce_from_similarity(torch.eye(3), same, decoupled, temperature=1.0)
    tensor(-0.3069)
    """
    check_same_shape(
        "One entry per query and key.",
        similarity=similarity,
        positive=positive,
        pair_weight=pair_weight,
    )
    if positive.dtype != torch.bool:
        raise TypeError(f"positive: expected bool (True matches), got {positive.dtype}")
    check_ndim("similarity", similarity, "q k")
    _check_temperature(temperature)
    check_weight(weight, similarity.shape[0], "query")
    logits = similarity.to(accumulation_dtype(similarity.dtype)) / temperature
    if not logits.shape[1]:
        return _reduce(logits.sum(dim=1)[:, None].expand(-1, 2), positive.any(1), weight, reduction)
    rows = _row_losses(logits, positive, pair_weight.to(logits.dtype))
    return _reduce(rows, positive.any(dim=1), weight, reduction)


class WeightedInfoNCELoss(nn.Module):
    """:func:`weighted_info_nce` with its weight function, learned where that is a Module.

    Args:
        pair_weight: a Module or function of a block of queries (r, d) and keys (k, d) that gives
            weights (r, k) >= 0.
        temperature: a number > 0, or a Module that gives it (:class:`LearnableTemperature`).
        reduction: "mean", "sum" or "none".

    >>> same = lambda query, key: torch.ones(len(query), len(key))
    >>> WeightedInfoNCELoss(same, temperature=1.0)(torch.eye(3), torch.eye(3))
    tensor(0.5514)
    """

    def __init__(
        self,
        pair_weight: PairWeight,
        temperature: float | nn.Module = 0.5,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_temperature("WeightedInfoNCELoss", temperature, "0.5")
        check_choice("WeightedInfoNCELoss", "reduction", reduction, ("mean", "sum", "none"))
        self.pair_weight, self.temperature, self.reduction = pair_weight, temperature, reduction

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        *,
        query_features: Tensor | None = None,
        key_features: Tensor | None = None,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of queries (q, d) against keys (k, d)."""
        return weighted_info_nce(
            query,
            key,
            self.pair_weight,
            temperature=current(self.temperature),
            query_features=query_features,
            key_features=key_features,
            query_ids=query_ids,
            key_ids=key_ids,
            weight=weight,
            reduction=self.reduction,
        )


def _row_losses(logits: Tensor, positive: Tensor, pair: Tensor) -> Tensor:
    """(r, 2): the loss of each row, and 1 where some key has a weight, else 0.

    Weights join in logarithms, so that none is too small beside a logit; those below the smallest
    normal number count as that, because they have no finite slope.
    """
    competes = ~(pair <= 0)  # a NaN stays in sight
    limits = torch.finfo(logits.dtype)
    weighted = logits + pair.clamp(min=limits.tiny).log()
    total = weighted.masked_fill(~competes, limits.min).logsumexp(dim=1)
    some = competes.any(dim=1)
    value = total.masked_fill(~some, 0.0)
    pull = logits.masked_fill(~positive, 0.0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return torch.stack([value - pull, some.to(value.dtype)], dim=1)


def _reduce(rows: Tensor, positive: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    taking_part = positive & (rows[:, 1] > 0)
    row = rows[:, 0].masked_fill(~taking_part, 0.0)
    return reduce_rows(row if weight is None else row * weight, taking_part, reduction)


def _check_temperature(temperature: float | Tensor) -> None:
    if not isinstance(temperature, Tensor):
        check_positive("weighted_info_nce", "temperature", temperature, _HINT)
    elif temperature.numel() != 1:
        raise ValueError(
            "weighted_info_nce: temperature must be one number, got shape "
            f"{tuple(temperature.shape)}"
        )
