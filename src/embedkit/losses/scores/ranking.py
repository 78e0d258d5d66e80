"""Bayesian personalised ranking, and the penalty on the vectors of a batch that goes with it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from embedkit._checks import check_choice, check_floating, check_ndim, check_rows, check_weight
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype


def bpr_loss(
    positive: Float[Tensor, " b"],
    negative: Float[Tensor, "b *k"],
    *,
    weight: Float[Tensor, " b"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """How far the scores of items that were not chosen reach above those of items that were.

    Row loss: mean over k of  softplus(n_ik - p_i) = -log sigmoid(p_i - n_ik).  Only differences
    count, so a constant added to both scores changes nothing; equal scores give log 2.

    Args:
        positive: scores of the items that were chosen, e.g. inner products of user and item; half
            precision is computed in float32.
        negative: scores of items that the same user did not choose, one (b,) or k (b, k) each.
            :class:`embedkit.mining.UniformNegativeSampler` draws them.
        weight: importance of each row, >= 0; it scales the row, the mean still divides by the
            number of rows.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or (b,) for "none", in float32 or wider. An empty batch, and k = 0, give 0;
        non-finite scores give a non-finite loss.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if scores are not floating.

    Source: Rendle et al. 2009, BPR: Bayesian Personalized Ranking from Implicit Feedback; Wang et
    al. 2019, Neural Graph Collaborative Filtering, the BPR term of its objective.
    Differs: the regulariser is :func:`batch_l2_penalty`; softplus in place of a logarithm of a
    sigmoid, which is infinite where scores are far apart.
    """
    check_floating("positive", positive)
    check_floating("negative", negative)
    check_ndim("positive", positive, "b")
    if negative.ndim == 1:
        negative = negative[:, None]
    check_ndim("negative", negative, "b k")
    check_rows("negative", negative, positive.shape[0], "Each positive has its own negatives.")
    wide = accumulation_dtype(torch.promote_types(positive.dtype, negative.dtype))
    # threshold 40: beyond it softplus(x) - x < 5e-18, below float64's resolution of x.
    won, lost = positive.to(wide), negative.to(wide)
    terms = softplus(lost - won[:, None], threshold=40.0)
    count = negative.shape[1]
    # An infinite score that wins has loss 0: times 0 it is NaN, and seen.
    row = terms.sum(dim=1) / max(count, 1) + 0.0 * won + (0.0 * lost).sum(dim=1)
    check_weight(weight, positive.shape[0], "row")
    if weight is not None:
        row = row * weight.to(wide)
    return reduce_rows(row, torch.full_like(row, count > 0, dtype=torch.bool), reduction)


class BPRLoss(nn.Module):
    """:func:`bpr_loss` with its setting.

    Args:
        reduction: "mean", "sum" or "none".

    >>> BPRLoss()(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.5, 3.0, -1.0]))
    tensor(0.8268)
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("BPRLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.reduction = reduction

    def forward(self, positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of positive scores (b,) against negative scores (b,) or (b, k)."""
        return bpr_loss(positive, negative, weight=weight, reduction=self.reduction)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"reduction={self.reduction!r}"


def batch_l2_penalty(*embeddings: Float[Tensor, "b ..."]) -> Float[Tensor, ""]:
    """The regulariser of recommenders: half the squared length of a batch's vectors, per row.

    1 / (2 b) * sum over the tensors of ||x||^2,  to be multiplied by a small number and added to
    :func:`bpr_loss`. It touches the ids of the batch alone, and a frequent id more often; weight
    decay of the optimiser touches every row of a table in every step and wears rare ids out.

    **Which vectors.** NGCF: those that were scored, i.e. the *propagated* vectors of users,
    positive and negative items, times 1e-5. LightGCN: the rows of the id table that the batch
    uses, *layer 0*, before any propagation, times 1e-4. Matrix factorisation has only one kind.
    Weights of layers are not penalised.

    Args:
        embeddings: tensors of b rows each, such as users (b, d), positives (b, d) and negatives
            (b, d) or (b, k, d); of k negatives all count.

    Returns:
        A scalar in float32 or wider; 0 for an empty batch.

    Raises:
        ValueError: without a tensor, or if the numbers of rows differ.
        TypeError: if a tensor is not floating.

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, regulariser of the released
    code; He et al. 2020, LightGCN, regulariser of the released code.
    Differs: NGCF's text penalises all parameters; the released code, which this follows, the
    vectors of the batch.
    """
    if not embeddings:
        raise ValueError(
            "batch_l2_penalty: expected the vectors of a batch, got none. Pass those of users, "
            "positive and negative items."
        )
    rows = embeddings[0].shape[0] if embeddings[0].ndim else 0
    for place, x in enumerate(embeddings):
        check_floating(f"embeddings[{place}]", x)
        check_rows(f"embeddings[{place}]", x, rows, "Every tensor has one row per triple.")
    squares = [x.to(accumulation_dtype(x.dtype)).square().sum() for x in embeddings]
    return torch.stack(squares).sum() / (2 * max(rows, 1))
