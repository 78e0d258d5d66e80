"""Who matches whom, from integer ids, in linear time and memory."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from embedkit._checks import check_integer, check_rows


class Ids(NamedTuple):
    """Integer ids of queries (q,) and keys (k,); equal ids mean the same thing."""

    query: Int[Tensor, " q"]
    key: Int[Tensor, " k"]

    def swapped(self) -> "Ids":
        """The ids seen from the keys."""
        return Ids(self.key, self.query)


def resolve_labels(labels: Tensor, rows: int) -> Ids:
    """Check the labels of rows that are queries and keys at once."""
    check_integer("labels", labels, "Labels say by equality who matches; number the classes.")
    check_rows("labels", labels, rows, "One label per row.")
    return Ids(labels.long(), labels.long())


def resolve_ids(
    query_ids: Tensor | None, key_ids: Tensor | None, queries: int, keys: int
) -> Ids | None:
    """Check the ids; a side that is missing takes those of its partner: row i goes with key i."""
    if query_ids is None and key_ids is None:
        return None
    for name, ids in (("query_ids", query_ids), ("key_ids", key_ids)):
        if ids is not None:
            check_integer(name, ids, "Ids say by equality who matches; map names to integers.")
            if ids.ndim != 1:
                raise ValueError(f"{name}: expected one id per row, got shape {tuple(ids.shape)}")
    if query_ids is not None and key_ids is None:
        if keys != queries:
            raise ValueError(
                f"key_ids: needed with {keys} keys for {queries} queries, got None. "
                "query_ids can stand for both only where row i's key is key i; give surplus "
                "keys ids of their own."
            )
        key_ids = query_ids
    if query_ids is None and key_ids is not None:
        query_ids = key_ids[:queries]
    assert query_ids is not None
    assert key_ids is not None
    check_rows("query_ids", query_ids, queries, "One id per query.")
    check_rows("key_ids", key_ids, keys, "One id per key, surplus keys included.")
    return Ids(query_ids.long(), key_ids.long())


def match_counts(ids: Ids) -> Int[Tensor, " q"]:
    """Number of keys with each query's id."""
    ordered = ids.key.sort().values
    first = torch.searchsorted(ordered, ids.query)
    return torch.searchsorted(ordered, ids.query, right=True) - first
