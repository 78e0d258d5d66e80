"""Preference ranking optimisation: each item against all that should score lower, in one list."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from embedkit._checks import check_positive
from embedkit.losses.scores._scores import TEMPERATURE_HINT, check_scores, connected_zero

_ENTRIES = 2**20  # of one block of differences of targets
_EPS_HINT = "Targets closer than this are ties."


def pro_loss(
    pred: Float[Tensor, " n"],
    target: Shaped[Tensor, " n"],
    *,
    temperature: float = 0.05,
    eps: float = 1e-8,
) -> Float[Tensor, ""]:
    """List-wise preference ranking: a softmax of each item among itself and those below it.

    l_k = logsumexp(w_k x_k / t, {w_kj x_j / t}_j) - w_k x_k / t  over the j with w_kj > eps, where
    w_kj = y_k - y_j  and  w_k = max_j w_kj;  the loss is the mean of l_k over the k that have such
    a j. Weights multiply logits, so the scale of the targets multiplies 1 / t: **bring targets to
    [0, 1] first** (scores of 0 to 5: divide by 5). With larger ones the softmax saturates at 0.

    The sum over j doesn't factor, so time is O(n^2); values and gradients are made a block of rows
    at a time in the forward sweep, and memory is O(n).

    Args:
        pred: predicted scores, e.g. cosines of pairs; half precision is computed in float32.
        target: wanted scores in [0, 1]; a constant.
        temperature: > 0, in units of ``pred``.
        eps: targets that differ by no more are ties and not ordered.

    Returns:
        A scalar in float32 or wider, >= 0. 0 with a zero gradient where all targets are equal, for
        one pair and for none; a non-finite entry makes it NaN.

    Raises:
        ValueError: if shapes differ, or ``temperature`` or ``eps`` is not > 0.
        TypeError: if ``pred`` is not floating.
        RuntimeError: on a second derivative.

    Source: Song et al. 2023, Preference Ranking Optimization for Human Alignment, the
    differentiated contrast, as Zhang et al. 2025, CoDiEmb, applies it to graded similarity.
    """
    check_positive("pro_loss", "temperature", temperature, TEMPERATURE_HINT)
    check_positive("pro_loss", "eps", eps, _EPS_HINT)
    x, y = check_scores(pred, target)
    with_grad = torch.is_grad_enabled() and x.requires_grad
    loss, _ = torch.ops.embedkit.preference_ranking(x / temperature, y.to(x.dtype), eps, with_grad)
    total: Tensor = loss + connected_zero(x, y)
    return total


class PROLoss(nn.Module):
    """:func:`pro_loss` with its settings.

    Args:
        temperature: > 0, in units of the predicted scores, for targets in [0, 1].
        eps: targets that differ by no more are ties.

    >>> target = torch.tensor([5.0, 1.0, 3.0, 3.0]) / 5
    >>> PROLoss()(torch.tensor([0.9, 0.2, 0.5, 0.4]), target)
    tensor(0.0903)
    """

    def __init__(self, temperature: float = 0.05, eps: float = 1e-8) -> None:
        super().__init__()
        check_positive("PROLoss", "temperature", temperature, TEMPERATURE_HINT)
        check_positive("PROLoss", "eps", eps, _EPS_HINT)
        self.temperature, self.eps = temperature, eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss of predicted scores (n,) against wanted scores (n,)."""
        return pro_loss(pred, target, temperature=self.temperature, eps=self.eps)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"temperature={self.temperature:g}, eps={self.eps:g}"


def _sweep(logit: Tensor, target: Tensor, eps: float, with_grad: bool) -> tuple[Tensor, Tensor]:
    """The mean loss, and its gradient by ``logit``."""
    rows = logit.shape[0]
    gradient = torch.zeros_like(logit) if with_grad else logit.new_zeros(0)
    if not rows:
        return logit.new_zeros(()), gradient
    widest = target - target.amin()  # w_k: an item's largest distance is that to the lowest
    ranked = (widest > eps).to(logit.dtype)
    own, total = widest * logit, logit.new_zeros(())
    step = max(1, _ENTRIES // rows)
    for block in (slice(start, start + step) for start in range(0, rows, step)):
        weight = target[block, None] - target
        logits = (weight * logit).masked_fill_(weight <= eps, -torch.inf)
        top = torch.logaddexp(logits.logsumexp(dim=1), own[block])
        total += ((top - own[block]) * ranked[block]).sum()
        if with_grad:
            share = ranked[block] * ((own[block] - top).exp() - 1)
            gradient[block] += widest[block] * share
            probability = logits.sub_(top[:, None]).exp_()
            gradient += probability.mul_(weight).sum(dim=0)
    count = ranked.sum().clamp(min=1)
    return total / count, gradient / count


def _fake(logit: Tensor, target: Tensor, eps: float, with_grad: bool) -> tuple[Tensor, Tensor]:
    del target, eps
    return logit.new_empty(()), torch.empty_like(logit) if with_grad else logit.new_empty(0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    del inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, grad: Tensor | None, second: Tensor | None) -> tuple[Any, ...]:
    if second is not None:
        raise RuntimeError(
            "pro_loss: it has no second derivative: its gradient is made in the forward sweep."
        )
    (gradient,) = ctx.saved_tensors
    return None if grad is None else grad * gradient, None, None, None


_NAME = "embedkit::preference_ranking"
torch.library.define(
    _NAME, "(Tensor logit, Tensor target, float eps, bool with_grad) -> (Tensor, Tensor)"
)
torch.library.impl(_NAME, "default", _sweep)
torch.library.register_fake(_NAME, _fake)
torch.library.register_autograd(_NAME, _backward, setup_context=_save)
