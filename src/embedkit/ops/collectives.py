"""Rows and sums of all ranks, differentiated exactly.

One rule: what is differentiated is the sum of the losses of all ranks, and every backward here is
the exact adjoint of its forward. DDP and FSDP2 then divide by the number of ranks, so a loss whose
value is the same global mean on every rank gets the gradient of that mean.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from embedkit.ops._exchange import Ranks, agree, find_group, find_ranks, told


def gather_rows(
    x: Shaped[Tensor, "n *d"], group: dist.ProcessGroup | None = None
) -> Shaped[Tensor, "m *d"]:
    """Rows of all ranks, in the order of ranks, with the exact gradient.

    Backward adds up what every rank's loss says about a row and gives it to the rank that owns it.
    Ranks may hold different numbers of rows, also none. Call it on every rank of the group, and
    run backward on every rank or on none.

    Args:
        x: this rank's rows: floating (differentiable), integer or bool.
        group: the ranks that take part, with any backend; None: all of them.

    Returns:
        The rows of rank 0, then those of rank 1, and so on; the same on every rank.

    Raises:
        ValueError: on every rank, if widths, dtypes or the need for a gradient differ between
            ranks; on a rank that is not in ``group``.
        RuntimeError: without a process group, or where a rank died. Backends notice a closed
            connection at once, a rank that merely hangs after the ``timeout`` of
            ``init_process_group``.

    Differs: ``torch.distributed.nn.functional.all_gather`` wants as many rows on every rank, and
    does not compile.
    """
    return gather_with_ids(x, None, find_ranks("gather_rows", group), own_first=False)[0]


def gather_with_ids(
    x: Tensor, ids: Tensor | None, ranks: Ranks, own_first: bool
) -> tuple[Tensor, Tensor | None]:
    """Rows of all ranks and their ids.

    ``own_first`` moves this rank's rows to the front, where row i stays row i.
    """
    with_grad = torch.is_grad_enabled() and x.requires_grad
    gathered = torch.ops.embedkit.gather_rows(x, ids, *ranks, own_first, with_grad)
    rows, all_ids, _ = gathered
    _promise(rows.shape[0] >= x.shape[0])
    if ids is not None:
        _promise(all_ids.shape[0] == rows.shape[0])
    return rows, None if ids is None else all_ids


def sum_over_ranks(x: Tensor, ranks: Ranks) -> Tensor:
    """The sum of every rank's ``x``; backward adds up the gradients of all ranks."""
    total: Tensor = torch.ops.embedkit.sum_over_ranks(x, ranks.name)
    return total


def mean_gradient(x: Tensor, ranks: Ranks) -> Tensor:
    """``x`` itself; its gradient becomes the mean over ranks, as DDP would make it.

    In a Module under DDP the mean of equal gradients changes nothing; outside, it makes all ranks
    hold the global gradient.
    """
    same: Tensor = torch.ops.embedkit.mean_gradient(x, ranks.name)
    return same


def all_rows(x: Tensor, sizes: list[int], group: dist.ProcessGroup, own_first: bool) -> Tensor:
    """Rows of all ranks, ``sizes`` of them: padded to the longest for the way."""
    most, fixed = max(sizes), x.contiguous()
    if len(x) < most:
        fixed = torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])])
    out = x.new_empty(len(sizes) * most, *x.shape[1:])
    with told():
        dist.all_gather_single(out, fixed, group)
    if not own_first and min(sizes) == most:
        return out
    order = _order(len(sizes), dist.get_rank(group), own_first)
    return torch.cat([out[rank * most : rank * most + sizes[rank]] for rank in order])


def _promise(fact: bool) -> None:
    """Let a compiler know what holds for sizes that only running shows."""
    torch._check(fact)  # type: ignore[no-untyped-call]


def _order(ranks: int, own: int, own_first: bool) -> list[int]:
    return sorted(range(ranks), key=lambda rank: (own_first and rank != own, rank))


def _gather(
    x: Tensor, ids: Tensor | None, group: str, ranks: int, own_first: bool, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    del ranks  # what a compiler keeps is for one number of ranks
    members = find_group(group)
    sizes = agree(x, ids, with_grad, members)
    rows = all_rows(x, sizes, members, own_first)
    none = x.new_empty(0, dtype=torch.long)
    all_ids = none if ids is None else all_rows(ids, sizes, members, own_first)
    return rows, all_ids, torch.tensor(sizes)


def _fake_gather(
    x: Tensor, ids: Tensor | None, group: str, ranks: int, own_first: bool, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    del group, own_first, with_grad
    rows = torch.library.get_ctx().new_dynamic_size()
    none = x.new_empty(0, dtype=torch.long)
    all_ids = none if ids is None else ids.new_empty(rows)
    return x.new_empty(rows, *x.shape[1:]), all_ids, torch.empty(ranks, dtype=torch.long)


def _return(grad: Tensor, own: Tensor, sizes: Tensor, group: str, own_first: bool) -> Tensor:
    """Sum over ranks of what each says about this rank's rows: the adjoint of gathering."""
    ranks, counts = find_group(group), sizes.tolist()
    rank, most = dist.get_rank(ranks), max(counts)
    order = _order(len(counts), rank, own_first)
    padded = grad.new_zeros(len(counts), most, *grad.shape[1:])
    for owner, piece in zip(order, torch.split(grad, [counts[r] for r in order]), strict=True):
        padded[owner, : counts[owner]] = piece
    mine = torch.empty_like(padded[0])
    with told():
        dist.reduce_scatter_single(mine, padded.flatten(0, 1), group=ranks)
    return mine[: own.shape[0]].clone()


def _save_gather(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, ctx.group, _, ctx.own_first, _ = inputs
    ctx.save_for_backward(x.new_empty(x.shape[0], 0), output[2])
    ctx.mark_non_differentiable(output[1], output[2])


def _backward_gather(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    own, sizes = ctx.saved_tensors
    back = torch.ops.embedkit.return_rows(grad, own, sizes, ctx.group, ctx.own_first)
    return back, None, None, None, None, None


def _sum(x: Tensor, group: str) -> Tensor:
    total = x.clone()
    with told():
        dist.all_reduce(total, group=find_group(group))
    return total


def _save_group(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.group = inputs[1]


def _backward_sum(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return torch.ops.embedkit.sum_over_ranks(grad, ctx.group), None


def _backward_mean(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    ranks = dist.get_world_size(find_group(ctx.group))
    return torch.ops.embedkit.sum_over_ranks(grad, ctx.group) / ranks, None


def _register() -> None:
    lib = torch.library
    rows = "(Tensor x, Tensor? ids, str group, int ranks, bool own_first, bool with_grad)"
    lib.define("embedkit::gather_rows", f"{rows} -> (Tensor, Tensor, Tensor)")
    lib.define(
        "embedkit::return_rows",
        "(Tensor grad, Tensor own, Tensor sizes, str group, bool own_first) -> Tensor",
    )
    lib.define("embedkit::sum_over_ranks", "(Tensor x, str group) -> Tensor")
    lib.define("embedkit::mean_gradient", "(Tensor x, str group) -> Tensor")
    implementations: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "gather_rows": (_gather, _fake_gather),
        "return_rows": (_return, lambda g, own, *_: g.new_empty(own.shape[0], *g.shape[1:])),
        "sum_over_ranks": (_sum, lambda x, _: torch.empty_like(x)),
        "mean_gradient": (lambda x, _: x.clone(), lambda x, _: torch.empty_like(x)),
    }
    for name, (real, fake) in implementations.items():
        lib.impl(f"embedkit::{name}", "default", real)
        lib.register_fake(f"embedkit::{name}", fake)
    for name, backward, save in (
        ("gather_rows", _backward_gather, _save_gather),
        ("sum_over_ranks", _backward_sum, _save_group),
        ("mean_gradient", _backward_mean, _save_group),
    ):
        lib.register_autograd(f"embedkit::{name}", backward, setup_context=save)


_register()
