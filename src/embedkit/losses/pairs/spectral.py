"""Spectral contrastive loss: the contrastive loss whose best linear encoder is known exactly."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_choice, check_floating, check_ndim, check_same_shape
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision


def spectral_contrastive_loss(
    query: Float[Tensor, "b d"],
    key: Float[Tensor, "b d"],
    *,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Matching rows have a large inner product, others are orthogonal.

    Row loss:  -2 x_i.y_i + 1 / (b - 1) sum_{j != i} (x_i.y_j)^2.  The mean over rows does not
    change where query and key are swapped, nor under one rotation of all rows.

    Nothing larger than the inputs or d x d is made: where b <= d the b x b products are, and where
    b > d  sum_j (x_i.y_j)^2 = x_i^T (sum_j y_j y_j^T) x_i  costs b d^2. That form takes the own
    pair's square out of a sum that holds it: beside the term -2 x_i.y_i a relative error of
    eps x_i.y_i / b, so nothing unless rows are thousands long.

    The loss of one batch has no lower bound, since rows that are orthogonal to all others can grow.
    An encoder that serves many more rows than it has dimensions can't do that; where lengths
    explode nevertheless, pass rows of limited length (:func:`embedkit.ops.normalize`).

    Args:
        query: one view, not normalised; lengths matter.
        key: the other view; row i matches row i, all other rows are negatives.
        reduction: "mean" divides by the number of rows.

    Returns:
        A scalar in float32 or wider, or (b,) for "none". One row has no negative and takes no part:
        it gives 0 with a connected graph, as an empty batch does.

    Raises:
        ValueError: if the views differ in shape.
        TypeError: if they are not floating.

    Source: HaoChen et al. 2021, Provable Guarantees for Self-Supervised Deep Learning with
    Spectral Contrastive Loss, the loss on a batch.
    Differs: rows are taken as they are; the authors' code first shortens rows above a given
    length to that length.
    """
    check_choice("spectral_contrastive_loss", "reduction", reduction, ("mean", "sum", "none"))
    check_floating("query", query)
    check_floating("key", key)
    check_ndim("query", query, "b d")
    check_same_shape("Row i of one side goes with row i of the other.", query=query, key=key)
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    x, y = query.to(wide), key.to(wide)
    rows, width = x.shape
    own = (x * y).sum(dim=1)
    with full_precision(x):
        if rows <= width:
            products = x @ y.mT
            squares = (products - products.diagonal().diag()).square().sum(dim=1)
        else:
            squares = ((x @ (y.mT @ y)) * x).sum(dim=1) - own.square()
    row = squares / max(rows - 1, 1) - 2.0 * own
    return reduce_rows(row, torch.full_like(own, rows > 1, dtype=torch.bool), reduction)


class SpectralContrastiveLoss(nn.Module):
    """:func:`spectral_contrastive_loss` with its setting.

    Args:
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> SpectralContrastiveLoss()(torch.eye(3), torch.tensor([[1.0, 1.0, 0.0]]).expand(3, 3))
    tensor(-0.6667)
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("SpectralContrastiveLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.reduction = reduction

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """The loss of two views (b, d), row by row."""
        return spectral_contrastive_loss(query, key, reduction=self.reduction)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"reduction={self.reduction!r}"
