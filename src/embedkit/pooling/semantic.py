"""Semantic attention: several views of the same nodes in, one out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_last_dim,
    check_ndim,
    check_same_shape,
)
from embedkit.ops import accumulation_dtype


def semantic_attention(
    views: Sequence[Float[Tensor, "n d"]] | Float[Tensor, "m n d"],
    weight: Float[Tensor, "h d"],
    bias: Float[Tensor, " h"],
    query: Float[Tensor, " h"],
) -> Float[Tensor, " m"]:
    """How much each view counts:  softmax_r( q . mean_i tanh(F z_i^r + f) ),  one number per view.

    Unlike attention over tokens the weights are shared by all nodes: they say which relation, or
    meta-path, matters for this graph. The views are pooled as  sum_r w_r z^r.

    Args:
        views: vectors of the same n nodes in each view, listed or stacked along a first axis.
        weight: F.
        bias: f.
        query: q.

    Returns:
        Weights >= 0 that add up to 1, in float32 or wider; equal ones where there is no node.

    Raises:
        ValueError: if there is no view, shapes differ, or widths do not fit.
        TypeError: if views are not floating.

    Source: Wang et al. 2019, Heterogeneous Graph Attention Network, eq. 7-8; Yu et al. 2022, MEOW.

    >>> same = torch.ones(2, 3, 4)
    >>> semantic_attention(same, torch.eye(4), torch.zeros(4), torch.ones(4))
    tensor([0.5000, 0.5000])
    """
    if not len(views):
        raise ValueError("views: expected at least one, got none")
    check_same_shape("One row per node in every view.", **_named(views))
    for name, view in _named(views).items():
        check_floating(name, view)
        check_ndim(name, view, "n d")
        check_last_dim(name, view, weight.shape[1], "A pool fits one width: rebuild it or project.")
    wide = accumulation_dtype(views[0].dtype)
    # One after the other: a stack of all would be as large as the views, twice.
    scores = [_score(view.to(wide), weight.to(wide), bias.to(wide), query) for view in views]
    return torch.stack(scores).softmax(dim=0)


def _score(view: Tensor, weight: Tensor, bias: Tensor, query: Tensor) -> Tensor:
    total = torch.tanh(linear(view, weight, bias)).sum(dim=0) / max(view.shape[0], 1)
    return (total.to(view.dtype) * query.to(view.dtype)).sum()


class SemanticAttentionPool(nn.Module):
    """:func:`semantic_attention` with learned weights, and the views mixed by it.

    Args:
        dim: width of the views.
        hidden: units that compare them; None: as many as ``dim``.

    Raises:
        ValueError: if a width is below 1, there is no view, or views do not fit.
        TypeError: if views are not floating.

    Source: Wang et al. 2019, Heterogeneous Graph Attention Network, eq. 7-9; the initialisation
    (Xavier normal, gain 1.414) is that of MEOW's released code.

    >>> SemanticAttentionPool(8)([torch.randn(5, 8), torch.randn(5, 8)]).shape
    torch.Size([5, 8])
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        check_at_least("SemanticAttentionPool", "dim", dim, 1)
        check_at_least("SemanticAttentionPool", "hidden", hidden, 1)
        self.score = nn.Linear(dim, hidden)
        self.query = nn.Parameter(torch.empty(hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the layer and the query anew."""
        nn.init.xavier_normal_(self.score.weight, gain=1.414)
        nn.init.zeros_(self.score.bias)
        nn.init.xavier_normal_(self.query[None], gain=1.414)

    def weights(self, views: Sequence[Tensor] | Tensor) -> Tensor:
        """(m,) how much each view counts; see :func:`semantic_attention`."""
        return semantic_attention(views, self.score.weight, self.score.bias, self.query)

    def forward(self, views: Sequence[Tensor] | Tensor) -> Tensor:
        """m views (n, dim), listed or stacked along a first axis -> (n, dim)."""
        weight = self.weights(views)
        pooled = weight[0] * views[0].to(weight.dtype)
        for share, view in zip(weight[1:], views[1:], strict=True):
            pooled = torch.addcmul(pooled, share, view.to(weight.dtype))
        return pooled.to(views[0].dtype)

    def extra_repr(self) -> str:
        """Sizes for ``print``."""
        return f"dim={self.score.in_features}, hidden={self.score.out_features}"


def _named(views: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
    return {f"view {number}": view for number, view in enumerate(views)}
