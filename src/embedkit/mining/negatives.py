"""Hard negatives that are no hidden positives: thresholds that know the positive's similarity."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_ndim,
    check_rows,
    check_same_shape,
)
from embedkit.mining._blocks import Similarity, check_index, of_positives, similarity_blocks
from embedkit.ops import accumulation_dtype


class Negatives(NamedTuple):
    """Negatives of each query, the most similar first."""

    index: Int[Tensor, "q k"]  # type: ignore[assignment]
    """Row of the corpus; -1 where there was no further one."""
    mask: Bool[Tensor, "q k"]
    """True where there is one: hand it on as ``negative_mask``."""


def likely_negatives(
    similarity: Float[Tensor, "q k"],
    positive_similarity: Float[Tensor, " q"],
    *,
    max_similarity: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
) -> Bool[Tensor, "q k"]:
    """Filter false negatives: True where a key is not suspiciously similar to the query.

    With t the similarity to the key and p that to the query's positive, a key passes where
    t <= max_similarity,  t <= p - absolute_margin  and  t <= p - relative_margin |p|,  whichever
    are given. Similarities of a guide model make the mask that
    ``info_nce_from_similarity(..., candidate=mask)`` takes; positives always stay in that loss.

    Args:
        similarity: of queries and keys, by the model that mines or guides.
        positive_similarity: of each query to its positive; of several positives the smallest.
        max_similarity: no key above it.
        absolute_margin: in units of ``similarity``, >= 0.
        relative_margin: a share of |p|, >= 0; 0.05 keeps what is up to 95% as similar.

    Returns:
        The mask. A key of similarity NaN passes, so that the loss shows it.

    Raises:
        ValueError: if shapes or thresholds do not fit.
        TypeError: if similarities are not floating point.

    Source: Moreira et al. 2024, NV-Retriever, sec. 3.1 (TopK-Abs, TopK-MarginPos, TopK-PercPos);
    Solatorio 2024, GISTEmbed, the guide model.
    Differs: a share of |p| is taken off p, which for p >= 0 is the paper's product and for p < 0
    stays below the positive.

    >>> likely_negatives(
    ...     torch.tensor([[0.85, 0.77, 0.75, -0.2]]), torch.tensor([0.8]), relative_margin=0.05
    ... )
    tensor([[False, False,  True,  True]])
    """
    check_floating("similarity", similarity)
    check_ndim("similarity", similarity, "q k")
    check_floating("positive_similarity", positive_similarity)
    check_ndim("positive_similarity", positive_similarity, "q")
    check_rows("positive_similarity", positive_similarity, similarity.shape[0], "One per query.")
    wide = accumulation_dtype(torch.promote_types(similarity.dtype, positive_similarity.dtype))
    positive = positive_similarity.detach().to(wide)
    for name, margin in (
        ("absolute_margin", absolute_margin),
        ("relative_margin", relative_margin),
    ):
        if margin is not None and not 0 <= margin < math.inf:
            raise ValueError(
                f"likely_negatives: {name} must be >= 0, got {margin}. It is how far below the "
                "positive a negative has to be; 0.05 is usual."
            )
    bounds = []
    if max_similarity is not None:
        bounds.append(torch.full_like(positive, max_similarity))
    if absolute_margin is not None:
        bounds.append(positive - absolute_margin)
    if relative_margin is not None:
        bounds.append(positive - relative_margin * positive.abs())
    if not bounds:
        return torch.ones_like(similarity, dtype=torch.bool)
    return ~(similarity.detach().to(wide) > torch.stack(bounds).amin(dim=0)[:, None])


@torch.no_grad()
def mine_negatives_from_similarity(
    similarity: Float[Tensor, "q n"],
    positive_similarity: Float[Tensor, " q"],
    k: int,
    *,
    candidate: Bool[Tensor, "q n"] | None = None,
    max_similarity: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = 0.05,
    skip: int = 0,
    sample_from: int | None = None,
    generator: torch.Generator | None = None,
) -> Negatives:
    """:func:`mine_negatives` on similarities of your own: a cross-encoder, late interaction.

    Args:
        similarity: of queries and corpus; minus infinity and NaN are never chosen.
        positive_similarity: of each query to its positive; of several the smallest. With minus
            infinity or NaN no negative is below it by a margin.
        k: negatives per query.
        candidate: False at positives and whatever else must not be chosen. None: all True.
        max_similarity: as the next ones, see :func:`likely_negatives`.
        absolute_margin: None: no such threshold.
        relative_margin: None: no such threshold.
        skip: leave out this many of the most similar candidates.
        sample_from: draw k at random from this many; None: take the k most similar.
        generator: source of the random numbers, on the device of ``similarity``.

    Returns:
        Row numbers (q, k) and their mask.

    Raises:
        ValueError: if shapes or sizes do not fit.
        TypeError: if similarities are not floating point or ``candidate`` not bool.

    Source: as :func:`mine_negatives`.
    """
    _check_sizes(k, skip, sample_from)
    likely = likely_negatives(
        similarity,
        positive_similarity.masked_fill(positive_similarity.isnan(), -torch.inf),
        max_similarity=max_similarity,
        absolute_margin=absolute_margin,
        relative_margin=relative_margin,
    )
    scores = similarity
    if candidate is not None:
        check_same_shape(similarity=similarity, candidate=candidate)
        if candidate.dtype != torch.bool:
            raise TypeError(f"candidate: expected bool (True may be chosen), got {candidate.dtype}")
        scores = similarity.masked_fill(~candidate, -torch.inf)
    scores = scores.masked_fill(scores.isnan(), -torch.inf)
    # Thresholds cut off the top, so what they removed counts as skipped.
    removed = (~likely & (scores > -torch.inf)).sum(dim=1, keepdim=True)
    start = (skip - removed).clamp(min=0)
    pool = k if sample_from is None else sample_from
    width = min(skip + pool, scores.shape[1])
    value, column = scores.masked_fill(~likely, -torch.inf).topk(width, dim=1)
    column, order = column.sort(dim=1)
    value, order = value.gather(1, order).sort(dim=1, descending=True, stable=True)
    column = column.gather(1, order)  # of equal similarities the first row goes first

    rank = torch.arange(width, device=scores.device)
    picked = (value > -torch.inf) & (rank >= start) & (rank < start + pool)
    if sample_from is not None and k < width:
        draw = torch.rand(picked.shape, generator=generator, device=scores.device)
        chosen = draw.masked_fill(~picked, -1.0).topk(k, dim=1).indices
        picked = picked & torch.zeros_like(picked).scatter(1, chosen, True)
    mask, order = (part[:, :k] for part in picked.sort(dim=1, descending=True, stable=True))
    index = column.gather(1, order).masked_fill(~mask, -1)
    missing = (0, k - index.shape[1])
    return Negatives(F.pad(index, missing, value=-1), F.pad(mask, missing, value=False))


@torch.no_grad()
def mine_negatives(
    query: Float[Tensor, "q d"],
    corpus: Float[Tensor, "n d"],
    positive: Int[Tensor, "q *p"],
    k: int,
    *,
    exclude: Int[Tensor, "q *e"] | None = None,
    similarity: Similarity = "cosine",
    max_similarity: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = 0.05,
    skip: int = 0,
    sample_from: int | None = None,
    generator: torch.Generator | None = None,
) -> Negatives:
    """Choose hard negatives of each query from a corpus, without likely false negatives.

    Corpus rows are ranked by similarity to the query; positives and excluded rows drop out, then
    the first ``skip``, then what :func:`likely_negatives` suspects. Of the rest the k most similar
    are taken, or k at random among the ``sample_from`` most similar. Queries are taken in blocks:
    memory does not grow with q n.

    - NV-Embed: the defaults, a negative is at most 95% as similar as the positive.
    - Rank window (KaLM): ``relative_margin=None, skip=50, sample_from=50`` draws from the ranks
      50 to 99.

    Args:
        query: one row per query.
        corpus: the rows to choose from, by the same model.
        positive: corpus rows that match each query, (q,) or (q, p); -1 is none. The least similar
            of them sets the thresholds; a query without any gets no negatives, unless
            ``absolute_margin`` and ``relative_margin`` are None.
        k: negatives per query.
        exclude: further corpus rows that must not be chosen, e.g. the query's own text; -1 is none.
        similarity: "cosine" or "dot".
        max_similarity: as the next ones, see :func:`likely_negatives`.
        absolute_margin: None: no such threshold.
        relative_margin: None: no such threshold.
        skip: leave out this many of the most similar candidates.
        sample_from: draw k at random from this many; None: take the k most similar.
        generator: source of the random numbers, on the device of ``query``.

    Returns:
        Corpus rows (q, k) and their mask. Where too few pass, the rest is -1 and False; the rule
        is never relaxed, and nothing is filled in.

    Raises:
        ValueError: if shapes, sizes or indices do not fit, or embeddings are not finite.
        TypeError: if embeddings are not floating point or indices not integers.

    Source: Moreira et al. 2024, NV-Retriever, sec. 3.1; Lee et al. 2024, NV-Embed, sec. 4.1.1; Zhao
    et al. 2025, KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A Versatile
    Embedding Model, the rank window.
    Differs: nothing is filled with random rows where a rank window holds too few.

    >>> corpus = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 1.0], [0.0, 1.0]])
    >>> mine_negatives(corpus[:1], corpus, torch.tensor([0]), k=2).index
    tensor([[2, 3]])
    """
    _check_sizes(k, skip, sample_from)
    owner, found = "mine_negatives", []
    positive = check_index(owner, "positive", positive, query.shape[0], corpus.shape[0])
    out = positive
    if exclude is not None:
        exclude = check_index(owner, "exclude", exclude, query.shape[0], corpus.shape[0])
        out = torch.cat([positive, exclude], dim=1)
    for rows, scores in similarity_blocks(owner, query, corpus, similarity):
        own = of_positives(scores, positive[rows], torch.inf)
        least = own.amin(dim=1) if own.shape[1] else own.new_full((len(own),), torch.inf)
        row, entry = (out[rows] >= 0).nonzero(as_tuple=True)
        scores[row, out[rows][row, entry]] = -torch.inf
        block = mine_negatives_from_similarity(
            scores,
            least.masked_fill(least == torch.inf, -torch.inf),
            k,
            max_similarity=max_similarity,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            skip=skip,
            sample_from=sample_from,
            generator=generator,
        )
        found.append(block)
    if not found:
        none = positive.new_empty(0, k)
        return Negatives(none, none.bool())
    return Negatives(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _check_sizes(k: int, skip: int, sample_from: int | None) -> None:
    check_at_least("mine_negatives", "k", k, 1)
    check_at_least("mine_negatives", "skip", skip, 0)
    if sample_from is not None:
        check_at_least("mine_negatives", "sample_from", sample_from, k, "It holds the k drawn.")
