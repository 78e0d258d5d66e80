"""How well two vectors fit a relation: TransR, a translation after a map of its own."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
    check_same_shape,
)
from embedkit.heads._grouped import grouped_linear
from embedkit.ops import accumulation_dtype


def relation_project(
    x: Float[Tensor, "b *n d"], relation: Int[Tensor, " b"], projection: Float[Tensor, "r k d"]
) -> Float[Tensor, "b *n k"]:
    """Vectors in the space of their relation:  W_r x.

    Rows of one relation share one product; no map is copied for a row.

    Args:
        x: one vector per row, or several with the same relation; half precision is computed in
            float32.
        relation: 0 to r - 1, one for each row.
        projection: W_r of every relation.

    Returns:
        W_r x, in the dtype of ``x``.

    Raises:
        ValueError: if shapes don't fit.
        TypeError: if ``relation`` does not hold integers, or another is not floating.
        IndexError: if a relation is out of range.

    Source: Lin et al. 2015, Learning Entity and Relation Embeddings for Knowledge Graph Completion,
    section 3.2.

    >>> projection = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
    >>> relation_project(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), projection)
    tensor([[2., 1.]])
    """
    return _project(x, relation, projection).to(x.dtype)


def _project(x: Tensor, relation: Tensor, projection: Tensor) -> Tensor:
    """In float32 or wider."""
    check_floating("x", x)
    check_floating("projection", projection)
    check_ndim("projection", projection, "r k d")
    check_integer("relation", relation, "One number of a relation per row.")
    check_ndim("relation", relation, "b")
    check_rows("x", x, relation.shape[0], "One row per relation.")
    check_last_dim("x", x, projection.shape[2], "W_r fits one width.")
    wide = accumulation_dtype(torch.promote_types(x.dtype, projection.dtype))
    rows, several = x.to(wide).flatten(0, -2), x.shape[1:-1].numel()
    group = relation.long().repeat_interleave(several, output_size=rows.shape[0])
    try:
        with _no_autocast(x):
            mapped: Tensor = grouped_linear(rows, projection.to(wide), group)
    except (RuntimeError, IndexError, ValueError) as error:
        if torch.compiler.is_compiling() or relation.is_meta or not relation.numel():
            raise
        low, high = int(relation.min()), int(relation.max())
        if low >= 0 and high < projection.shape[0]:
            raise
        raise IndexError(
            f"relation: must be 0 to {projection.shape[0] - 1}, one of {projection.shape[0]} "
            f"relations, got {low} to {high}. Count inverse relations too."
        ) from error
    return mapped.reshape(*x.shape[:-1], mapped.shape[1])


def transr_distance(
    head: Float[Tensor, "b d"],
    relation: Int[Tensor, " b"],
    tail: Float[Tensor, "b *n d"],
    translation: Float[Tensor, "r k"],
    projection: Float[Tensor, "r k d"],
) -> Float[Tensor, "b *n"]:
    """How far a tail is from where its relation takes a head:  || W_r h + e_r - W_r t ||^2.

    The difference is taken before the map, so a triple costs one product, and its rounding does
    not grow with the length of the vectors. Minus the distance is a score:
    ``bpr_loss(-distance(true), -distance(corrupt))`` is KGAT's loss of triples.

    Args:
        head: vectors of the heads.
        relation: 0 to r - 1.
        tail: vectors of the tails, one per head (b, d) or n of them (b, n, d).
        translation: e_r of every relation.
        projection: W_r of every relation.

    Returns:
        (b,) or (b, n) squared distances, >= 0, in float32 or wider: they overflow half precision.

    Raises:
        ValueError: if shapes don't fit.
        TypeError: if ``relation`` does not hold integers, or another is not floating.
        IndexError: if a relation is out of range.

    Source: Lin et al. 2015, Learning Entity and Relation Embeddings for Knowledge Graph Completion,
    eq. 8; Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation, eq. 1.
    Differs: vectors are taken as they are, without the paper's bounds on their lengths, as in
    KGAT's released code.
    """
    for name, x in (("head", head), ("tail", tail), ("translation", translation)):
        check_floating(name, x)
    check_ndim("head", head, "b d")
    if tail.ndim not in (2, 3):
        raise ValueError(
            f"tail: expected one tail per head, (b, d), or several, (b, n, d), "
            f"got shape {tuple(tail.shape)}"
        )
    check_rows("tail", tail, head.shape[0], "Each head has tails of its own.")
    check_last_dim("tail", tail, head.shape[1], "Heads and tails share a table.")
    check_ndim("translation", translation, "r k")
    if projection.ndim == 3:
        check_same_shape(
            "e_r lives where W_r leads.", translation=translation, projection=projection[:, :, 0]
        )
    wide = accumulation_dtype(torch.promote_types(head.dtype, tail.dtype))
    start = head if tail.ndim == 2 else rearrange(head, "b d -> b 1 d")
    mapped = _project(start.to(wide) - tail.to(wide), relation, projection)
    moved = translation.to(mapped.dtype)[relation.long()]
    if tail.ndim == 3:
        moved = rearrange(moved, "b k -> b 1 k")
    return (mapped + moved).square().sum(dim=-1)


def _no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """No autocast; the meta device has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class TransR(nn.Module):
    """:func:`transr_distance` with a vector and a map learned for each relation.

    Vectors of heads and tails come from a table that the rest of the model shares, so the table
    stays outside. A vector means something for a relation only after its map: :meth:`project`.

    Args:
        num_relations: how many there are, inverse ones included (``graph.num_relations``).
        dim: width of the vectors.
        relation_dim: width of the space of a relation; None: ``dim``.
        init: "xavier", KGAT's, drawn for each map by itself; or "identity", TransR's: a relation
            begins as a translation of the vectors as they are (of the first ``relation_dim``).

    Raises:
        ValueError: if a number is below 1, ``init`` is another, or shapes don't fit.
        IndexError: if a relation is out of range.

    Source: Lin et al. 2015, Learning Entity and Relation Embeddings for Knowledge Graph Completion,
    section 3.2; Wang et al. 2019, KGAT: Knowledge Graph Attention Network for Recommendation,
    section 3.1.
    Differs: Xavier's bound is that of each k x d map; the released code takes it from the shape of
    all maps together, where many relations make it smaller.

    >>> head, tail = torch.randn(3, 8), torch.randn(3, 5, 8)
    >>> TransR(num_relations=4, dim=8)(head, torch.tensor([0, 3, 3]), tail).shape
    torch.Size([3, 5])
    """

    def __init__(
        self,
        num_relations: int,
        dim: int,
        relation_dim: int | None = None,
        init: Literal["xavier", "identity"] = "xavier",
    ) -> None:
        super().__init__()
        relation_dim = dim if relation_dim is None else relation_dim
        for name, value in (
            ("num_relations", num_relations),
            ("dim", dim),
            ("relation_dim", relation_dim),
        ):
            check_at_least("TransR", name, value, 1)
        check_choice("TransR", "init", init, ("xavier", "identity"))
        self.init = init
        self.translation = nn.Parameter(torch.empty(num_relations, relation_dim))
        self.projection = nn.Parameter(torch.empty(num_relations, relation_dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw translations, and each map by itself."""
        nn.init.xavier_uniform_(self.translation)
        with torch.no_grad():
            if self.init == "identity":
                self.projection.copy_(torch.eye(*self.projection.shape[1:]))
                return
            for one in self.projection:
                nn.init.xavier_uniform_(one)

    def forward(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Heads (b, d), relations (b,), tails (b, d) or (b, n, d) -> distances (b,) or (b, n)."""
        return transr_distance(head, relation, tail, self.translation, self.projection)

    def project(self, x: Tensor, relation: Tensor) -> Tensor:
        """Vectors (b, *n, d) in the space of their relations (b,): (b, *n, relation_dim)."""
        return relation_project(x, relation, self.projection)

    def extra_repr(self) -> str:
        """What was asked for."""
        num_relations, relation_dim, dim = self.projection.shape
        return f"num_relations={num_relations}, dim={dim}, relation_dim={relation_dim}"
