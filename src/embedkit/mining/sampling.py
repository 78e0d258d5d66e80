"""Negatives drawn for users of a click matrix, never an item that the user clicked."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from embedkit._checks import check_at_least, check_integer, check_ndim, check_same_shape

_MOST = 2**62  # keys user * total + weight are int64


class UniformNegativeSampler:
    """Draws items that a user did not click, each as likely as the other.

    Nothing is drawn and thrown away. Of a user with n clicks, p_0 < p_1 < ..., a number r is drawn
    among the M - n items that are left, and the r-th of these is  r + #{j : p_j - j <= r}:  one
    binary search in a sorted array of all clicks, whether a user clicked two items or all but two.

    A plain object and no Module: it learns nothing and is made again from the training pairs, which
    don't belong in a ``state_dict``. It lives on the device of the pairs, keeps 8 bytes for each,
    and takes users of the same device. Ranks draw for their own users with their own generators.

    Args:
        user: the user of each training pair, integers >= 0, numbered from 0 without large gaps.
        item: its item, 0 to num_items - 1. A pair may come several times.
        num_items: M.

    Raises:
        TypeError: if users or items are not integers.
        ValueError: if there is not one item per user, one is out of range, or ids are too large.

    Source: Rendle et al. 2009, BPR: Bayesian Personalized Ranking from Implicit Feedback (uniform
    negatives); Wang et al. 2019, Neural Graph Collaborative Filtering, sampling of the released
    code.
    Differs: the place among the items left is computed, where the released code draws again
    until it meets no click. The distribution is the same.

    >>> sampler = UniformNegativeSampler(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), 3)
    >>> sampler(torch.tensor([0, 0]), 2)
    tensor([[1, 1],
            [1, 1]])
    """

    def __init__(self, user: Int[Tensor, " m"], item: Int[Tensor, " m"], num_items: int) -> None:
        self.num_items = num_items
        user, item = _check_pairs("UniformNegativeSampler", user, item, num_items)
        self._gaps = _arrange(user, item, num_items, None)

    def __call__(
        self, users: Int[Tensor, " b"], k: int = 1, *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "b k"]:
        """Draw k items for each user, independently, so that one may come twice.

        Args:
            users: integers >= 0; one without training pairs may get any item.
            k: items per user, >= 1.
            generator: None: torch's own, of the device.

        Raises:
            TypeError: if ``users`` are not integers.
            ValueError: if ``k`` is below 1, a user is negative, or one has clicked every item.
        """
        drawn, index = _draw("UniformNegativeSampler", self._gaps, users, k, generator)
        return drawn + index


class PopularityNegativeSampler:
    """Draws items that a user did not click, as likely as count^power, by exact integer weights.

    Popular items that a user left out are harder negatives than items that nobody knows. Weights
    are rounded to integers of as many bits as fit, at least 1 for a clicked item; an item without
    clicks is never drawn. Everything else is as in :class:`UniformNegativeSampler`, on a line where
    each item takes as much room as its weight. Keeps 16 bytes per pair and 8 per item.

    Args:
        user: the user of each training pair, integers >= 0, numbered from 0 without large gaps.
        item: its item, 0 to num_items - 1. A pair may come several times, and counts once.
        num_items: how many items there are.
        power: 0.75 is word2vec's; 1 is the popularity itself, 0 uniform over clicked items.

    Raises:
        TypeError: if users or items are not integers.
        ValueError: if there is not one item per user, one is out of range, ids are too large, or
            ``power`` is negative.

    Source: Mikolov et al. 2013, Distributed Representations of Words and Phrases and their
    Compositionality, sec. 2.2 (power 3/4).
    Differs: the user's own items are left out.

    >>> sampler = PopularityNegativeSampler(torch.tensor([0, 1, 2]), torch.tensor([0, 2, 2]), 3)
    >>> sampler(torch.tensor([0, 1]), 3)
    tensor([[2, 2, 2],
            [0, 0, 0]])
    """

    def __init__(
        self,
        user: Int[Tensor, " m"],
        item: Int[Tensor, " m"],
        num_items: int,
        *,
        power: float = 0.75,
    ) -> None:
        if not 0 <= power < math.inf:
            raise ValueError(
                f"PopularityNegativeSampler: power must be >= 0, got {power:g}. Counts are raised "
                "to it; 0.75 is usual."
            )
        self.num_items, self.power = num_items, power
        user, item = _check_pairs("PopularityNegativeSampler", user, item, num_items)
        count = torch.bincount(item, minlength=num_items).double()
        share = torch.where(count > 0, count.clamp(min=1).pow(power), 0.0)
        most = min(_MOST // (_users(user) + 1), 2**52)
        weight = (share / share.sum().clamp(min=1) * (most - num_items)).round().long()
        weight = torch.where(count > 0, weight.clamp(min=1), 0)
        self._ends = weight.cumsum(0)
        self._gaps = _arrange(user, item, num_items, weight)

    def __call__(
        self, users: Int[Tensor, " b"], k: int = 1, *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "b k"]:
        """Draw k items for each user; arguments as in :class:`UniformNegativeSampler`.

        Raises:
            TypeError: if ``users`` are not integers.
            ValueError: if ``k`` is below 1, a user is negative, or one has clicked every item that
                anybody clicked.
        """
        drawn, skipped = _draw("PopularityNegativeSampler", self._gaps, users, k, generator)
        return torch.searchsorted(self._ends, drawn + skipped, right=True)


class _Gaps(NamedTuple):
    """Clicked pairs in order of user and item, on a line where items have lengths.

    key: user * total + room left free by the user before this item.
    covered: (m + 1) lengths of all pairs before; None: every length is 1.
    total: length of the line.
    users: every known user is below.
    """

    key: Tensor
    covered: Tensor | None
    total: int
    users: int


def _users(user: Tensor) -> int:
    return int(user.max()) + 1 if user.numel() else 0


def _check_pairs(owner: str, user: Tensor, item: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
    """The distinct pairs, in order of user and item."""
    check_at_least(owner, "num_items", num_items, 1)
    check_integer("user", user)
    check_integer("item", item)
    check_ndim("user", user, "m")
    check_same_shape("One item per user.", user=user, item=item)
    user, item = user.long(), item.long()
    for name, ids, end in (("user", user, _MOST), ("item", item, num_items)):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < end:
            raise ValueError(
                f"{owner}: {name} must be 0 to {'...' if name == 'user' else end - 1}, got "
                f"{int(ids.min())} to {int(ids.max())}. Number users and items from 0, each for "
                "themselves; in a graph of both, take off the number of users."
            )
    if (_users(user) + 1) * num_items > _MOST:
        raise ValueError(
            f"{owner}: users up to {_users(user) - 1} and {num_items} items don't fit into one "
            "64-bit key. Number the users from 0: user.unique(return_inverse=True)[1]."
        )
    key = torch.unique(user * num_items + item)
    return key // num_items, key % num_items


def _arrange(user: Tensor, item: Tensor, num_items: int, weight: Tensor | None) -> _Gaps:
    """Where each user's free room lies, from distinct pairs in order."""
    first = torch.searchsorted(user, user)
    if weight is None:
        before = torch.arange(user.shape[0], device=user.device) - first
        return _Gaps(user * num_items + item - before, None, num_items, _users(user))
    covered = torch.cat([weight.new_zeros(1), weight[item].cumsum(0)])
    total = int(weight.sum())
    free = (weight.cumsum(0) - weight)[item] - (covered[:-1] - covered[first])
    return _Gaps(user * total + free, covered, total, _users(user))


def _draw(
    owner: str, gaps: _Gaps, users: Tensor, k: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Points of each user's free room, and how much is covered before them, (b, k) each."""
    check_integer("users", users)
    check_ndim("users", users, "b")
    check_at_least(owner, "k", k, 1)
    if users.numel() and int(users.min()) < 0:
        raise ValueError(f"{owner}: users must be >= 0, got {int(users.min())}")
    base = users.long().clamp(max=gaps.users) * gaps.total
    start = torch.searchsorted(gaps.key, base)
    end = torch.searchsorted(gaps.key, base + gaps.total)
    covered = gaps.covered
    taken = end - start if covered is None else covered[end] - covered[start]
    free = gaps.total - taken
    if users.numel() and int(free.min()) <= 0:
        full = users[free <= 0]
        raise ValueError(
            f"{owner}: user {int(full[0])} has clicked every item that could be drawn, as have "
            f"{len(full)} of {len(users)} users here, so there is no negative. Leave them out."
        )
    # The remainder of 62 bits favours no point by more than free / 2^62.
    drawn = torch.randint(_MOST, (len(users), k), generator=generator, device=users.device)
    drawn = drawn % free[:, None]
    passed = torch.searchsorted(gaps.key, base[:, None] + drawn, right=True)
    if covered is None:
        return drawn, passed - start[:, None]
    return drawn, covered[passed] - covered[start][:, None]
