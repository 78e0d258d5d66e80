"""InfoNCE: find each query's keys among all keys, by softmax over similarities."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from embedkit._checks import check_choice, check_positive, check_same_shape, check_weight
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses.pairs._contrast import contrast
from embedkit.losses.pairs._request import Gather, Request, SameId, Similarity
from embedkit.losses.temperature import check_temperature, current
from embedkit.ops import accumulation_dtype

_HINT = "It divides the similarities; try 0.05 for cosine similarity."


def info_nce(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    *,
    temperature: float | Tensor = 0.05,
    query_ids: Int[Tensor, " q"] | None = None,
    key_ids: Int[Tensor, " k"] | None = None,
    same_id: SameId = "positive",
    negative: Float[Tensor, "q h d"] | None = None,
    negative_mask: Bool[Tensor, "q h"] | None = None,
    weight: Float[Tensor, " q"] | None = None,
    symmetric: bool = False,
    similarity: Similarity = "cosine",
    dims: Sequence[int] | None = None,
    dim_weights: Sequence[float] | None = None,
    memory: Float[Tensor, "m d"] | None = None,
    memory_ids: Int[Tensor, " m"] | None = None,
    gather: Gather = False,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """Cross-entropy of finding each query's positives among all keys; q x k is never stored.

    Row loss: mean over positives p of  logsumexp_j(s_ij / t) - s_ip / t,  j over the keys that
    compete and, where given, the query's own negatives. Time is that of three matrix products;
    memory is linear in q and k, forward and backward. Row i matches key i unless ids say
    otherwise; keys beyond the queries are further negatives, shared by all (hard negatives, a
    queue). Same-tower negatives: ``key = cat([key, query])``, ids ``i`` and ``cat([i, i])``, and
    ``same_id="ignore"``.

    Args:
        query: float vectors of any length; half precision is computed in float32.
        key: vectors of the same width, at least as many as queries unless ids are given.
        temperature: > 0, a number or a 0-d tensor (see :class:`LearnableTemperature`); 0.01-0.1
            suits cosine similarity, i.e. the range [-1, 1].
        query_ids: integers; equal ids match. Given alone, row i's key has row i's id.
        key_ids: integers; given alone, row i's query has key i's id.
        same_id: "positive": every key with the query's id is a positive. "ignore": it is left out
            of the denominator, and row i keeps its own key i as its one positive.
        negative: each query's own hard negatives, which no other query meets.
        negative_mask: True where ``negative`` is real.
        weight: importance of each query, >= 0; it scales the row, the mean still divides by the
            number of rows.
        symmetric: average with the loss of finding queries by keys (CLIP).
        similarity: "cosine", where a zero vector has similarity 0 to everything and gets no
            gradient, or "dot".
        dims: increasing prefix widths; the loss is the sum over widths, each normalised for
            itself, all in one sweep (:class:`MatryoshkaLoss`). None: the whole width.
        dim_weights: factor of each width; None: 1.
        memory: further candidates, e.g. :class:`embedkit.batch.MemoryQueue`'s rows, the same on
            every rank; they are never gathered.
        memory_ids: their ids; needed exactly where the batch has ids.
        gather: True, or a process group: keys of all its ranks are candidates, each rank keeps
            its own rows as queries, and every rank gets the mean over all rows of all ranks. Under
            DDP or FSDP2 gradients are those of one process with the whole batch, whatever the
            number of rows per rank; the gradient of a temperature tensor is that, too, on every
            rank. Every rank must call, and run backward alike.
        reduction: "mean" divides by the queries that have a positive, "sum" adds them up (over
            ranks where gathered); "none" gives this rank's rows.

    Returns:
        A scalar, or (q,) for "none", in float32 or wider. Queries without a positive, and empty
        batches, give 0; non-finite input gives a non-finite loss.

    Raises:
        ValueError: if shapes, widths or options do not fit, or ``temperature`` is not > 0.
        TypeError: if vectors are not floating or ids not integers.
        RuntimeError: on a second derivative; :func:`info_nce_from_similarity` has one.

    Source: van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding,
    eq. 4; Khosla et al. 2020, Supervised Contrastive Learning, eq. 2 (several positives);
    Radford et al. 2021, Learning Transferable Visual Models, fig. 3 (symmetric).
    """
    return contrast(
        query,
        key,
        Request(
            "info_nce",
            temperature,
            query_ids=query_ids,
            key_ids=key_ids,
            same_id=same_id,
            negative=negative,
            negative_mask=negative_mask,
            weight=weight,
            symmetric=symmetric,
            similarity=similarity,
            dims=dims,
            dim_weights=dim_weights,
            memory=memory,
            memory_ids=memory_ids,
            gather=gather,
            reduction=reduction,
        ),
    )


class InfoNCELoss(nn.Module):
    """:func:`info_nce` with its settings; ids, own negatives and weights come with each call.

    Args:
        temperature: a number > 0, or a Module that gives it (:class:`LearnableTemperature`).
        symmetric: average both directions; with a learnable temperature this is CLIP's loss.
        same_id: "positive" or "ignore".
        similarity: "cosine" or "dot".
        gather: keys of all ranks are candidates; True, or a process group.
        reduction: "mean", "sum" or "none".

    >>> query, key = torch.eye(3), torch.eye(3)
    >>> InfoNCELoss(temperature=1.0)(query, key)
    tensor(0.5514)
    """

    fuses_widths = True

    def __init__(
        self,
        temperature: float | nn.Module = 0.05,
        *,
        symmetric: bool = False,
        same_id: SameId = "positive",
        similarity: Similarity = "cosine",
        gather: Gather = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_temperature("InfoNCELoss", temperature, "0.05")
        check_choice("InfoNCELoss", "same_id", same_id, ("positive", "ignore"))
        check_choice("InfoNCELoss", "similarity", similarity, ("cosine", "dot"))
        check_choice("InfoNCELoss", "reduction", reduction, ("mean", "sum", "none"))
        self.temperature = temperature
        self.symmetric, self.same_id = symmetric, same_id
        self.similarity, self.gather, self.reduction = similarity, gather, reduction

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        *,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        negative: Tensor | None = None,
        negative_mask: Tensor | None = None,
        weight: Tensor | None = None,
        dims: Sequence[int] | None = None,
        dim_weights: Sequence[float] | None = None,
        memory: Tensor | None = None,
        memory_ids: Tensor | None = None,
    ) -> Tensor:
        """The loss of queries (q, d) against keys (k, d); arguments as in :func:`info_nce`."""
        return info_nce(
            query,
            key,
            temperature=current(self.temperature),
            query_ids=query_ids,
            key_ids=key_ids,
            same_id=self.same_id,
            negative=negative,
            negative_mask=negative_mask,
            weight=weight,
            symmetric=self.symmetric,
            similarity=self.similarity,
            dims=dims,
            dim_weights=dim_weights,
            memory=memory,
            memory_ids=memory_ids,
            gather=self.gather,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        shown = (
            "" if isinstance(self.temperature, nn.Module) else f"temperature={self.temperature:g}, "
        )
        return (
            f"{shown}symmetric={self.symmetric}, same_id={self.same_id!r}, "
            f"similarity={self.similarity!r}, gather={bool(self.gather)}, "
            f"reduction={self.reduction!r}"
        )


def info_nce_from_similarity(
    similarity: Float[Tensor, "q k"],
    positive: Bool[Tensor, "q k"],
    *,
    temperature: float | Tensor,
    candidate: Shaped[Tensor, "q k"] | None = None,
    weight: Float[Tensor, " q"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*q"]:
    """:func:`info_nce` on a similarity matrix of your own: hyperbolic, late interaction, a model.

    Row loss: mean over positives p of  logsumexp_j(s_j / t + log w_j) - s_p / t.  It keeps the
    q x k matrix and can be differentiated any number of times.

    Args:
        similarity: larger is closer. Pass minus the distance for a metric space.
        positive: True at every key that matches the query; several per row are allowed.
        temperature: > 0, in units of ``similarity``.
        candidate: who competes in the denominator: bool, or a float weight w >= 0 per key, taken
            as a constant. Positives always compete with weight 1. None: all, weight 1.
        weight: importance of each query, >= 0.
        reduction: "mean" divides by the number of queries that have a positive.

    Returns:
        A scalar, or (q,) for "none". Queries without a positive, and empty batches, give 0.

    Raises:
        ValueError: if shapes differ or ``temperature`` is not > 0.
        TypeError: if ``positive`` is not bool.

    Source: Khosla et al. 2020, Supervised Contrastive Learning, eq. 2 (L_out).
    """
    check_same_shape("One entry per query and key.", similarity=similarity, positive=positive)
    if positive.dtype != torch.bool:
        raise TypeError(f"positive: expected bool (True matches), got {positive.dtype}")
    check_weight(weight, similarity.shape[0], "query")
    if not isinstance(temperature, Tensor):
        check_positive("info_nce_from_similarity", "temperature", temperature, _HINT)
    logits = similarity.to(accumulation_dtype(similarity.dtype)) / temperature
    if candidate is not None:
        check_same_shape(similarity=similarity, candidate=candidate)
        competes = (candidate > 0) | positive
        if candidate.is_floating_point():
            shift = candidate.detach().to(logits.dtype).masked_fill(~competes | positive, 1.0).log()
            logits = logits + shift
        logits = logits.masked_fill(~competes, torch.finfo(logits.dtype).min)
    if not logits.shape[1]:
        return reduce_rows(logits.sum(dim=1), positive.any(dim=1), reduction)
    count = positive.sum(dim=1)
    row = -logits.log_softmax(dim=1).masked_fill(~positive, 0.0).sum(dim=1) / count.clamp(min=1)
    return reduce_rows(row if weight is None else row * weight, count > 0, reduction)
