"""A learnable temperature, as a Module of its own."""

import math

import torch
from torch import Tensor, nn

from embedkit._checks import check_positive


def check_temperature(owner: str, temperature: float | nn.Module, advice: str) -> None:
    """Raise unless ``temperature`` is a Module or a number > 0."""
    if not isinstance(temperature, nn.Module):
        hint = f"It divides the similarities; try {advice} for cosine similarity."
        check_positive(owner, "temperature", temperature, hint)


def current(temperature: float | nn.Module) -> float | Tensor:
    """The number, or what the Module gives."""
    if isinstance(temperature, nn.Module):
        value: Tensor = temperature()
        return value
    return temperature


class LearnableTemperature(nn.Module):
    """A positive temperature that is trained through the logarithm of its inverse.

    ``module()`` gives the 0-d temperature exp(-log_scale); hand the Module itself to a loss:
    ``InfoNCELoss(LearnableTemperature(0.07), symmetric=True)`` is CLIP's loss. Exclude
    ``log_scale`` from weight decay, and call :meth:`clamp_` after each optimiser step where the
    temperature must not fall below ``minimum`` (CLIP: 0.01, a scale of at most 100).

    Args:
        init: the temperature it starts with, > 0.
        minimum: what :meth:`clamp_` keeps it at or above, > 0.

    Raises:
        ValueError: if ``init`` or ``minimum`` is not > 0, or ``init`` is below ``minimum``.

    Source: Radford et al. 2021, Learning Transferable Visual Models, sec. 2.3.

    >>> LearnableTemperature(0.07)().item()
    0.07...
    """

    def __init__(self, init: float = 0.07, minimum: float = 0.01) -> None:
        super().__init__()
        check_positive("LearnableTemperature", "minimum", minimum)
        check_positive("LearnableTemperature", "init", init, "0.07 is CLIP's start.")
        if init < minimum:
            raise ValueError(f"LearnableTemperature: init={init:g} is below minimum={minimum:g}")
        self.init, self.minimum = init, minimum
        self.log_scale = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to the temperature at the start."""
        nn.init.constant_(self.log_scale, -math.log(self.init))

    def forward(self) -> Tensor:
        """The temperature, 0-d."""
        return (-self.log_scale).exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the parameter back to where the temperature is at least ``minimum``."""
        self.log_scale.clamp_(max=-math.log(self.minimum))

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"init={self.init:g}, minimum={self.minimum:g}"
