"""Ranking consistency: drop training pairs whose positive the model cannot find."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embedkit._checks import check_at_least, check_floating, check_ndim, check_rows
from embedkit.mining._blocks import Similarity, check_index, of_positives, similarity_blocks


@torch.no_grad()
def ranking_consistency(
    query: Float[Tensor, "q d"],
    corpus: Float[Tensor, "n d"],
    positive: Int[Tensor, "q *p"],
    top_k: int = 50,
    *,
    similarity: Similarity = "cosine",
) -> Bool[Tensor, " q"]:
    """Tell the queries whose best positive ranks near the top of the corpus.

    True where at most ``top_k`` corpus rows are more similar to the query than its most similar
    positive. Keep those; the others are probably noise. Queries are taken in blocks: memory does
    not grow with q n.

    Args:
        query: one row per query.
        corpus: the rows that are ranked, positives among them.
        positive: corpus rows that match each query, (q,) or (q, p); -1 is none.
        top_k: how many may come before, >= 0.
        similarity: "cosine" or "dot".

    Returns:
        One bool per query; False for a query without a positive.

    Raises:
        ValueError: if shapes, sizes or indices do not fit, or embeddings are not finite.
        TypeError: if embeddings are not floating point or indices not integers.

    Source: Zhao et al. 2025, KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A
    Versatile Embedding Model, the ranking-consistency filter.

    >>> corpus = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> ranking_consistency(corpus[:1].repeat(3, 1), corpus, torch.tensor([0, 1, 2]), top_k=1)
    tensor([ True,  True, False])
    """
    owner, kept = "ranking_consistency", []
    positive = check_index(owner, "positive", positive, query.shape[0], corpus.shape[0])
    for rows, scores in similarity_blocks(owner, query, corpus, similarity):
        own = of_positives(scores, positive[rows], -torch.inf)
        best = own.amax(dim=1) if own.shape[1] else own.new_full((len(own),), -torch.inf)
        kept.append(ranking_consistency_from_similarity(scores, best, top_k))
    return torch.cat(kept) if kept else torch.zeros(0, dtype=torch.bool, device=query.device)


@torch.no_grad()
def ranking_consistency_from_similarity(
    similarity: Float[Tensor, "q n"], positive_similarity: Float[Tensor, " q"], top_k: int = 50
) -> Bool[Tensor, " q"]:
    """:func:`ranking_consistency` on similarities of your own.

    Args:
        similarity: of queries and corpus.
        positive_similarity: of each query to its best positive; minus infinity or NaN for none.
        top_k: how many may come before, >= 0.

    Returns:
        One bool per query.

    Raises:
        ValueError: if shapes do not fit or ``top_k`` is negative.
        TypeError: if similarities are not floating point.

    Source: as :func:`ranking_consistency`.
    """
    check_at_least("ranking_consistency", "top_k", top_k, 0)
    check_floating("similarity", similarity)
    check_ndim("similarity", similarity, "q n")
    check_floating("positive_similarity", positive_similarity)
    check_ndim("positive_similarity", positive_similarity, "q")
    check_rows("positive_similarity", positive_similarity, similarity.shape[0], "One per query.")
    before = (similarity > positive_similarity[:, None]).sum(dim=1)
    return (before <= top_k) & (positive_similarity > -torch.inf)
