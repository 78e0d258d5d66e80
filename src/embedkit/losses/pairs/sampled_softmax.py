"""Softmax over keys that were drawn, corrected for how likely each was to be drawn."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import check_choice, check_floating
from embedkit.losses._reduce import Reduction
from embedkit.losses.pairs._contrast import contrast
from embedkit.losses.pairs._request import Gather, Request, Similarity, check_request
from embedkit.losses.temperature import check_temperature, current
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops._exchange import find_ranks, withdraw
from embedkit.ops.collectives import mean_gradient


def sampled_softmax(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    log_q: Float[Tensor, " k"],
    *,
    temperature: float | Tensor = 0.05,
    query_ids: Int[Tensor, " q"] | None = None,
    key_ids: Int[Tensor, " k"] | None = None,
    weight: Float[Tensor, " q"] | None = None,
    similarity: Similarity = "cosine",
    gather: Gather = False,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """Cross-entropy over all items, estimated from those at hand; q x k is never stored.

    Row loss:  logsumexp_j(s_ij / t - log q_j) - (s_ii / t - log q_i),  j over the keys. Keys of a
    batch are popular items more often than not, so that a plain softmax pushes popular items away
    for being popular; dividing by q_j, the probability of drawing item j, makes the sum over keys
    an estimate of the sum over all items. With equal q it is :func:`info_nce`.

    Row i's positive is key i. Keys beyond the queries are further negatives, shared by the batch.
    What ``log_q`` is depends on how keys came to be here:

    - Pairs of a batch alone: log of the item's share of all pairs, for positives too. A constant
      added to all changes nothing, so logarithms of counts will do. Give no ids: this form is at
      rest exactly where the scores are log-probabilities given the query, doubles included;
      leaving doubles out favours items that come several times in a batch.
    - One query and m negatives drawn from q: 0 for the positive, which is there for certain,
      log(m q_j) for those drawn, and ids, so that accidental hits are left out.
    - Pairs and m more drawn from p: log(b q_j + m p_j) for every key, b the number of pairs.

    Args:
        query: float vectors of any length; half precision is computed in float32.
        key: vectors of the same width, at least as many as queries.
        log_q: logarithm of the probability with which each key came to be here, or of how often it
            was to be expected; :class:`embedkit.batch.FrequencyEstimator` learns it on the way.
        temperature: > 0, a number or a 0-d tensor (see :class:`LearnableTemperature`).
        query_ids: integers, the id of each query's positive; None: those of the first keys.
        key_ids: integers; another key with the id of row i's positive (an accidental hit) is left
            out of row i. Given neither, doubles stay in as negatives.
        weight: importance of each query, >= 0, e.g. a reward; it scales the row, the mean still
            divides by the number of rows.
        similarity: "cosine", where a zero vector has similarity 0 to everything and gets no
            gradient, or "dot".
        gather: True, or a process group: keys of all its ranks, with their ``log_q`` and ids, are
            candidates; see :func:`info_nce`. Probabilities must be on one scale on all ranks.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or (q,) for "none", in float32 or wider. An empty batch gives 0; non-finite input,
        a key of probability 0 too, gives a non-finite loss.

    Raises:
        ValueError: if shapes or options do not fit, or ``temperature`` is not > 0.
        TypeError: if vectors or ``log_q`` are not floating or ids not integers.
        RuntimeError: on a second derivative.

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, the corrected batch softmax; Bengio and Senecal 2008, Adaptive Importance
    Sampling to Accelerate Training of a Neural Probabilistic Language Model (sampled negatives).
    Differs: accidental hits can be left out; negatives may come from outside of the batch. The
    positive is corrected like the others, as in Yi et al.
    """
    request = Request(
        "sampled_softmax",
        temperature,
        query_ids=query_ids,
        key_ids=key_ids,
        same_id="ignore",
        weight=weight,
        similarity=similarity,
        gather=gather,
        reduction=reduction,
    )
    ranks = None if gather is False else find_ranks(request.owner, gather)
    try:
        check_request(query, key, request)
        _check_log_q(log_q, key.shape[0])
    except (TypeError, ValueError) as error:
        if ranks is not None:
            withdraw(ranks, query.device, error)
        raise
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    t = torch.as_tensor(temperature, dtype=wide, device=query.device).reshape(())
    if ranks is not None and isinstance(temperature, Tensor):
        t = mean_gradient(t, ranks)
    query, key = query.to(wide), key.to(wide)
    if similarity == "cosine":
        query, key = normalize(query), normalize(key)
    # -log q is one more column of the keys, which meets a 1 in the queries.
    query = torch.cat([query / t, query.new_ones(query.shape[0], 1)], dim=1)
    key = torch.cat([key, -log_q.to(wide)[:, None]], dim=1)
    return contrast(query, key, request._replace(temperature=1.0, similarity="dot"))


def _check_log_q(log_q: Tensor, keys: int) -> None:
    check_floating("log_q", log_q, "Logarithms of probabilities; take log of the counts.")
    if log_q.shape != (keys,):
        raise ValueError(
            f"log_q: expected shape ({keys},), one log-probability per key, surplus keys included, "
            f"got {tuple(log_q.shape)}"
        )


class SampledSoftmaxLoss(nn.Module):
    """:func:`sampled_softmax` with its settings; log-probabilities and ids come with each call.

    Args:
        temperature: a number > 0, or a Module that gives it (:class:`LearnableTemperature`).
        similarity: "cosine" or "dot".
        gather: keys of all ranks are candidates; True, or a process group.
        reduction: "mean", "sum" or "none".

    >>> popularity = torch.tensor([0.8, 0.1, 0.1])
    >>> SampledSoftmaxLoss(temperature=1.0)(torch.eye(3), torch.eye(3), popularity.log())
    tensor(0.8741)
    """

    def __init__(
        self,
        temperature: float | nn.Module = 0.05,
        *,
        similarity: Similarity = "cosine",
        gather: Gather = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_temperature("SampledSoftmaxLoss", temperature, "0.05")
        check_choice("SampledSoftmaxLoss", "similarity", similarity, ("cosine", "dot"))
        check_choice("SampledSoftmaxLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.temperature, self.similarity = temperature, similarity
        self.gather, self.reduction = gather, reduction

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        log_q: Tensor,
        *,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of queries (q, d) against keys (k, d) with their log-probabilities (k,)."""
        return sampled_softmax(
            query,
            key,
            log_q,
            temperature=current(self.temperature),
            query_ids=query_ids,
            key_ids=key_ids,
            weight=weight,
            similarity=self.similarity,
            gather=self.gather,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        shown = (
            "" if isinstance(self.temperature, nn.Module) else f"temperature={self.temperature:g}, "
        )
        return (
            f"{shown}similarity={self.similarity!r}, gather={bool(self.gather)}, "
            f"reduction={self.reduction!r}"
        )
