"""Losses that weigh the pairs of a row against each other: multi-similarity, circle."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import softplus

from embedkit._checks import check_choice, check_floating, check_ndim, check_positive
from embedkit.losses._matches import match_counts, resolve_labels
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses._row_blocks import map_row_blocks
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops._precision import full_precision

_SCALE = "It multiplies the cosines."
_ENTRIES = 2**22  # of a block of cosines


def multi_similarity(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    positive_scale: float = 2.0,
    negative_scale: float = 50.0,
    threshold: float = 0.5,
    mining_margin: float | None = 0.1,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Pull positives below a threshold and push negatives above it, the informative pairs most.

    Row loss, with cosines s, P_i and N_i the rows of equal and of other label:
    1/a log(1 + sum_{p in P_i} exp(-a (s_ip - t))) + 1/b log(1 + sum_{n in N_i} exp(b (s_in - t))).
    Mining first drops positives with  s_ip >= max_N s + margin  and negatives with
    s_in <= min_P s - margin.  Blocks of rows are computed again in backward: memory is linear in
    the batch. Second derivatives are defined.

    Args:
        embeddings: vectors of any length; a zero vector has cosine 0 to all and gets no gradient.
        labels: integers, one per row; equal labels match.
        positive_scale: a > 0; alpha in the paper.
        negative_scale: b > 0; beta in the paper.
        threshold: t, a cosine; lambda in the paper.
        mining_margin: in units of the cosine; epsilon in the paper. None: all pairs.
        reduction: "mean" divides by the number of rows that have another row beside them: all, or
            none in a batch of one.

    Returns:
        A scalar, or (b,) for "none", in float32 or wider. A row without pairs that are left gives
        0; it counts in the mean, as in the paper.

    Raises:
        ValueError: if shapes do not fit or a scale is not > 0.
        TypeError: if embeddings are not floating or labels not integers.

    Source: Wang et al. 2019, Multi-Similarity Loss with General Pair Weighting for Deep Metric
    Learning, the mining and the loss.
    Differs: the threshold is 0.5, as in the authors' code and in pytorch-metric-learning; the
    text has 1. ``mining_margin=None`` is the latter's MultiSimilarityLoss alone, 0.1 adds its
    MultiSimilarityMiner.
    """
    check_positive("multi_similarity", "positive_scale", positive_scale, _SCALE)
    check_positive("multi_similarity", "negative_scale", negative_scale, _SCALE)
    _check_rows(embeddings)
    ids = resolve_labels(labels, embeddings.shape[0])

    def rows(cosine: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if mining_margin is not None:
            seen = cosine.detach()
            most = seen.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
            least = seen.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
            # Drop what is easy, rather than keep what is hard: a NaN stays in sight.
            positive = positive & ~(seen - mining_margin >= most)
            negative = negative & ~(seen + mining_margin <= least)
        pull = _logsumexp(positive_scale * (threshold - cosine), positive)
        push = _logsumexp(negative_scale * (cosine - threshold), negative)
        pull, push = softplus(pull, threshold=40.0), softplus(push, threshold=40.0)
        return pull / positive_scale + push / negative_scale

    row = _row_losses(rows, embeddings, ids.query)
    taking_part = torch.full_like(ids.query, embeddings.shape[0] > 1, dtype=torch.bool)
    return reduce_rows(row, taking_part, reduction)


def circle(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    *,
    margin: float = 0.4,
    scale: float = 80.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Every positive should be closer than every negative; each pair goes at its own pace.

    Row loss, with cosines s:  log(1 + sum_{n, p} exp(scale (w_n (s_n - m) - w_p (s_p - 1 + m))))
    with weights  w_n = max(s_n + m, 0)  and  w_p = max(1 + m - s_p, 0)  that are held constant in
    the derivative, as in the paper. Blocks of rows are computed again in backward: memory is
    linear in the batch.

    Args:
        embeddings: vectors of any length; a zero vector has cosine 0 to all and gets no gradient.
        labels: integers, one per row; equal labels match.
        margin: m, in units of the cosine; the paper takes 0.25 for faces.
        scale: > 0; gamma in the paper, 80 for retrieval, 256 for faces.
        reduction: "mean" divides by the rows that have a positive and a negative.

    Returns:
        A scalar, or (b,) for "none", in float32 or wider. Other rows and empty batches give 0.

    Raises:
        ValueError: if shapes do not fit or ``scale`` is not > 0.
        TypeError: if embeddings are not floating or labels not integers.

    Source: Sun et al. 2020, Circle Loss: A Unified Perspective of Pair Similarity Optimization,
    eq. 6 with the weights of eq. 5 and the choice of margins that gives eq. 8.
    Differs: pytorch-metric-learning's mean leaves out rows whose loss is exactly 0.
    """
    check_positive("circle", "scale", scale, _SCALE)
    _check_rows(embeddings)
    ids = resolve_labels(labels, embeddings.shape[0])

    def rows(cosine: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        seen = cosine.detach()
        pull = scale * (1.0 + margin - seen).clamp(min=0.0) * (1.0 - margin - cosine)
        push = scale * (seen + margin).clamp(min=0.0) * (cosine - margin)
        both = _logsumexp(pull, positive) + _logsumexp(push, negative)
        return softplus(both, threshold=40.0)

    count = match_counts(ids)
    taking_part = (count > 1) & (count < embeddings.shape[0])
    return reduce_rows(_row_losses(rows, embeddings, ids.query), taking_part, reduction)


def _row_losses(
    row_loss: Callable[[Tensor, Tensor, Tensor], Tensor], embeddings: Tensor, labels: Tensor
) -> Tensor:
    """``row_loss(cosine, positive, negative)`` of every row against all rows: (r, b) to (r,).

    Equal labels are positives, no row meets itself.
    """
    unit = normalize(embeddings.to(accumulation_dtype(embeddings.dtype)))
    count = unit.shape[0]
    if count == 0:
        return unit.sum(dim=1)
    index = torch.arange(count, device=labels.device)

    def block(rows: Tensor, own_labels: Tensor, own_index: Tensor, others: Tensor) -> Tensor:
        with full_precision(rows):
            cosine = rows @ others.mT
        same = own_labels[:, None] == labels
        return row_loss(cosine, same & (own_index[:, None] != index), ~same)

    rows = (unit, labels, index)
    return map_row_blocks(block, rows, (unit,), columns=count, entries=_ENTRIES)


def _check_rows(embeddings: Tensor) -> None:
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "b d")


def _logsumexp(logits: Tensor, keep: Tensor) -> Tensor:
    """Over the entries kept of each row; where there is none so low that softplus makes it 0."""
    lowest = torch.finfo(logits.dtype).min / 4
    return logits.masked_fill(~keep, lowest).logsumexp(dim=1)


class MultiSimilarityLoss(nn.Module):
    """:func:`multi_similarity` with its settings.

    Args:
        positive_scale: > 0; alpha in the paper.
        negative_scale: > 0; beta in the paper.
        threshold: a cosine; lambda in the paper.
        mining_margin: in units of the cosine; epsilon in the paper. None: all pairs.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> MultiSimilarityLoss()(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    tensor(0.6566)
    """

    def __init__(
        self,
        positive_scale: float = 2.0,
        negative_scale: float = 50.0,
        threshold: float = 0.5,
        mining_margin: float | None = 0.1,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive("MultiSimilarityLoss", "positive_scale", positive_scale, _SCALE)
        check_positive("MultiSimilarityLoss", "negative_scale", negative_scale, _SCALE)
        check_choice("MultiSimilarityLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.positive_scale, self.negative_scale = positive_scale, negative_scale
        self.threshold, self.mining_margin = threshold, mining_margin
        self.reduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (b, d) with labels (b,)."""
        return multi_similarity(
            embeddings,
            labels,
            positive_scale=self.positive_scale,
            negative_scale=self.negative_scale,
            threshold=self.threshold,
            mining_margin=self.mining_margin,
            reduction=self.reduction,
        )


class CircleLoss(nn.Module):
    """:func:`circle` with its settings.

    Args:
        margin: in units of the cosine.
        scale: > 0; gamma in the paper.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> CircleLoss()(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    tensor(55.0932)
    """

    def __init__(
        self, margin: float = 0.4, scale: float = 80.0, *, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_positive("CircleLoss", "scale", scale, _SCALE)
        check_choice("CircleLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.margin, self.scale, self.reduction = margin, scale, reduction

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (b, d) with labels (b,)."""
        return circle(
            embeddings, labels, margin=self.margin, scale=self.scale, reduction=self.reduction
        )
