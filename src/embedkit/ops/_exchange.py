"""What ranks tell each other before and while rows travel, so that none waits in vain.

Every gathering opens with a small header in which ranks compare notes. A rank that can't go on
says so there, and all ranks raise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _resolve_process_group
from torch.distributed.distributed_c10d import GroupName

_DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
]
_AXES, _WORDS = 6, 40  # most axes after the first; room for 320 bytes of a message


class Ranks(NamedTuple):
    """The name by which operators find a process group, and its number of ranks."""

    name: str
    size: int


def find_ranks(owner: str, group: dist.ProcessGroup | bool | None) -> Ranks:
    """The ranks that take part; True and None mean all."""
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError(
            f"{owner}: no process group. Call torch.distributed.init_process_group() first "
            "(torchrun sets what it reads), or leave gathering off."
        )
    if group is None or isinstance(group, bool):
        group = dist.group.WORLD
    if not isinstance(group, dist.ProcessGroup) or dist.get_rank(group) < 0:
        raise ValueError(
            f"{owner}: rank {dist.get_rank()} is not in the process group it was given. Only "
            "members may call: branch on torch.distributed.get_rank(group) >= 0."
        )
    return Ranks(group.group_name, dist.get_world_size(group))


def find_group(name: str) -> dist.ProcessGroup:
    """The group of that name."""
    return _resolve_process_group(GroupName(name))


def withdraw(ranks: Ranks, device: torch.device, error: Exception) -> None:
    """Tell the ranks that wait in a gathering why this one won't come; they raise, too."""
    if not torch.compiler.is_compiling():
        _exchange([0] * (_AXES + 6), f"{error}", find_group(ranks.name), device)


def agree(x: Tensor, ids: Tensor | None, with_grad: bool, group: dist.ProcessGroup) -> list[int]:
    """The number of rows of every rank, after all have seen that they fit together."""
    if x.ndim > _AXES + 1 or x.dtype not in _DTYPES:
        raise TypeError(f"gathering rows: can't gather {x.ndim} axes of {x.dtype}")
    known = -1 if ids is None else _DTYPES.index(ids.dtype)
    shape = [*x.shape[1:], *[-1] * (_AXES + 1 - x.ndim)]
    facts = [1, len(x), _DTYPES.index(x.dtype), int(with_grad), known, x.ndim, *shape]
    everyone = _exchange(facts, "", group, x.device)
    for rank, other in enumerate(everyone):
        if other[2:] != everyone[0][2:]:
            raise ValueError(
                f"gathering rows: rank {rank} holds {_describe(other)}, but rank 0 holds "
                f"{_describe(everyone[0])}. Only the number of rows may differ between ranks."
            )
    return [facts[1] for facts in everyone]


def _describe(facts: list[int]) -> str:
    _, rows, dtype, with_grad, ids, ndim, *shape = facts
    shown = ", ".join(str(n) for n in (rows, *shape[: ndim - 1]))
    grad = "with" if with_grad else "without"
    known = "no ids" if ids < 0 else f"{_DTYPES[ids]} ids"
    return f"({shown}) {_DTYPES[dtype]} {grad} gradient and {known}"


def _exchange(
    facts: list[int], message: str, group: dist.ProcessGroup, device: torch.device
) -> list[list[int]]:
    """All ranks' facts; raises where another rank has withdrawn."""
    text = message.encode()[: 8 * _WORDS].ljust(8 * _WORDS)
    words = [int.from_bytes(text[i : i + 8], "little", signed=True) for i in range(0, len(text), 8)]
    mine = torch.tensor([*facts, *words], device=device)
    everyone = mine.new_empty(dist.get_world_size(group) * len(mine))
    with told():
        dist.all_gather_single(everyone, mine, group)
    table = everyone.view(-1, len(mine)).tolist()
    for rank, row in enumerate(table):
        if facts[0] and not row[0]:
            said = b"".join(word.to_bytes(8, "little", signed=True) for word in row[-_WORDS:])
            raise RuntimeError(
                f"gathering rows: rank {rank} stopped before it gathered, with: "
                f"{said.decode(errors='ignore').strip()}"
            )
    return [row[:-_WORDS] for row in table]


@contextmanager
def told() -> Iterator[None]:
    """Put into words what a backend says when a rank is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "embedkit: a collective failed: another rank died, left, or did not come (to backward, "
            "too) before the timeout of the process group. Look for the first error on the other "
            "ranks."
        ) from error
