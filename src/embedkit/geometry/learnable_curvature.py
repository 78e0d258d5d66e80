"""A learnable curvature, as a Module of its own, and what layers do with one."""

import math

import torch
from torch import Tensor, nn

from embedkit._checks import check_positive

HINT = "It is c of a space of curvature -c, a ball of radius 1/sqrt(c); try 1.0."


def check_curvature(owner: str, curvature: float | nn.Module | Tensor) -> None:
    """Raise unless ``curvature`` is a Module or a number > 0."""
    if isinstance(curvature, Tensor):
        raise TypeError(
            f"{owner}: curvature must be a number or a Module, got a tensor, which would not move "
            "with the layer. Use Curvature(init) for one that is learned."
        )
    if not isinstance(curvature, nn.Module):
        check_positive(owner, "curvature", curvature, HINT)


def current(curvature: float | nn.Module) -> float | Tensor:
    """The number, or what the Module gives."""
    if isinstance(curvature, nn.Module):
        value: Tensor = curvature()
        return value
    return curvature


def described(text: str = "", **curvatures: float | nn.Module | None) -> str:
    """``text`` and the curvatures that are numbers; ``print`` shows a Module by itself."""
    fixed = [f"{name}={c:g}" for name, c in curvatures.items() if isinstance(c, int | float)]
    return ", ".join([text, *fixed] if text else fixed)


class Curvature(nn.Module):
    """A curvature c > 0 that is trained through its logarithm:  c = exp(log_curvature).

    ``module()`` gives c, 0-d, for a space of curvature -c. Hand the Module itself to layers, one
    Module to all that share a space, and ``module()`` to functions as ``curvature=``. Exclude
    ``log_curvature`` from weight decay, and call :meth:`clamp_` after each optimiser step. Points
    stored in the ball may lie outside it once c has grown; tangent vectors never do.

    Args:
        init: c at the start, > 0.
        minimum: what :meth:`clamp_` keeps c at or above, > 0. None: init / 10.
        maximum: what it keeps c at or below. None: 10 * init.

    Raises:
        ValueError: if a number is not > 0, or ``init`` is not from ``minimum`` to ``maximum``.

    Source: Desai et al. 2023, Hyperbolic Image-Text Representations (MERU), sec. 3.
    Differs: only the exponential form; softplus, which others offer, is not needed beside the
    bounds.

    >>> Curvature(0.5)().item()
    0.5...
    """

    def __init__(
        self, init: float = 1.0, minimum: float | None = None, maximum: float | None = None
    ) -> None:
        super().__init__()
        check_positive("Curvature", "init", init, HINT)
        minimum = init / 10 if minimum is None else minimum
        maximum = init * 10 if maximum is None else maximum
        check_positive("Curvature", "minimum", minimum)
        check_positive("Curvature", "maximum", maximum)
        if not minimum <= init <= maximum:
            raise ValueError(
                f"Curvature: init={init:g} must be from minimum={minimum:g} to maximum={maximum:g}"
            )
        self.init, self.minimum, self.maximum = init, minimum, maximum
        self.log_curvature = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to the curvature at the start."""
        nn.init.constant_(self.log_curvature, math.log(self.init))

    def forward(self) -> Tensor:
        """c, 0-d."""
        return self.log_curvature.exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the parameter back to where c is from ``minimum`` to ``maximum``."""
        self.log_curvature.clamp_(math.log(self.minimum), math.log(self.maximum))

    def extra_repr(self) -> str:
        """What was asked for, and the curvature -c that the space has now."""
        text = f"init={self.init:g}, minimum={self.minimum:g}, maximum={self.maximum:g}"
        now = self().detach()
        return text if now.is_meta else f"{text}, now a space of {-float(now):g}"
