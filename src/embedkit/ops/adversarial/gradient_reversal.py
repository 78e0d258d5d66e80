"""Gradient reversal: nothing forward, the opposite direction backward."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_floating


class _Reverse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, strength: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()  # of a view autograd forbids changes in place, such as those of a ReLU

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength.to(gradients[0].dtype) * gradients[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Reverse.backward(ctx, *tangents)[0]


class _CompiledReverse(torch.autograd.Function):
    """The same without a forward-mode derivative: torch.compile takes no function with one."""

    generate_vmap_rule = True
    forward = staticmethod(_Reverse.forward)
    setup_context = staticmethod(_Reverse.setup_context)
    backward = staticmethod(_Reverse.backward)


def gradient_reversal(
    x: Float[Tensor, "*n"], strength: float | Float[Tensor, ""] = 1.0
) -> Float[Tensor, "*n"]:
    """Return ``x`` as it is, and multiply the gradient that comes back by minus ``strength``.

    What stands behind learns to do its task, what stands before learns to make it fail: put it
    between features and a domain classifier, and *add* the classifier's loss to that of the task.
    The classifier itself trains at full weight, whatever the strength.

    A second derivative passes through once more and is reversed once more: of
    sum R(x)^3 the gradient is -s 3 x^2 and its derivative s^2 6 x. A penalty on gradients is
    therefore scaled by s^2; compute it on features before the reversal. Forward-mode derivatives
    (``torch.func.jvp``, ``jacfwd``, ``hessian``) are those of backward: the tangent times -s.

    Args:
        x: features, of any shape.
        strength: 0 blocks the gradient (zeros, not None), below 0 scales it without reversing. A
            0-d tensor may change without a compiled graph being made again; of a number a second
            graph is made when it first changes, and no more. What counts is its value at this
            call, whatever becomes of it before backward; no gradient flows into it.

    Returns:
        A copy of ``x``, so that what follows may change it in place, as ``nn.ReLU(inplace=True)``.

    Raises:
        TypeError: if ``x`` is not floating.
        ValueError: if a tensor ``strength`` has axes, or a number is not finite in the dtype of
            ``x``; a compiled graph does not look.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, section 4.2 (the
    gradient reversal layer).

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> gradient_reversal(x, 0.5).sum().backward()
    >>> x.grad
    tensor([-0.5000, -0.5000])
    """
    check_floating("x", x)
    if not isinstance(strength, Tensor):
        _check_strength("gradient_reversal", strength, x.dtype)
        strength = torch.tensor(strength, dtype=x.dtype, device=x.device)
    elif strength.ndim:
        raise ValueError(
            f"gradient_reversal: strength must be a number or a 0-d tensor, got shape "
            f"{tuple(strength.shape)}"
        )
    else:  # a buffer may be set again before backward
        strength = strength.detach().clone()
    reverse = _CompiledReverse if torch.compiler.is_compiling() else _Reverse
    reversed_: Tensor = reverse.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_


def _check_strength(owner: str, strength: float, dtype: torch.dtype = torch.float32) -> None:
    if torch.compiler.is_compiling():  # a check would make a graph for each value
        return
    if not abs(strength) <= torch.finfo(dtype).max:
        raise ValueError(
            f"{owner}: strength must be finite in {dtype}, got {strength}. 0 to 1 is usual, "
            "growing with training."
        )


class GradientReversal(nn.Module):
    """:func:`gradient_reversal` with its strength, a buffer that a schedule changes.

    Training and evaluation are alike. Save it with the rest: its strength is in ``state_dict``.

    Args:
        strength: what it starts with; :meth:`set_strength` changes it, in place.

    Raises:
        ValueError: if ``strength`` is not finite.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, section 4.2.
    Differs: reverses in evaluation as well, where nobody asks for gradients.

    >>> reversal = GradientReversal(0.0)
    >>> reversal.set_strength(0.3)
    >>> reversal(torch.ones(2))
    tensor([1., 1.])
    """

    strength: Tensor

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        _check_strength("GradientReversal", strength)
        self.register_buffer("strength", torch.tensor(float(strength)))

    def set_strength(self, strength: float) -> None:
        """Change the strength for calls to come; a compiled graph stays as it is.

        Raises:
            ValueError: if ``strength`` is not finite in the buffer's dtype; the old one stays. A
                compiled step that sets it does not look.
        """
        _check_strength("GradientReversal", strength, self.strength.dtype)
        self.strength.fill_(strength)

    def forward(self, x: Tensor) -> Tensor:
        """The values of ``x`` (any shape), with their gradient reversed."""
        return gradient_reversal(x, self.strength)
