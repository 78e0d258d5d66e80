"""SDNE's loss: rebuild a node's edges, and keep neighbours' codes together."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import (
    check_floating,
    check_integer,
    check_ndim,
    check_rows,
    check_same_shape,
)
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.ops import accumulation_dtype


def sdne_loss(
    reconstruction: Float[Tensor, "b n"],
    rows: Float[Tensor, "b n"],
    code: Float[Tensor, "b d"],
    nodes: Int[Tensor, " b"] | None = None,
    *,
    beta: float = 5.0,
    alpha: float = 1e-2,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Row loss:  sum_j (b_ij (r_ij - x_ij))^2  +  alpha sum_j x_ij |y_i - y_j|^2.

    x are rows of the adjacency, r what was rebuilt, y the codes; b_ij = ``beta`` where x_ij > 0,
    else 1, because most entries are 0 and an edge that is missed costs more than one too many. The
    second sum runs over the nodes j of the batch. Weight decay is the optimiser's.

    Args:
        reconstruction: of the decoder.
        rows: rows of the adjacency, weights >= 0.
        code: of the encoder.
        nodes: which node each row is, all different; None: the rows are all n nodes in order.
        beta: > 0; what an edge weighs more than none, 5-20.
        alpha: >= 0; what neighbours' codes weigh.
        reduction: "mean" divides by b; "sum" is the paper's.

    Returns:
        A scalar, or (b,) for "none"; an empty batch gives 0.

    Raises:
        ValueError: if shapes do not fit, a node is out of range, ``beta`` is not above 0 or
            ``alpha`` is negative.
        TypeError: if ``nodes`` are not integers, or the others not floating.

    Source: Wang et al. 2016, Structural Deep Network Embedding, eq. 3-5.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> sdne_loss(x, x, torch.tensor([[0.0], [2.0]]), alpha=0.5)
    tensor(2.)
    """
    for name, x in (("reconstruction", reconstruction), ("rows", rows), ("code", code)):
        check_floating(name, x)
        check_ndim(name, x, "b n" if name != "code" else "b d")
    check_same_shape("Row by row.", reconstruction=reconstruction, rows=rows)
    check_rows("code", code, rows.shape[0], "One code per row.")
    _check_weights("sdne_loss", beta, alpha)
    wide = accumulation_dtype(reconstruction.dtype)
    r, x, y = reconstruction.to(wide), rows.to(wide), code.to(wide)
    missed = torch.where(x > 0, beta, 1.0) * (r - x)
    loss = missed.square().sum(dim=1) + alpha * _spread(_within(x, nodes), y)
    everyone = torch.ones_like(loss, dtype=torch.bool)
    return reduce_rows(loss, everyone, reduction)


def _within(rows: Tensor, nodes: Tensor | None) -> Tensor:
    """The edges (b, b) inside the batch."""
    if nodes is None:
        if rows.shape[0] not in (0, rows.shape[1]):
            raise ValueError(
                f"sdne_loss: {rows.shape[0]} rows of {rows.shape[1]} columns are not all nodes, so "
                "nodes= must say which node each row is"
            )
        return rows[:, : rows.shape[0]]
    check_integer("nodes", nodes)
    check_ndim("nodes", nodes, "b")
    check_rows("nodes", nodes, rows.shape[0], "One node per row.")
    try:
        return rows.index_select(1, nodes.long())
    except (IndexError, RuntimeError) as error:
        low, high, count = int(nodes.min()), int(nodes.max()), rows.shape[1]
        if low >= 0 and high < count:
            raise
        raise ValueError(
            f"sdne_loss: nodes must lie in [0, {count - 1}], the columns of rows, got values in "
            f"[{low}, {high}]"
        ) from error


def _spread(edges: Tensor, code: Tensor) -> Tensor:
    """sum_j e_ij |y_i - y_j|^2 of every row, (b,), without a tensor of b x b x d."""
    # Distances do not depend on the origin; near it products lose fewer digits.
    y = code - code.detach().sum(dim=0) / max(code.shape[0], 1)
    squared = y.square().sum(dim=1)
    own = edges.sum(dim=1) * squared + (edges * squared).sum(dim=1)
    return own - 2 * (y * (edges @ y)).sum(dim=1)


def _check_weights(owner: str, beta: float, alpha: float) -> None:
    if not beta > 0:
        raise ValueError(f"{owner}: beta must be > 0, got {beta:g}. Try 5.")
    if not alpha >= 0:
        raise ValueError(f"{owner}: alpha must be >= 0, got {alpha:g}. Try 0.01.")


class SDNELoss(nn.Module):
    """:func:`sdne_loss` with its settings; rows, codes and node numbers come with each call.

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> SDNELoss(alpha=0.5)(x, x, torch.tensor([[0.0], [2.0]]))
    tensor(2.)
    """

    def __init__(
        self, beta: float = 5.0, alpha: float = 1e-2, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        _check_weights("SDNELoss", beta, alpha)
        self.beta, self.alpha, self.reduction = beta, alpha, reduction

    def forward(
        self, reconstruction: Tensor, rows: Tensor, code: Tensor, nodes: Tensor | None = None
    ) -> Tensor:
        """The loss of rebuilt rows (b, n), rows (b, n) and codes (b, d)."""
        return sdne_loss(
            reconstruction,
            rows,
            code,
            nodes,
            beta=self.beta,
            alpha=self.alpha,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"beta={self.beta}, alpha={self.alpha}, reduction={self.reduction!r}"
