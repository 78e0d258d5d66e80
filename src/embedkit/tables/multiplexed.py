"""Unified Embedding: one hashed table for all categorical features."""

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_choice, check_integer
from embedkit.tables._bag import (
    Combiner,
    broken_offsets,
    check_bag,
    combine_bags,
    explain_offsets,
)
from embedkit.tables.hashed import MultiplexedHash

_CHUNKS = "It is the number of look-ups; each brings chunk_dim numbers."
_NOWHERE = 2**62  # no bag starts here: one such start makes the gather of all bags fail

Ids = Tensor | tuple[Tensor, Tensor]


class _Bags(NamedTuple):
    """The ids of one feature, bag after bag; ``axes`` is their shape, None where it is ragged."""

    ids: Int[Tensor, " n"]
    starts: Int[Tensor, " b"]
    axes: tuple[int, ...] | None


def _as_bags(name: str, value: object) -> _Bags:
    name = f"UnifiedEmbedding: {name!r}"
    if not isinstance(value, Tensor):
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(
                f"{name}: expected a tensor of ids or a pair (ids, offsets) of tensors, got "
                f"{type(value).__name__}. Use torch.as_tensor for lists and arrays."
            )
        ids, offsets = value
        check_bag(name, ids, offsets)
        return _Bags(ids.long(), offsets.long(), None)
    check_integer(name, value, "Number the categories, or cut the number into intervals, first.")
    if value.ndim not in (1, 2):
        raise ValueError(
            f"{name}: expected ids (b,), (b, l) or a pair (ids, offsets), got shape "
            f"{tuple(value.shape)}"
        )
    length = value.shape[1] if value.ndim == 2 else 1
    starts = torch.arange(value.shape[0], device=value.device) * length
    return _Bags(value.long().flatten(), starts, tuple(value.shape))


def _join_starts(bags: list[_Bags], chunks: list[int]) -> Int[Tensor, " s"]:
    """Starts in the long list that holds the ids feature by feature, once per chunk."""
    starts, before = [], 0
    for (ids, own, axes), times in zip(bags, chunks, strict=True):
        if axes is None:  # ids of a broken feature must not fall into its neighbour's bags
            own = torch.where(broken_offsets(own, ids.shape[0]), _NOWHERE, own)
        starts += [own + before + chunk * ids.shape[0] for chunk in range(times)]
        before += times * ids.shape[0]
    return torch.cat(starts)


class UnifiedEmbedding(nn.Module):
    """Embed every categorical feature from one shared hashed table.

    g_t(v) = concat_j E[table_tj, bucket_tj(v)]: feature t makes k_t look-ups, each with a hash
    function of its own, and each brings one chunk of ``chunk_dim`` numbers. With several tables
    the look-ups of all features take turns, in the order of declaration.

    There is no vocabulary and one size to choose. Values of one feature that collide cannot be
    told apart; values of different features can, because what follows (a linear layer over the
    concatenated features, say) has weights of its own for each feature. So feed the outputs to
    such a layer: a sum or mean over features undoes the gain. Leave weight decay off the table.

    Args:
        features: name -> number of chunks, 1 to 6 as a rule. The hash depends on a feature's
            place in this mapping, so add new features at the end.
        num_embeddings: rows M of each table. Compare methods at equal num_tables * M * chunk_dim.
        chunk_dim: width of a row; feature t gets k_t * chunk_dim numbers.
        num_tables: how many tables the look-ups take turns in.
        seed: of the hash functions; see :class:`MultiplexedHash`.
        combiner: "mean" or "sum" over the values of a multivalent feature, chunk by chunk; None
            keeps the values of a dense one apart.

    Raises:
        ValueError: if there is no feature, a number of chunks, num_embeddings, chunk_dim or
            num_tables is below 1, or ``combiner`` is unknown.

    Source: Coleman et al. 2023, Unified Embedding: Battle-Tested Feature Representations for
        Web-Scale ML Systems; the look-ups take turns in the tables as in the authors' layer.
    Differs: the hash is splitmix64 (the paper leaves it open); rows start as U(-0.05, 0.05).

    >>> table = UnifiedEmbedding({"user": 2, "tags": 1}, num_embeddings=1000, chunk_dim=8)
    >>> out = table({"user": torch.tensor([7, -1]), "tags": torch.tensor([[3, 5], [5, 6]])})
    >>> out["user"].shape, out["tags"].shape
    (torch.Size([2, 16]), torch.Size([2, 8]))
    """

    first_row: Int[Tensor, "f k"]

    def __init__(
        self,
        features: Mapping[str, int],
        num_embeddings: int,
        chunk_dim: int,
        num_tables: int = 1,
        seed: int = 0,
        combiner: Combiner | None = "mean",
    ) -> None:
        super().__init__()
        if not features:
            raise ValueError("UnifiedEmbedding: features is empty; pass {name: number of chunks}")
        for name, chunks in features.items():
            check_at_least("UnifiedEmbedding", f"features[{name!r}]", chunks, 1, _CHUNKS)
        check_at_least("UnifiedEmbedding", "num_embeddings", num_embeddings, 1)
        check_at_least("UnifiedEmbedding", "chunk_dim", chunk_dim, 1)
        check_at_least("UnifiedEmbedding", "num_tables", num_tables, 1)
        if combiner is not None:
            check_choice("UnifiedEmbedding", "combiner", combiner, ["mean", "sum"])
        self.features = dict(features)
        self.num_tables = num_tables
        self.combiner = combiner
        lookups = max(features.values())
        self.hash = MultiplexedHash(len(features), lookups, num_embeddings, seed)
        self.weight = nn.Parameter(torch.empty(num_tables * num_embeddings, chunk_dim))
        self.register_buffer("first_row", torch.empty(len(features), lookups, dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all rows anew, and give the look-ups their tables again."""
        nn.init.uniform_(self.weight, -0.05, 0.05)
        rows = self.weight.shape[0] // self.num_tables
        start = accumulate(self.features.values(), initial=0)
        for row, first in zip(self.first_row, start, strict=False):
            turn = torch.arange(first, first + row.shape[0], device=row.device)
            row.copy_(turn % self.num_tables * rows)

    @property
    def embedding_dims(self) -> dict[str, int]:
        """Name -> width of the feature's vector; their sum is what a layer over all takes."""
        return {name: chunks * self.weight.shape[1] for name, chunks in self.features.items()}

    def forward(self, inputs: Mapping[str, Ids]) -> dict[str, Tensor]:
        """Vectors of every declared feature, by one gather for all of them.

        Args:
            inputs: name -> ids (b,), dense multivalent ids (b, l), or ragged (ids (n,),
                offsets (b,)) as in ``nn.EmbeddingBag``. Ids are any int64: negative ones too, so -1
                can stand for a missing value and gets rows of its own. Names that were not
                declared are ignored. Features may differ in b.

        Returns:
            Name -> (b, chunks * chunk_dim) in the order of declaration; with ``combiner=None``
            (b, l, chunks * chunk_dim) for a dense multivalent feature. Empty bags give zeros.

        Raises:
            KeyError: if a declared feature is missing.
            TypeError: if ids are not integers.
            ValueError: if a shape is none of these, or offsets do not rise from 0 to at most n.
        """
        if missing := [name for name in self.features if name not in inputs]:
            raise KeyError(
                f"UnifiedEmbedding: no ids for feature {missing[0]!r}; got {', '.join(inputs)}. "
                "Every declared feature is needed: use the id -1 for a missing value."
            )
        bags = [_as_bags(name, inputs[name]) for name in self.features]
        rows = self._rows([bag.ids for bag in bags])
        if self.combiner is None or all(
            bag.axes is not None and len(bag.axes) == 1 for bag in bags
        ):
            return self._gather(rows, bags)
        return self._combine(rows, bags, self.combiner)

    def _rows(self, ids: list[Tensor]) -> tuple[Tensor, ...]:
        """Rows of the stacked tables, (n, chunks) for each feature."""
        feature = torch.arange(len(ids), device=ids[0].device).unbind()
        owner = torch.cat([t.expand(values.shape) for t, values in zip(feature, ids, strict=True)])
        rows = self.hash(torch.cat(ids), owner)
        if self.num_tables > 1:
            rows = rows + self.first_row[owner]
        parts = torch.split(rows, [values.shape[0] for values in ids])
        chunks = self.features.values()
        return tuple(part[:, :count] for part, count in zip(parts, chunks, strict=True))

    def _gather(self, rows: tuple[Tensor, ...], bags: list[_Bags]) -> dict[str, Tensor]:
        """Every value keeps its own vector."""
        vectors = F.embedding(torch.cat([part.flatten() for part in rows]), self.weight)
        parts = torch.split(vectors, [part.numel() for part in rows])
        out = {}
        for (name, chunks), part, bag in zip(self.features.items(), parts, bags, strict=True):
            if bag.axes is None:
                raise ValueError(
                    f"UnifiedEmbedding: {name!r} is ragged, and combiner=None keeps values apart. "
                    'Pad it to (b, l), or build the table with combiner="mean" or "sum".'
                )
            vector = rearrange(part, "(n k) c -> n (k c)", k=chunks)
            out[name] = vector.reshape(*bag.axes, vector.shape[-1])
        return out

    def _combine(
        self, rows: tuple[Tensor, ...], bags: list[_Bags], combiner: Combiner
    ) -> dict[str, Tensor]:
        """The values of one bag become one vector, chunk by chunk."""
        chunks = list(self.features.values())
        flat = torch.cat([chunk for part in rows for chunk in part.unbind(1)])
        try:
            vectors = combine_bags(flat, _join_starts(bags, chunks), self.weight, combiner)
        except (IndexError, RuntimeError) as error:
            for name, bag in zip(self.features, bags, strict=True):
                explain_offsets(f"UnifiedEmbedding: {name!r}", bag.starts, len(bag.ids), error)
            raise
        sizes = [k * bag.starts.shape[0] for k, bag in zip(chunks, bags, strict=True)]
        parts = zip(self.features.items(), torch.split(vectors, sizes), strict=True)
        return {name: rearrange(part, "(k b) c -> b (k c)", k=k) for (name, k), part in parts}

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return (
            f"features={self.features}, num_embeddings={self.weight.shape[0] // self.num_tables}, "
            f"chunk_dim={self.weight.shape[1]}, num_tables={self.num_tables}, "
            f"combiner={self.combiner!r}"
        )
