"""When encoders reduce gradients over ranks: once per step, in each one's last backward."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from embedkit.batch._chunks import Chunks, change

_DEPTH = 3  # a lambda, the function it calls, and one more


def modules_of(encoder: Callable[..., Any]) -> list[nn.Module]:
    """Modules that a callable reaches: itself, what it is bound to, what its body names."""
    found: dict[nn.Module, None] = {}
    todo: list[tuple[Any, int]] = [(encoder, 0)]
    seen: set[int] = set()
    while todo:
        thing, depth = todo.pop()
        if id(thing) in seen or depth > _DEPTH:
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            found.update(dict.fromkeys(thing.modules()))
        elif isinstance(thing, functools.partial):
            todo += [(t, depth) for t in (thing.func, *thing.args, *thing.keywords.values())]
        elif inspect.ismethod(thing):
            todo += [(thing.__self__, depth), (thing.__func__, depth)]
        elif inspect.isfunction(thing):
            names = inspect.getclosurevars(thing)
            todo += [(t, depth + 1) for t in (*names.nonlocals.values(), *names.globals.values())]
        else:
            held = getattr(thing, "__dict__", {}).values()
            todo += [(t, depth) for t in held if isinstance(t, nn.Module)]
    return list(found)


class Reductions:
    """The modules under DDP or ``fully_shard`` that encoders use, and which use is the last."""

    def __init__(self, encoders: Sequence[Callable[..., Any]], sync: bool) -> None:
        self.modules = [modules_of(encoder) for encoder in encoders]
        self.last_use: dict[Any, int] = {
            module: place
            for place, modules in enumerate(self.modules)
            for module in modules
            if isinstance(module, DistributedDataParallel) or _sharded(module)
        }
        self.sync = sync
        for module in self.last_use:
            if getattr(module, "static_graph", False):
                raise ValueError(
                    "GradientCache: expected DistributedDataParallel without static_graph, got "
                    "static_graph=True. It allows one backward per step; each chunk has its own."
                )

    @contextmanager
    def waiting(self, until: int | None = None) -> Iterator[None]:
        """Nothing is reduced inside, but by modules whose last use is encoder ``until``."""
        with ExitStack() as stack:
            for module, last in self.last_use.items():
                now = self.sync and last == until
                if not _sharded(module):
                    if not now:
                        stack.enter_context(module.no_sync())
                    continue
                _reduce(module, now)
                stack.callback(_reduce, module, True)
            yield

    def even(self, chunks: list[list[Any]], inputs: Sequence[Any]) -> list[list[Any]]:
        """Chunks with empty ones added until every rank has as many.

        Sharded modules gather their parameters in every forward, so ranks must call them equally
        often. DDP needs no such thing: its forward is silent but for the first of a step.
        """
        counts = torch.tensor([sign * len(parts) for sign in (1, -1) for parts in chunks])
        for group, device in _groups(self.last_use):
            counts = counts.to(device)
            dist.all_reduce(counts, op=dist.ReduceOp.MAX, group=group)
        most, least = counts.view(2, -1).tolist()
        for place, parts in enumerate(chunks):
            if isinstance(inputs[place], Chunks) and most[place] != -least[place]:
                raise ValueError(
                    f"GradientCache: input {place}: expected as many Chunks on every rank, got "
                    f"between {-least[place]} and {most[place]}. Sharded encoders gather their "
                    "parameters in every call; add parts without rows."
                )
            empty = [] if len(parts) == most[place] else [change(parts[0], lambda t: t[:0])]
            parts += empty * (most[place] - len(parts))
        return chunks


def _sharded(module: nn.Module) -> bool:
    """Whether ``fully_shard`` was applied to the module."""
    return hasattr(module, "set_requires_gradient_sync") and hasattr(module, "set_is_last_backward")


def _reduce(module: Any, now: bool) -> None:
    module.set_requires_gradient_sync(now, recurse=False)
    module.set_is_last_backward(now)


def _groups(modules: Any) -> list[tuple[dist.ProcessGroup, str]]:
    """The process groups over which sharded modules gather."""
    found: dict[dist.ProcessGroup, str] = {}
    for module in modules:
        if _sharded(module):
            for parameter in module.parameters():
                mesh = getattr(parameter, "device_mesh", None)
                if mesh is not None:
                    found.update(dict.fromkeys(mesh.get_all_groups(), mesh.device_type))
    return list(found.items())


@contextmanager
def statistics_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norms in training normalise as before, but leave running statistics alone."""
    norms: list[Any] = [m for m in modules if getattr(m, "track_running_stats", False)]
    norms = [norm for norm in norms if norm.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def devices_of(modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[torch.device]:
    """The accelerators that hold inputs, parameters or buffers."""
    held = [t for m in modules for t in (*m.parameters(False), *m.buffers(False))]
    found = dict.fromkeys(t.device for t in (*inputs, *held))
    return [device for device in found if device.type not in ("cpu", "meta")]
