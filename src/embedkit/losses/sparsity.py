"""Regularisers that make activations sparse, and their inverted index short and even."""

from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_floating, check_ndim
from embedkit.ops import accumulation_dtype


def flops_regularizer(activations: Float[Tensor, "b v"]) -> Float[Tensor, ""]:
    """Smooth count of the work of a search in an inverted index:  sum_j (mean_b |a_bj|)^2.

    The square makes an entry that is active in most rows dear and one that is active in few cheap,
    so it shortens the longest lists first; :func:`l1_regularizer` presses on all alike. Add it to a
    ranking loss with a small weight that grows over the first steps, and a weight of their own for
    queries and for documents.

    Args:
        activations: rows that should become sparse, e.g. of :class:`embedkit.pooling.SparsePool`.

    Returns:
        A scalar in float32 or wider; 0 for an empty batch. It is not a mean over rows: on several
        devices take it of ``gather_rows(activations)``.

    Raises:
        TypeError: if ``activations`` are not floating point.
        ValueError: if they have not two axes.

    Source: Paria et al. 2020, Minimizing FLOPs to Learn Efficient Sparse Representations;
    Formal et al. 2021, SPLADE: Sparse Lexical and Expansion Model for First Stage Ranking.

    >>> import torch
    >>> flops_regularizer(torch.tensor([[1.0, 0.0], [3.0, -2.0]]))
    tensor(5.)
    """
    return _mean_size(activations).square().sum()


def l1_regularizer(activations: Float[Tensor, "b v"]) -> Float[Tensor, ""]:
    """Sum of the sizes of a row's entries, averaged over rows:  mean_b sum_j |a_bj|.

    Args:
        activations: rows that should become sparse.

    Returns:
        A scalar in float32 or wider; 0 for an empty batch.

    Raises:
        TypeError: if ``activations`` are not floating point.
        ValueError: if they have not two axes.

    Source: Formal et al. 2021, SPLADE: Sparse Lexical and Expansion Model for First Stage Ranking,
    section 3 (what FLOPS is compared with).

    >>> import torch
    >>> l1_regularizer(torch.tensor([[1.0, 0.0], [3.0, -2.0]]))
    tensor(3.)
    """
    return _mean_size(activations).sum()


def _mean_size(activations: Tensor) -> Tensor:
    check_floating("activations", activations)
    check_ndim("activations", activations, "b v")
    wide = activations.to(accumulation_dtype(activations.dtype))
    return wide.abs().sum(dim=0) / max(wide.shape[0], 1)
