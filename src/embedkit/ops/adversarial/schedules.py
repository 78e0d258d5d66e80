"""How strength and learning rate of domain-adversarial training change with its progress."""

import math
from numbers import Integral
from typing import Any

from embedkit._checks import check_at_least, check_positive


def reversal_strength(
    progress: int | float,
    gamma: int | float = 10.0,
    low: int | float = 0.0,
    high: int | float = 1.0,
) -> float:
    """The strength of a gradient reversal:  low + (high - low) (2 / (1 + exp(-gamma p)) - 1).

    It starts at ``low``, while the domain classifier knows nothing yet, and ends near ``high``.

    Args:
        progress: p, the part of training that is over; clamped to [0, 1].
        gamma: > 0; how fast it grows: 0.46 of the way at p = 1 / gamma.
        low: the strength at p = 0.
        high: what the strength comes close to.

    Raises:
        ValueError: if ``progress`` is NaN, ``gamma`` is not above 0, or an end is not finite.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, section 5.2.2.

    >>> round(reversal_strength(0.1), 6)
    0.462117
    """
    _check_strength("reversal_strength", gamma, low, high)
    # 2 / (1 + exp(-z)) - 1 = tanh(z / 2), which overflows for no z.
    return low + (high - low) * math.tanh(gamma * _clamped("reversal_strength", progress) / 2)


def annealing_factor(
    progress: int | float, alpha: int | float = 10.0, beta: int | float = 0.75
) -> float:
    """What the learning rate is multiplied by:  (1 + alpha p)^-beta.

    Args:
        progress: p, the part of training that is over; clamped to [0, 1].
        alpha: >= 0.
        beta: >= 0; at 0 the rate stays.

    Raises:
        ValueError: if ``progress`` is NaN, or ``alpha`` or ``beta`` is negative or not finite.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, section 5.2.2.

    >>> round(annealing_factor(1.0), 6)
    0.16556
    """
    _check_annealing("annealing_factor", alpha, beta)
    return float((1 + alpha * _clamped("annealing_factor", progress)) ** -beta)


class AdversarialStrength:
    """:func:`reversal_strength` over a number of steps, as an object to be saved and resumed.

    Your loop says when a step is over: counting forward passes instead would count validation, too.
    After ``total_steps`` the strength stays as it is.

    Args:
        total_steps: steps of the whole training, at least 1.
        gamma: > 0; how fast it grows.
        low: the strength at the start.
        high: what it comes close to.

    Raises:
        ValueError: if a setting is out of range.
        TypeError: if ``total_steps`` is no integer.

    >>> strength = AdversarialStrength(total_steps=10)
    >>> for _ in range(3):
    ...     now = strength.value  # give it to GradientReversal.set_strength
    ...     strength.step()
    >>> round(now, 4), strength.position
    (0.7616, 3)
    """

    position: int
    """How many steps are over."""

    def __init__(
        self,
        total_steps: int,
        gamma: int | float = 10.0,
        low: int | float = 0.0,
        high: int | float = 1.0,
    ) -> None:
        _check_count("AdversarialStrength", "total_steps", total_steps, 1)
        _check_strength("AdversarialStrength", gamma, low, high)
        self.total_steps, self.gamma, self.low, self.high = total_steps, gamma, low, high
        self.position = 0

    def __call__(self, step: int | float) -> float:
        """The strength after ``step`` steps (a part of one is fine), wherever the schedule is."""
        return reversal_strength(step / self.total_steps, self.gamma, self.low, self.high)

    @property
    def value(self) -> float:
        """The strength now."""
        return self(self.position)

    def step(self) -> None:
        """Note that one step of training is over."""
        self.position += 1

    def state_dict(self) -> dict[str, int | float]:
        """Where it stands, and its settings, as plain numbers."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved schedule stood, with its settings.

        Raises:
            ValueError: if the state is of something else; nothing has changed then.
            TypeError: if a number of steps is no integer; nothing has changed then, either.
        """
        if set(state) != set(vars(self)):
            raise ValueError(
                f"AdversarialStrength: a state has {', '.join(sorted(vars(self)))}; got "
                f"{', '.join(sorted(map(str, state))) or 'nothing'}. Use state_dict()."
            )
        settings = {name: state[name] for name in ("total_steps", "gamma", "low", "high")}
        AdversarialStrength(**settings)
        _check_count("AdversarialStrength", "position", state["position"], 0)
        vars(self).update(state)

    def __repr__(self) -> str:
        return (
            f"AdversarialStrength(total_steps={self.total_steps}, gamma={self.gamma}, "
            f"low={self.low}, high={self.high}, position={self.position})"
        )


class AnnealedRate:
    """:func:`annealing_factor` of a step, for ``torch.optim.lr_scheduler.LambdaLR``.

    The scheduler counts the steps and keeps these settings in its own ``state_dict``.

    Args:
        total_steps: steps of the whole training, at least 1.
        alpha: >= 0.
        beta: >= 0.

    Raises:
        ValueError: if a setting is out of range.
        TypeError: if ``total_steps`` is no integer.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.01, momentum=0.9)
    >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, AnnealedRate(total_steps=1000))
    """

    def __init__(
        self, total_steps: int, alpha: int | float = 10.0, beta: int | float = 0.75
    ) -> None:
        _check_count("AnnealedRate", "total_steps", total_steps, 1)
        _check_annealing("AnnealedRate", alpha, beta)
        self.total_steps, self.alpha, self.beta = total_steps, alpha, beta

    def __call__(self, step: int | float) -> float:
        """The factor after ``step`` steps."""
        return annealing_factor(step / self.total_steps, self.alpha, self.beta)

    def __repr__(self) -> str:
        return f"AnnealedRate(total_steps={self.total_steps}, alpha={self.alpha}, beta={self.beta})"


def _check_count(owner: str, name: str, value: Any, least: int) -> None:
    if not isinstance(value, Integral):
        raise TypeError(
            f"{owner}: {name} must be an integer, got {value!r}. It counts steps; a part "
            "of one is for calls alone."
        )
    check_at_least(owner, name, int(value), least)


def _clamped(owner: str, progress: int | float) -> float:
    if math.isnan(progress):
        raise ValueError(f"{owner}: progress must be a number, got nan. Pass step / total_steps.")
    return float(min(max(progress, 0.0), 1.0))


def _check_strength(owner: str, gamma: int | float, low: int | float, high: int | float) -> None:
    check_positive(owner, "gamma", gamma, "10 is usual.")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{owner}: low and high must be finite, got {low} and {high}")


def _check_annealing(owner: str, alpha: int | float, beta: int | float) -> None:
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{owner}: {name} must be >= 0, got {value:g}. Try 10 and 0.75.")
