"""Gradients of a whole batch in the memory of one chunk (GradCache)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_at_least
from embedkit.batch._chunks import Chunks, change, count_rows, join, split, tensors
from embedkit.batch._reductions import Reductions, devices_of, statistics_kept


class GradientCache:
    """The gradients of ``loss(encoder(x), ...).backward()`` without holding the encoder's graph.

    In three passes: (1) encode chunk by chunk without a graph; (2) the loss of all embeddings, and
    its gradient with respect to them; (3) encode each chunk again, with a graph, and push its rows'
    gradients through it. One chunk's activations live at a time, so memory of the encoder does not
    grow with the batch; time is that of one more forward, 4/3 of the plain step where a backward
    costs two forwards. Random state (dropout) and autocast of pass 1 hold again in pass 3, so
    gradients are those of a plain step that encodes the same chunks.

    A plain object without state: encoders, loss and optimiser stay yours. What runs over ranks in
    the loss (``gather=True``) runs once, in pass 2. Encoders under DistributedDataParallel or
    ``fully_shard`` reduce their gradients once per step, in their last chunk; ranks may hold
    different numbers of rows, also none (an encoder then sees one chunk without rows).

    Rows must not meet inside an encoder. BatchNorm in training normalises each chunk by itself;
    its running statistics change once per chunk, in pass 1 only. Randomness must come from torch's
    global generators. A parameter of the loss belongs outside the encoders' DDP.

    Args:
        encoders: one callable per input, each from one chunk to a tensor (rows, d), or to a nested
            dict, list or tuple of tensors that have the chunk's rows. One encoder may be listed
            several times. A callable that isn't a Module should name the Module it runs (closure,
            global, bound method, partial), where that is under DDP or ``fully_shard``.
        loss: called with one argument per encoder, all rows together; gives a number.
        chunk_size: rows per chunk, >= 1.

    Raises:
        TypeError: if ``encoders`` is one callable and not a sequence.
        ValueError: if there is no encoder, or ``chunk_size`` is below 1.

    Source: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup, sec. 3.
    Differs: random state and autocast are replayed; any number of encoders; one reduction per step
    for an encoder that is used several times.

    >>> from embedkit.losses import InfoNCELoss
    >>> encoder = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1))
    >>> cache = GradientCache([encoder, encoder], InfoNCELoss(), chunk_size=16)
    >>> cache.step(torch.randn(100, 4), torch.randn(100, 4)).shape
    torch.Size([])
    >>> encoder[0].weight.grad.shape
    torch.Size([8, 4])
    """

    def __init__(
        self,
        encoders: Sequence[Callable[..., Any]],
        loss: Callable[..., Tensor],
        chunk_size: int = 32,
    ) -> None:
        if callable(encoders):
            raise TypeError(
                "GradientCache: encoders must be a sequence with one callable per input, got "
                f"{type(encoders).__name__}. Write [encoder], or [encoder, encoder] to share it."
            )
        if not encoders:
            raise ValueError("GradientCache: expected one encoder or more, got none")
        check_at_least("GradientCache", "chunk_size", chunk_size, 1)
        self.encoders, self.loss, self.chunk_size = list(encoders), loss, chunk_size

    def step(
        self,
        *inputs: Any,
        backward: Callable[[Tensor], Any] = Tensor.backward,
        sync: bool = True,
        **named: Any,
    ) -> Float[Tensor, ""]:
        """Add the gradients of one batch to ``.grad``, as ``loss(...).backward()`` would.

        Zeroing, clipping, scaling and the optimiser stay in your loop. An error before pass 3
        (wrong rows, a loss that fails) leaves the encoders' gradients as they were.

        Args:
            inputs: one per encoder: a tensor, or a nested dict, list or tuple of tensors with as
                many rows each, cut into chunks of ``chunk_size`` rows; or :class:`Chunks`, your own
                split. What is no tensor goes to every chunk as it is; mappings arrive as dicts.
            backward: called with the loss in place of ``loss.backward()``, for example
                ``lambda loss: scaler.scale(loss / 4).backward()``. It runs with autocast off.
            sync: False leaves gradients unreduced, for all but the last of several accumulated
                steps under DDP or ``fully_shard``; a surrounding ``no_sync()`` of DDP does, too.
            named: keyword arguments of the loss: ids, labels, weights, keys of a queue.

        Returns:
            The loss, detached. An embedding that the loss does not use gets gradient 0.

        Raises:
            RuntimeError: where gradients are switched off.
            ValueError: if inputs, rows, or what encoders and loss give do not fit.
            TypeError: if an input holds no tensor and is not split.
        """
        if not torch.is_grad_enabled():
            raise RuntimeError(
                "GradientCache: step makes gradients, but they are switched off. Leave no_grad() "
                "or inference_mode(); to evaluate, call encoders and loss yourself."
            )
        if len(inputs) != len(self.encoders):
            raise ValueError(
                f"GradientCache: expected {len(self.encoders)} inputs, one per encoder, got "
                f"{len(inputs)}. List an encoder as often as it has inputs; what the loss alone "
                "needs goes by name."
            )
        reductions = Reductions(self.encoders, sync)
        chunks = [split(f"input {i}", x, self.chunk_size) for i, x in enumerate(inputs)]
        chunks = reductions.even(chunks, inputs)
        modules = list(dict.fromkeys(m for found in reductions.modules for m in found))
        devices = devices_of(modules, list(tensors([chunks, named])))

        random, embeddings, sizes = [], [], []
        with torch.no_grad(), reductions.waiting():
            for place, (encoder, parts) in enumerate(zip(self.encoders, chunks, strict=True)):
                states, encoded = [], []
                for chunk in parts:
                    states.append(_random_state(devices))
                    encoded.append(encoder(chunk))
                given = None if isinstance(inputs[place], Chunks) else parts
                sizes.append(_count(f"encoder {place}", encoded, given))
                embeddings.append(change(join(f"encoder {place}", encoded), _leaf))
                random.append(states)
                del encoded

        with reductions.waiting():
            loss = self.loss(*embeddings, **named)
            _check_loss(loss)
            with _no_autocast(devices):
                backward(loss)
        value = loss.detach()
        gradients = [
            [torch.split(_gradient(leaf), rows) for leaf in tensors(tree)]
            for tree, rows in zip(embeddings, sizes, strict=True)
        ]
        del embeddings, loss

        afterwards = _random_state(devices)
        try:
            with statistics_kept(modules):
                for place, (encoder, parts) in enumerate(zip(self.encoders, chunks, strict=True)):
                    for number, chunk in enumerate(parts):
                        last = number == len(parts) - 1
                        with reductions.waiting(until=place if last else None):
                            _set_random_state(devices, random[place][number])
                            rows = list(tensors(encoder(chunk)))
                            _push(rows, [g[number] for g in gradients[place]], devices)
        finally:
            _set_random_state(devices, afterwards)
        return value


def _count(name: str, parts: Sequence[Any], chunks: Sequence[Any] | None) -> list[int]:
    """The rows of each encoded chunk, which are those that went in where that is known."""
    counts = []
    for number, part in enumerate(parts):
        rows = count_rows(f"what {name} gave", part)
        expected = rows if chunks is None else count_rows(name, chunks[number])
        if rows != expected:
            raise ValueError(
                f"{name}: expected {expected} rows for chunk {number}, one per row that went in, "
                f"got {rows}. A row must stay a row."
            )
        counts.append(rows)
    return counts


def _leaf(encoded: Tensor) -> Tensor:
    differentiable = encoded.is_floating_point() or encoded.is_complex()
    return encoded.detach().requires_grad_(differentiable)


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.ndim:
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f'GradientCache: the loss must be a 0-d tensor, got {got}. Use reduction "mean" or '
            '"sum".'
        )
    if not loss.requires_grad:
        raise ValueError(
            "GradientCache: the loss has no gradient: it depends on no embedding. Is it computed "
            "under no_grad(), or from detached rows?"
        )


def _push(rows: Sequence[Tensor], gradients: Sequence[Tensor], devices: Any) -> None:
    """Backward from the rows that have a graph."""
    pairs = [(r, g) for r, g in zip(rows, gradients, strict=True) if r.requires_grad]
    if pairs:
        with _no_autocast(devices):
            torch.autograd.backward([r for r, _ in pairs], [g for _, g in pairs])


@contextmanager
def _no_autocast(devices: Sequence[torch.device]) -> Iterator[None]:
    """Backward runs outside of autocast, as in a plain step."""
    with ExitStack() as stack:
        for kind in dict.fromkeys(["cpu", *(device.type for device in devices)]):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _random_state(devices: Sequence[torch.device]) -> list[Tensor]:
    return [
        torch.get_rng_state(),
        *(torch.get_device_module(device).get_rng_state(*_place(device)) for device in devices),
    ]


def _set_random_state(devices: Sequence[torch.device], states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for device, state in zip(devices, states[1:], strict=True):
        torch.get_device_module(device).set_rng_state(state, *_place(device))


def _place(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one, and its calls take no device
