"""A slow copy of an encoder: exponential moving average of its weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MomentumUpdate:
    """Moves a target Module towards an online one:  w_target = m w_target + (1 - m) w_online.

    Buffers (running statistics) are copied. The target's parameters stop requiring gradients; its
    values stay as they are until the first :meth:`update`, so begin with a copy, or with one
    ``update(momentum=0.0)``. There is no state of its own: save the target's ``state_dict``.
    After DDP's or FSDP2's step online weights are equal on all ranks, hence so are the target's.

    Args:
        online: the Module that is trained; under DDP its inner ``ddp.module``.
        target: a Module with the same names and shapes, in float32 or wider: bfloat16 keeps 8
            bits, in which steps of 1 - m = 0.001 vanish. The online one may be in half precision.
        momentum: m, from 0 (copy) to 1 (stand still).

    Raises:
        ValueError: if names or shapes differ, or ``momentum`` is not in [0, 1].
        TypeError: if the target holds parameters in half precision.

    Source: He et al. 2020, Momentum Contrast for Unsupervised Visual Representation Learning,
    eq. 2.
    Differs: buffers are copied, too; the equation speaks of parameters.

    >>> online, target = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> momentum = MomentumUpdate(online, target)
    >>> momentum.update(momentum=0.0)
    >>> torch.equal(target.weight, online.weight)
    True
    """

    def __init__(self, online: nn.Module, target: nn.Module, momentum: float = 0.999) -> None:
        _check_momentum(momentum)
        _check_same("parameters", dict(online.named_parameters()), dict(target.named_parameters()))
        _check_same("buffers", dict(online.named_buffers()), dict(target.named_buffers()))
        for name, weight in target.named_parameters():
            if weight.is_floating_point() and weight.dtype.itemsize < 4:
                raise TypeError(
                    f"MomentumUpdate: target: expected float32 or wider, got {weight.dtype} in "
                    f"{name!r}. Small steps vanish in it: keep the target in float32 and run it "
                    "under autocast."
                )
        self.online, self.target, self.momentum = online, target, momentum
        target.requires_grad_(False)

    @torch.no_grad()
    def update(self, momentum: float | None = None) -> None:
        """Move the target, in place; once per optimiser step.

        Args:
            momentum: in place of the one it was built with, where it follows a schedule.

        Raises:
            ValueError: if ``momentum`` is not in [0, 1].
        """
        m = self.momentum if momentum is None else momentum
        _check_momentum(m)
        online, buffers = dict(self.online.named_parameters()), dict(self.online.named_buffers())
        old: list[Tensor] = list(self.target.parameters())
        new = [
            online[name].to(weight.device, weight.dtype)
            for name, weight in self.target.named_parameters()
        ]
        if old:
            torch._foreach_lerp_(old, new, 1.0 - m)
        for name, buffer in self.target.named_buffers():
            buffer.copy_(buffers[name])


def _check_momentum(momentum: float) -> None:
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(
            f"MomentumUpdate: momentum must be in [0, 1], got {momentum:g}. It is the share of the "
            "old target; 0.99 to 0.9999 are usual."
        )


def _check_same(what: str, online: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    if missing := sorted(online.keys() ^ target.keys()):
        raise ValueError(
            f"MomentumUpdate: online and target must have the same {what}, but only one has "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}. Build the target as "
            "copy.deepcopy(online); of a wrapped Module pass the inner one (ddp.module)."
        )
    for name, tensor in online.items():
        if tensor.shape != target[name].shape:
            raise ValueError(
                f"MomentumUpdate: {name}: expected one shape, got online {tuple(tensor.shape)} and "
                f"target {tuple(target[name].shape)}"
            )
