"""From ids to buckets: hash policies, kept apart from the tables that store the vectors."""

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from embedkit._checks import check_at_least
from embedkit.ops import splitmix64, stable_hash


class MultiplexedHash(nn.Module):
    """Give each feature several hash functions of its own into one shared range of buckets.

    bucket_j(id; feature t) = stable_hash(id, s_tj) mod num_buckets, with the seed
    s_tj = splitmix64(seed 2^32 + t 2^16 + j). Equal ids of different features meet in a bucket no
    more often than chance, 1 / num_buckets, and so do the look-ups of one id.

    The seeds are a persistent int64 buffer: they travel in the state dict, so a reloaded table
    finds its rows again whatever ``seed`` the new Module was built with. They depend on the number
    of the feature, so add new features after the old ones.

    Args:
        num_features: how many features share the buckets, at most 65,536.
        num_lookups: hash functions per feature, at most 65,536.
        num_buckets: size of the range.
        seed: another whole number from 0 to 2^32 - 1 gives other, independent functions.

    Raises:
        ValueError: if a count is below 1, or two (feature, look-up) seeds are equal, which would
            make equal ids of two features always collide.

    Source: Coleman et al. 2023, Unified Embedding: Battle-Tested Feature Representations for
        Web-Scale ML Systems, section on multiplexing.

    >>> MultiplexedHash(2, 3, num_buckets=1000)(torch.tensor([7, 7]), 0)
    tensor([[182, 891,  16],
            [182, 891,  16]])
    """

    seeds: Int[Tensor, "f k"]

    def __init__(
        self, num_features: int, num_lookups: int, num_buckets: int, seed: int = 0
    ) -> None:
        super().__init__()
        check_at_least("MultiplexedHash", "num_features", num_features, 1)
        check_at_least("MultiplexedHash", "num_lookups", num_lookups, 1)
        check_at_least("MultiplexedHash", "num_buckets", num_buckets, 1)
        if not 0 <= seed < 2**32:
            raise ValueError(f"MultiplexedHash: seed must be in [0, 2**32), got {seed}")
        self.num_buckets = num_buckets
        self.seed = seed
        self.register_buffer("seeds", torch.empty(num_features, num_lookups, dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Derive the seeds from ``seed`` again, for instance after ``to_empty``."""
        features, lookups = (torch.arange(size, device="cpu") for size in self.seeds.shape)
        # seed 2^32 wraps to a negative number above 2^31; the 64 bits are what counts
        high = (self.seed << 32) - (2**64 if self.seed >= 2**31 else 0)
        seeds = splitmix64(high + rearrange(features, "f -> f 1") * 2**16 + lookups)
        if len(set(seeds.flatten().tolist())) < seeds.numel():
            raise ValueError(
                f"MultiplexedHash: two of the {tuple(seeds.shape)} (feature, look-up) seeds are "
                "equal, so equal ids of two features would always collide. Use at most 65536 "
                "features and 65536 look-ups."
            )
        self.seeds.copy_(seeds)

    def forward(self, ids: Tensor, feature: int | Tensor) -> Tensor:
        """Buckets of ids.

        Args:
            ids: any integers, any shape (*n).
            feature: the number of the feature that all ids belong to, or one per id in a tensor
                that broadcasts with ``ids``.

        Returns:
            int64 (*n, num_lookups) in [0, num_buckets).

        Raises:
            TypeError: if ``ids`` holds anything but integers.
        """
        return stable_hash(rearrange(ids, "... -> ... 1"), self.seeds[feature]) % self.num_buckets

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        features, lookups = self.seeds.shape
        return (
            f"num_features={features}, num_lookups={lookups}, num_buckets={self.num_buckets}, "
            f"seed={self.seed}"
        )
