"""The conditional form: a discriminator that sees features together with predicted classes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_floating, check_ndim, check_rows
from embedkit.losses.domains.adversarial import DomainAdversarialLoss
from embedkit.ops import accumulation_dtype


def entropy_weights(logits: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
    """Weights that trust confident predictions more:  (1 + exp(-H)) / their mean.

    H is the entropy of a row's softmax; before the division a weight lies between 1 + 1 / c, all
    classes alike, and 2, one class alone.

    Args:
        logits: of classes.

    Returns:
        (b,) weights whose mean is 1, without gradient, in float32 or wider.

    Raises:
        ValueError: if ``logits`` are not (b, c).
        TypeError: if they are not floating.

    Source: Long et al. 2018, Conditional Adversarial Domain Adaptation, eq. 8 (CDAN+E).
    """
    check_floating("logits", logits)
    check_ndim("logits", logits, "b c")
    log_p = logits.detach().to(accumulation_dtype(logits.dtype)).log_softmax(dim=1)
    p = log_p.exp()
    weight = 1.0 + torch.where(p > 0, p * log_p, 0.0).sum(dim=1).exp()
    return weight * max(weight.shape[0], 1) / weight.sum().clamp(min=1.0)


class ConditionalDomainAdversarialLoss(nn.Module):
    """:class:`DomainAdversarialLoss` of features joined with predicted class probabilities (CDAN).

    Domains whose classes form clusters need not only overlap but overlap class by class. The
    discriminator sees the joint features of :class:`embedkit.heads.JointFeatures`; gradients reach
    the features alone, for probabilities are detached. The target's predictions need a classifier
    that has begun to learn: let the strength grow from 0.

    Args:
        discriminator: (b, k) -> (b, 1) logits, k = ``joint.out_features``.
        joint: of features (b, d) and probabilities (b, c) makes (b, k).
        strength: of the reversal; :meth:`set_strength` changes it.
        use_entropy: weight rows by :func:`entropy_weights`, within each domain.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if features or logits are missing or not floating.

    Source: Long et al. 2018, Conditional Adversarial Domain Adaptation, eq. 2-8.
    Differs: probabilities and weights have no gradient, as in the authors' code for the former.

    >>> from embedkit.heads.domain import JointFeatures
    >>> joint = JointFeatures(8, num_classes=3)
    >>> loss = ConditionalDomainAdversarialLoss(nn.Linear(joint.out_features, 1), joint)
    >>> source, target = torch.randn(4, 8), torch.randn(6, 8)
    >>> loss(source, target, torch.randn(4, 3), torch.randn(6, 3)).shape
    torch.Size([])
    """

    def __init__(
        self,
        discriminator: nn.Module,
        joint: nn.Module,
        strength: int | float = 1.0,
        use_entropy: bool = True,
    ) -> None:
        super().__init__()
        self.joint = joint
        self.adversary = DomainAdversarialLoss(discriminator, strength)
        self.use_entropy = use_entropy

    def set_strength(self, strength: int | float) -> None:
        """Change the strength of the reversal; a compiled graph stays.

        Raises:
            ValueError: if ``strength`` is not finite; the old one stays.
        """
        self.adversary.set_strength(strength)

    def forward(
        self, source: Tensor, target: Tensor, source_logits: Tensor, target_logits: Tensor
    ) -> Tensor:
        """The loss of features (b, d) and class logits (b, c) of both domains."""
        pairs = {"source": (source, source_logits), "target": (target, target_logits)}
        joined, weights = [], []
        for name, (features, logits) in pairs.items():
            check_floating(f"features of {name}", features)
            check_floating(f"{name}_logits", logits)
            check_ndim(f"{name}_logits", logits, "b c")
            check_rows(f"{name}_logits", logits, features.shape[0], f"One row for each of {name}.")
            wide = logits.detach().to(accumulation_dtype(logits.dtype))
            joined.append(self.joint(features, wide.softmax(dim=1).to(features.dtype)))
            weights.append(entropy_weights(logits) if self.use_entropy else None)
        loss: Tensor = self.adversary(*joined, weight=weights)
        return loss

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"use_entropy={self.use_entropy}"
