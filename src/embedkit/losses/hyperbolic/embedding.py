"""Poincaré and Lorentz embeddings: find each point's relations among all points of a table."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
    check_weight,
)
from embedkit.geometry import poincare
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses._row_blocks import map_row_blocks
from embedkit.losses.temperature import current
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision

Distance = Callable[[Tensor, Tensor], Tensor]
_ENTRIES = 2**20  # of a block of distances
_HINT = "It divides the distances; 1 is that of the papers."


def hyperbolic_info_nce(
    query: Float[Tensor, "b d"],
    table: Float[Tensor, "n d"],
    positive: Int[Tensor, "b *p"],
    *,
    related: Int[Tensor, "b r"] | None = None,
    distance: Distance = poincare.pairwise_distance,
    temperature: float | Tensor = 1.0,
    weight: Float[Tensor, " b"] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Cross-entropy of finding each query's relations among all n points; b x n is never stored.

    Row loss: mean over positives v of  log(exp(-d(u, v) / t) + sum_w exp(-d(u, w) / t)) + d(u, v)
    / t,  w over the points that are no relation of u. Another positive never competes, unlike in
    :func:`info_nce`. Distances are made in blocks of rows, and again in backward: memory is linear
    in b and n.

    A whole hierarchy as the paper has it: queries are all points, ``related`` the point itself, and
    ``weight`` the number of positives, with "sum" over the number of relations. Queries against
    drawn negatives, or those of a batch: :func:`info_nce_from_similarity` of minus the distance.

    Args:
        query: points, in the model of ``distance``.
        table: all points, in which ids count rows, of the same width and dtype.
        positive: ids of each query's relations, (b,) or (b, p); -1 is padding.
        related: further ids that are no negatives: relations that are not asked for now, the
            query itself; -1 is padding.
        distance: of every query to every point, (r, d) and (n, d) to (r, n):
            :func:`embedkit.geometry.poincare.pairwise_distance`, that of ``lorentz``, or a
            ``functools.partial`` with a curvature. ``torch.cdist`` is the Euclidean rival.
        temperature: > 0, in units of the distance, a number or a 0-d tensor.
        weight: importance of each query, >= 0.
        reduction: "mean" divides by the queries that have a positive.

    Returns:
        A scalar, or (b,) for "none", in float32 or wider. Queries without a positive, and empty
        batches, give 0, and so do queries that no point competes for.

    Raises:
        ValueError: if shapes do not fit, an id is not one of the table (looked at on a CPU, outside
            compiled graphs), or ``temperature`` is not > 0.
        TypeError: if points are not floating, or of two dtypes, or ids not integers.

    Source: Nickel and Kiela 2017, Poincaré Embeddings for Learning Hierarchical Representations,
    eq. 5; Nickel and Kiela 2018, Learning Continuous Hierarchies in the Lorentz Model, eq. 10.
    Differs: all points are negatives, where the papers draw 10 to 50; a temperature.
    """
    check_floating("query", query)
    check_floating("table", table)
    check_ndim("query", query, "b d")
    check_ndim("table", table, "n d")
    check_last_dim("table", table, query.shape[1], "Queries and points are in one space.")
    if table.dtype != query.dtype:
        raise TypeError(
            f"table: expected the dtype of query, {query.dtype}, got {table.dtype}. "
            "Use table.to(query.dtype)."
        )
    if not isinstance(temperature, Tensor):
        check_positive("hyperbolic_info_nce", "temperature", temperature, _HINT)
    count, points = query.shape[0], table.shape[0]
    check_weight(weight, count, "query")
    if positive.ndim == 1:
        positive = positive[:, None]
    _check_ids("positive", positive, count, points)
    known = positive
    if related is not None:
        _check_ids("related", related, count, points)
        known = torch.cat([positive, related.to(positive.dtype)], dim=1)
    wide = accumulation_dtype(query.dtype)
    divisor = torch.as_tensor(temperature, dtype=wide, device=query.device)

    def block(
        rows: Tensor, wanted: Tensor, known_: Tensor, others: Tensor, divisor_: Tensor
    ) -> Tensor:
        with full_precision(rows):
            apart = distance(rows, others)
        if apart.shape != (rows.shape[0], points):
            raise ValueError(
                f"distance: expected to give shape ({rows.shape[0]}, {points}), every query of a "
                f"block to every point, got {tuple(apart.shape)}. Pass pairwise_distance, not "
                "distance."
            )
        return _row_losses(-apart.to(wide) / divisor_, wanted, known_)

    taking_part = (positive >= 0).any(dim=1)
    if count == 0 or points == 0:
        row = ((query.sum() + table.sum()) * 0.0).to(wide).expand(count)
    else:
        row = map_row_blocks(
            block, (query, positive, known), (table, divisor), columns=points, entries=_ENTRIES
        )
    return reduce_rows(row if weight is None else row * weight, taking_part, reduction)


def _row_losses(logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """(r,) from logits (r, n), ids of positives (r, p) and of what is no negative (r, k)."""
    rows, points = logits.shape
    out = torch.zeros(rows, points + 1, dtype=torch.bool, device=logits.device)
    out = out.scatter(1, known.long().clamp(min=-1) + 1, True)[:, 1:]  # padding goes to the first
    negatives = logits.masked_fill(out, torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)
    real = wanted >= 0
    found = logits.gather(1, wanted.long().clamp(min=0))
    each = -F.logsigmoid(found - negatives).masked_fill(~real, 0.0)
    return each.sum(dim=1) / real.sum(dim=1).clamp(min=1)


def _check_ids(name: str, ids: Tensor, rows: int, points: int) -> None:
    check_integer(name, ids, "They are row numbers of the table.")
    check_ndim(name, ids, "b p")
    check_rows(name, ids, rows, "One row of ids per query, padded with -1.")
    plain = ids.device.type == "cpu" and not torch.compiler.is_compiling()
    if plain and ids.numel() and not -1 <= int(ids.min()) <= int(ids.max()) < points:
        raise ValueError(
            f"{name}: expected row numbers of the table, 0 to {points - 1}, or -1 for padding, got "
            f"{int(ids.min())} to {int(ids.max())}"
        )


class HyperbolicInfoNCELoss(nn.Module):
    """:func:`hyperbolic_info_nce` with its settings; points and ids come with each call.

    >>> table = torch.tensor([[0.1, 0.2], [0.0, 0.1], [-0.5, 0.5], [0.6, -0.3]])
    >>> HyperbolicInfoNCELoss()(table[:1], table, torch.tensor([1]), related=torch.tensor([[0]]))
    tensor(0.3886)
    """

    def __init__(
        self,
        distance: Distance = poincare.pairwise_distance,
        temperature: float | nn.Module = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not isinstance(temperature, nn.Module):
            check_positive("HyperbolicInfoNCELoss", "temperature", temperature, _HINT)
        check_choice("HyperbolicInfoNCELoss", "reduction", reduction, ("mean", "sum", "none"))
        self.distance, self.temperature, self.reduction = distance, temperature, reduction

    def forward(
        self,
        query: Tensor,
        table: Tensor,
        positive: Tensor,
        *,
        related: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of queries (b, d) against all points (n, d), ids of positives (b, p)."""
        return hyperbolic_info_nce(
            query,
            table,
            positive,
            related=related,
            distance=self.distance,
            temperature=current(self.temperature),
            weight=weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        shown = (
            "" if isinstance(self.temperature, nn.Module) else f"temperature={self.temperature:g}, "
        )
        return f"{shown}reduction={self.reduction!r}"
