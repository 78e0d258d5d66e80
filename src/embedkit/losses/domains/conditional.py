"""The conditional form: a discriminator that sees features together with predicted classes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_floating, check_ndim, check_rows
from embedkit.losses.domains.adversarial import (
    DomainAdversarialLoss,
    Weights,
    check_domains,
    check_weights,
)
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

    Pass the features of each domain, the labelled source first, and then the class logits of each,
    in the same order.

    Args:
        discriminator: (b, ``joint.out_features``) -> (b, 1) logits for two domains, or (b, k) for
            k.
        joint: of features (b, d) and probabilities (b, c) makes (b, k).
        strength: of the reversal; :meth:`set_strength` changes it.
        use_entropy: weight rows by :func:`entropy_weights`, within each domain.

    Raises:
        ValueError: if fewer than two domains come, or shapes do not fit.
        TypeError: if features or logits are missing or not floating.

    Source: Long et al. 2018, Conditional Adversarial Domain Adaptation, eq. 2-8.
    Differs: probabilities and weights have no gradient, as in the authors' code for the former;
    more than two domains, and weights of your own.

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

    def forward(self, *features_and_logits: Tensor, weight: Weights | None = None) -> Tensor:
        """The loss of features (b_i, d) of each domain, then class logits (b_i, c) of each.

        ``weight`` holds one tensor (b_i,) for each domain, or None for a domain without; with
        ``use_entropy`` its numbers multiply the entropy weights.
        """
        features, logits = self._halves(features_and_logits)
        weights = list(check_weights(weight, features))
        if self.use_entropy:
            sure = [entropy_weights(z) for z in logits]
            weights = [w if v is None else w * v for w, v in zip(sure, weights, strict=True)]
        loss: Tensor = self.adversary(*self._joined(features, logits), weight=weights)
        return loss

    def accuracy(self, *features_and_logits: Tensor) -> Tensor:
        """:meth:`DomainAdversarialLoss.accuracy` of the discriminator that sees joint features."""
        return self.adversary.accuracy(*self._joined(*self._halves(features_and_logits)))

    def _halves(self, both: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Features of every domain, and logits of every domain, checked."""
        count = len(both) // 2
        if len(both) % 2 or count < 2:
            raise ValueError(
                "ConditionalDomainAdversarialLoss: expected features of two domains or more, then "
                f"class logits of each, got {len(both)} tensors. Call it as loss(source, target, "
                "source_logits, target_logits)."
            )
        features, logits = both[:count], both[count:]
        names = check_domains("ConditionalDomainAdversarialLoss", features)
        for name, x, z in zip(names, features, logits, strict=True):
            check_floating(f"logits of {name}", z)
            check_ndim(f"logits of {name}", z, "b c")
            check_rows(f"logits of {name}", z, x.shape[0], "One row for each row of features.")
        return features, logits

    def _joined(self, features: tuple[Tensor, ...], logits: tuple[Tensor, ...]) -> list[Tensor]:
        """The joint features of every domain."""
        joined = []
        for x, z in zip(features, logits, strict=True):
            wide = z.detach().to(accumulation_dtype(z.dtype))
            joined.append(self.joint(x, wide.softmax(dim=1).to(x.dtype)))
        return joined

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"use_entropy={self.use_entropy}"
