"""Who matches whom, from integer ids: counts and sums over matches in linear time and memory."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import check_integer, check_rows


class Ids(NamedTuple):
    """Integer ids of queries (q,) and keys (k,); equal ids mean the same thing."""

    query: Int[Tensor, " q"]
    key: Int[Tensor, " k"]

    def swapped(self) -> "Ids":
        """The ids seen from the keys."""
        return Ids(self.key, self.query)


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


def own_products(
    query: Float[Tensor, "q d"], key: Float[Tensor, "k d"], dims: list[int]
) -> Float[Tensor, "w q"]:
    """Inner product of row i with key i at every width; 0 where there is no key i."""
    rows = min(query.shape[0], key.shape[0])
    product = query[:rows] * key[:rows]
    slices = [product[:, a:b].sum(dim=1) for a, b in zip([0, *dims[:-1]], dims, strict=True)]
    total = torch.stack(slices).cumsum(dim=0)
    return torch.nn.functional.pad(total, (0, query.shape[0] - rows))


def match_counts(ids: Ids) -> Int[Tensor, " q"]:
    """Number of keys with each query's id."""
    ordered = ids.key.sort().values
    first = torch.searchsorted(ordered, ids.query)
    return torch.searchsorted(ordered, ids.query, right=True) - first


def match_products(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    key_factor: Float[Tensor, "w1 k"] | None,
    ids: Ids,
    dims: list[int],
) -> Float[Tensor, "w q"]:
    """Inner product of each row with the sum of its matches at every width, q x k nowhere.

    Keys of one id are summed first: sum_p <q, k_p> = <q, sum_p k_p>.
    """
    keys = key.shape[0]
    if not keys:
        return query.sum(dim=1).expand(len(dims), -1) * 0.0
    ordered = ids.key.sort().values
    group = torch.searchsorted(ordered, ids.key)
    wanted = torch.searchsorted(ordered, ids.query).clamp(max=keys - 1)
    has_match = ordered[wanted] == ids.query
    products = []
    for index, width in enumerate(dims):
        part = key[:, :width]
        if key_factor is not None and index < len(dims) - 1:
            part = part * key_factor[index, :, None]
        sums = torch.zeros_like(part).index_add(0, group, part)
        products.append((query[:, :width] * sums[wanted]).sum(dim=1))
    return torch.stack(products).masked_fill(~has_match, 0.0)
