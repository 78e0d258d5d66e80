"""The contract of every embedkit Module, for your own Modules too.

``check_module(build, inputs)`` runs every check below on fresh copies and raises an
``AssertionError`` that says which promise was broken and where to look.
"""

import copy
import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["CHECKS", "check_module"]

Build = Callable[[], nn.Module]
Inputs = Callable[[int], tuple[Any, ...]]


def _map(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: _map(change, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        items = [_map(change, value) for value in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    return [t for item in tree for t in _tensors(item)] if isinstance(tree, list | tuple) else []


def _floating(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return _map(lambda t: change(t) if t.is_floating_point() else t, tree)


def _sum(tree: Any) -> Tensor:
    parts = [t.sum() for t in _tensors(tree) if t.is_floating_point()]
    if not parts:
        raise AssertionError("forward returned no floating-point tensor to take a gradient of")
    return torch.stack(parts).sum()


def _state_dict(build: Build, inputs: Inputs) -> None:
    """State goes through ``torch.save`` and a ``weights_only=True`` load into a strict copy."""
    old, new, args, buffer = build(), build(), inputs(4), io.BytesIO()
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(torch.rand_like(parameter) * 0.1)
    torch.save(old.state_dict(), buffer)
    buffer.seek(0)
    new.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    torch.testing.assert_close(new(*args), old(*args), equal_nan=False)


def _copies(build: Build, inputs: Inputs) -> None:
    """``copy.deepcopy`` and ``pickle`` give a Module that computes the same."""
    module, args = build(), inputs(4)
    want = module(*args)
    torch.testing.assert_close(copy.deepcopy(module)(*args), want)
    torch.testing.assert_close(pickle.loads(pickle.dumps(module))(*args), want)


def _gradients(build: Build, inputs: Inputs) -> None:
    """Gradients match finite differences in float64, through inputs and parameters."""
    module = build().double()
    names, weights = list(dict(module.named_parameters())), list(module.parameters())
    args = _map(lambda t: t.double().detach().clone() if t.is_floating_point() else t, inputs(3))
    leaves = [t.requires_grad_() for t in _tensors(args) if t.is_floating_point()]
    if not weights and not leaves:
        raise AssertionError("no parameter and no floating-point input: nothing to differentiate")

    def run(*values: Tensor) -> Any:
        state = dict(zip(names, values, strict=False))
        fresh = iter(values[len(names) :])
        out = functional_call(module, state, _floating(lambda _: next(fresh), args))
        return tuple(t for t in _tensors(out) if t.is_floating_point())

    torch.autograd.gradcheck(run, (*weights, *leaves), fast_mode=True)


def _compile(build: Build, inputs: Inputs) -> None:
    """``torch.compile(fullgraph=True)`` gives one graph whose values and gradients equal eager."""
    module, args = build(), inputs(4)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for call in (module, compiled):
        module.zero_grad()
        leaves = _floating(lambda t: t.detach().clone().requires_grad_(), args)
        out = call(*leaves)
        torch.autograd.backward(_sum(out))
        tensors = (*(t for t in _tensors(leaves) if t.is_floating_point()), *module.parameters())
        results.append((out, [t.grad for t in tensors]))
    torch.testing.assert_close(results[1], results[0])


def _autocast(build: Build, inputs: Inputs) -> None:
    """Under bfloat16 autocast the result stays within 2e-2 of float32."""
    module, args = build(), inputs(4)
    device = next((t.device.type for t in _tensors(args)), "cpu")
    with torch.autocast(device, torch.bfloat16):
        low = module(*args)
    torch.testing.assert_close(
        _floating(Tensor.float, low), _floating(Tensor.float, module(*args)), rtol=2e-2, atol=2e-2
    )


def _empty_batch(build: Build, inputs: Inputs) -> None:
    """An empty batch gives finite output and finite gradients."""
    module, args = build(), _floating(lambda t: t.detach().clone().requires_grad_(), inputs(0))
    out = module(*args)
    torch.autograd.backward(_sum(out))
    leaves = [*_tensors(args), *module.parameters()]
    grads = [t.grad for t in leaves if t.is_floating_point() and t.grad is not None]
    if not grads:
        raise AssertionError("no gradient reached an input or a parameter: is the graph connected?")
    if not all(bool(t.isfinite().all()) for t in (*_tensors(out), *grads)):
        raise AssertionError("output or gradient is not finite: divide by max(count, 1)")


def _moves(build: Build, inputs: Inputs) -> None:
    """``.to("meta")`` (and CUDA when present) and ``.double()`` move all state and the output."""
    devices = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        out = build().to(device)(*_map(lambda t, d=device: t.to(d), inputs(4)))  # type: ignore[misc]
        if any(t.device.type != device for t in _tensors(out)):
            raise AssertionError(f"output is not on {device}: make unlearned tensors buffers")
    out = build().double()(*_floating(Tensor.double, inputs(4)))
    if any(t.dtype != torch.float64 for t in _tensors(out) if t.is_floating_point()):
        raise AssertionError("float64 in, something else out: give back the dtype you were given")


def _seed(build: Build, inputs: Inputs) -> None:  # noqa: ARG001
    """One seed, one Module."""
    torch.manual_seed(0)
    first = build().state_dict()
    torch.manual_seed(0)
    torch.testing.assert_close(build().state_dict(), first)


CHECKS: dict[str, Callable[[Build, Inputs], None]] = {
    "state_dict": _state_dict,
    "copies": _copies,
    "gradients": _gradients,
    "compile": _compile,
    "autocast": _autocast,
    "empty_batch": _empty_batch,
    "moves": _moves,
    "seed": _seed,
}


def check_module(build: Build, inputs: Inputs, exempt: Mapping[str, str] | None = None) -> None:
    """Check that a Module keeps the promises that all embedkit Modules keep.

    Args:
        build: gives a fresh Module at each call, drawing only on torch's global generator.
        inputs: from a batch size (0 included) the tuple of forward's arguments; tensors may sit in
            lists, tuples and dicts.
        exempt: name of a check in ``CHECKS`` -> why this Module cannot keep that promise.

    Raises:
        ValueError: if ``exempt`` names a check that does not exist, or gives no reason.
        AssertionError: naming the promise that was broken, from the error that showed it.

    >>> check_module(lambda: nn.Linear(3, 2), lambda b: (torch.randn(b, 3),))
    """
    exempt = dict(exempt or {})
    if unknown := [n for n, why in exempt.items() if n not in CHECKS or not why]:
        raise ValueError(
            f"check_module: exempt must map a check to a reason, got {unknown}; "
            f"the checks are {', '.join(CHECKS)}"
        )
    for name, check in CHECKS.items():
        if name in exempt:
            continue
        try:
            check(build, inputs)
        except Exception as error:
            raise AssertionError(
                f"{type(build()).__name__} breaks the promise {name!r}: {check.__doc__} "
                f"What happened: {error}"
            ) from error
