"""What a contrastive loss asks of the engine, checked before anything is computed."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from embedkit._checks import (
    check_choice,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
    check_weight,
    check_widths,
)
from embedkit.losses._matches import Ids, resolve_ids, resolve_labels
from embedkit.losses._reduce import Reduction

SameId = Literal["positive", "ignore"]
Similarity = Literal["cosine", "dot"]
Gather = bool | dist.ProcessGroup


class Request(NamedTuple):
    """What one loss asks of the engine. ``owner`` is the name that errors speak with.

    form: "softmax" (positives stay in the denominator), "decoupled" (they don't) or "sigmoid".
    same_rows: the first keys are the queries, and no row is its own candidate.
    gather: keys and ids of all ranks (of a group) are candidates; rows stay where they are.
    memory: further keys, the same on every rank, which are never gathered.
    """

    owner: str
    temperature: float | Tensor
    form: Literal["softmax", "decoupled", "sigmoid"] = "softmax"
    bias: Tensor | None = None
    query_ids: Tensor | None = None
    key_ids: Tensor | None = None
    same_id: SameId = "positive"
    same_rows: bool = False
    negative: Tensor | None = None
    negative_mask: Tensor | None = None
    weight: Tensor | None = None
    symmetric: bool = False
    similarity: Similarity = "cosine"
    dims: Sequence[int] | None = None
    dim_weights: Sequence[float] | None = None
    reduction: Reduction = "mean"
    gather: Gather = False
    memory: Tensor | None = None
    memory_ids: Tensor | None = None


class Checked(NamedTuple):
    """The widths, the ids if any, and whether row i's one positive is key i."""

    dims: list[int]
    ids: Ids | None
    own: bool


def check_request(query: Tensor, key: Tensor, r: Request) -> Checked:
    """Raise where tensors and options do not fit each other."""
    dims = _check(query, key, r)
    if r.memory is not None:
        _check_memory(r.memory, query.shape[1], r)
    if r.same_rows and r.query_ids is not None:
        return Checked(dims, resolve_labels(r.query_ids, query.shape[0]), own=False)
    ids = resolve_ids(r.query_ids, r.key_ids, query.shape[0], key.shape[0])
    own = ids is None or r.same_id == "ignore"
    if key.shape[0] < query.shape[0] and own:
        raise ValueError(
            f"key: expected at least {query.shape[0]} rows, one per query, got shape "
            f"{tuple(key.shape)}. Without ids row i matches key i."
        )
    return Checked(dims, ids, own)


def _check_memory(memory: Tensor, width: int, r: Request) -> None:
    check_floating("memory", memory)
    check_ndim("memory", memory, "m d")
    check_last_dim("memory", memory, width, "Memory and keys meet in one space.")
    if r.symmetric:
        raise ValueError(
            f"{r.owner}: a memory is searched and never searches, so symmetric=True has no "
            "meaning with it; average two calls, each with its own memory."
        )
    with_ids = r.query_ids is not None or r.key_ids is not None
    if with_ids != (r.memory_ids is not None):
        raise ValueError(
            f"{r.owner}: ids of the memory and of the batch go together, got "
            f"{'none' if r.memory_ids is None else 'some'} for the memory and "
            f"{'some' if with_ids else 'none'} for the batch."
        )
    if r.memory_ids is not None:
        check_integer("memory_ids", r.memory_ids, "Ids say by equality who matches.")
        check_rows("memory_ids", r.memory_ids, memory.shape[0], "One id per row of the memory.")


def remembered(key: Tensor, ids: Ids | None, r: Request) -> tuple[Tensor, Ids | None]:
    """Keys with those of the memory behind them."""
    if r.memory is None:
        return key, ids
    if ids is not None and r.memory_ids is not None:
        ids = Ids(ids.query, torch.cat([ids.key, r.memory_ids.long()]))
    return torch.cat([key, r.memory]), ids


def _check(query: Tensor, key: Tensor, r: Request) -> list[int]:
    check_floating("query", query)
    check_floating("key", key)
    check_ndim("query", query, "q d")
    check_ndim("key", key, "k d")
    width = query.shape[1]
    check_last_dim("key", key, width, "Queries and keys meet in one space: project one of them.")
    check_choice(r.owner, "similarity", r.similarity, ("cosine", "dot"))
    check_choice(r.owner, "same_id", r.same_id, ("positive", "ignore"))
    if not isinstance(r.temperature, Tensor):
        hint = "It divides the similarities; try 0.05 for cosine similarity."
        check_positive(r.owner, "temperature", r.temperature, hint)
    elif r.temperature.numel() != 1:
        raise ValueError(
            f"{r.owner}: temperature must be one number, got shape {tuple(r.temperature.shape)}"
        )
    rows = query.shape[0]
    check_weight(r.weight, rows, "query")
    if r.symmetric and key.shape[0] != rows and (r.weight is not None or r.reduction == "none"):
        raise ValueError(
            f"{r.owner}: symmetric with {rows} queries and {key.shape[0]} keys has no row-wise "
            'form: leave out weight and use reduction "mean" or "sum", or drop surplus keys.'
        )
    if r.negative is not None:
        check_ndim("negative", r.negative, "q h d")
        check_rows("negative", r.negative, rows, "Each query has its own negatives.")
        check_last_dim("negative", r.negative, width)
        if r.negative_mask is not None and r.negative_mask.shape != r.negative.shape[:2]:
            raise ValueError(
                f"negative_mask: expected shape {tuple(r.negative.shape[:2])}, "
                f"got {tuple(r.negative_mask.shape)}"
            )
    if r.dims is None:
        return [width]
    check_widths(r.owner, r.dims)
    if r.dims[-1] > width:
        raise ValueError(
            f"{r.owner}: dims go up to {r.dims[-1]}, but embeddings have width {width}"
        )
    if r.dim_weights is not None and len(r.dim_weights) != len(r.dims):
        raise ValueError(
            f"{r.owner}: expected {len(r.dims)} dim_weights, one per width, "
            f"got {len(r.dim_weights)}"
        )
    return list(r.dims)
