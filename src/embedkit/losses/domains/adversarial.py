"""The loss of a domain classifier behind a gradient reversal."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from embedkit._checks import (
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
    check_weight,
)
from embedkit.losses._reduce import row_shares
from embedkit.ops import GradientReversal, accumulation_dtype

Weights = Sequence[Tensor | None]


def domain_adversarial_loss(
    logits: Float[Tensor, "b k"],
    domain: Int[Tensor, " b"],
    weight: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of a domain classifier: its mean over each domain, summed over domains.

    With one column the logit is that of domain 1 against domain 0, and the loss is
    mean over domain 0 of softplus(z)  +  mean over domain 1 of softplus(-z);  a classifier that
    knows nothing has 2 log 2 = 1.386. With k columns it is the softmax's cross-entropy, k log k
    for one that knows nothing. A large domain weighs as much as a small one.

    Nothing is reversed here: make the logits from features that passed
    :func:`embedkit.ops.gradient_reversal`, and add this loss to that of the task.

    Args:
        logits: (b, 1) for two domains, or (b, k).
        domain: of each row, from 0 on; rows of -1 take no part.
        weight: of each row, >= 0; it scales the row, and the mean still divides by rows.

    Returns:
        A scalar in float32 or wider. A domain without rows counts 0; an empty batch gives 0.

    Raises:
        ValueError: if shapes do not fit, or a domain has no column.
        TypeError: if ``domain`` does not hold integers, or ``logits`` are not floating.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, eq. 9-12.

    >>> domain_adversarial_loss(torch.tensor([[1.0], [1.0]]), torch.tensor([0, 1]))
    tensor(1.6265)
    """
    check_floating("logits", logits)
    check_ndim("logits", logits, "b k")
    check_integer("domain", domain)
    check_ndim("domain", domain, "b")
    check_rows("domain", domain, logits.shape[0], "One domain per row.")
    check_weight(weight, logits.shape[0], "row")
    ids = domain.long()
    # Rows of no domain may hold anything: as 0 they have no gradient, not NaN.
    z = logits.to(accumulation_dtype(logits.dtype)).masked_fill(ids[:, None] < 0, 0.0)
    log_p = F.logsigmoid(torch.cat([-z, z], dim=1)) if z.shape[1] == 1 else z.log_softmax(dim=1)
    member = ids[:, None] == torch.arange(log_p.shape[1], device=ids.device)
    share = torch.stack([row_shares(one, "mean", z) for one in member.unbind(1)], dim=1).sum(dim=1)
    loss = -torch.where(ids >= 0, _pick(log_p, ids.clamp(min=0)), 0.0) * share
    return (loss if weight is None else loss * weight.to(loss.dtype)).sum()


def _pick(log_p: Tensor, domain: Tensor) -> Tensor:
    """The entry of its domain in every row."""
    if torch.compiler.is_compiling():
        return log_p.gather(1, domain[:, None])[:, 0]
    try:
        return log_p.gather(1, domain[:, None])[:, 0]
    except (IndexError, RuntimeError) as error:
        last = log_p.shape[1] - 1
        raise ValueError(
            f"domain: expected numbers from 0 to {last}, or -1 to leave a row out, got "
            f"{int(domain.max())}. More than two domains need a column of logits each: "
            "DomainDiscriminator(..., num_domains=k)."
        ) from error


class DomainAdversarialLoss(nn.Module):
    """:func:`domain_adversarial_loss` of features, which pass a gradient reversal on the way.

    Features come as one tensor for each domain, the labelled source first. Add the result to the
    loss of the task: the discriminator learns to tell domains apart, at full weight, and what made
    the features learns to make it fail, with ``strength``. Both reversal and sum are in here, so
    there is no minus anywhere. Give the discriminator's parameters to the optimiser.

    All features pass the discriminator in one batch: a batch normalisation sees all domains at
    once. Label shift is not handled: where classes are rarer in one domain, features that hide the
    domain hide the class as well.

    Args:
        discriminator: (b, d) -> (b, 1) logits for two domains, or (b, k) for k.
        strength: of the reversal; :meth:`set_strength` changes it as training goes on.

    Raises:
        ValueError: if fewer than two domains come, or shapes do not fit.
        TypeError: if a domain's features are missing or not floating.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, section 4.2.
    Differs: formula 18 keeps the minus beside the reversal; taken literally they would cancel.

    >>> loss = DomainAdversarialLoss(nn.Linear(8, 1), strength=0.1)
    >>> source, target = torch.randn(4, 8), torch.randn(6, 8)
    >>> loss(source, target).shape
    torch.Size([])
    """

    def __init__(self, discriminator: nn.Module, strength: int | float = 1.0) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.reversal = GradientReversal(strength)

    def set_strength(self, strength: int | float) -> None:
        """Change the strength of the reversal, e.g. by a schedule; a compiled graph stays.

        Losses that were made already keep the strength that they had.

        Raises:
            ValueError: if ``strength`` is not finite; the old one stays.
        """
        self.reversal.set_strength(strength)

    def forward(self, *features: Tensor, weight: Weights | None = None) -> Tensor:
        """The loss of features (b_i, d), a tensor for each domain; any b_i may be 0.

        ``weight`` holds one tensor (b_i,) for each domain, or None for a domain without.
        """
        rows, domain = _rows("DomainAdversarialLoss", features)
        logits = self._logits(rows, len(features))
        return domain_adversarial_loss(logits, domain, _weights(weight, features))

    @torch.no_grad()
    def accuracy(self, *features: Tensor) -> Tensor:
        """Share of each domain's rows that the discriminator gets right, averaged over domains.

        1 / k says that this discriminator fails, not that the domains are alike: measure that with
        :func:`embedkit.analysis.proxy_a_distance`. Domains without rows are left out; without any
        row it is 0, and a NaN logit makes it NaN. The discriminator is evaluated without dropout
        and with the statistics that its normalisations hold, and is left in the mode it was in.
        """
        rows, domain = _rows("DomainAdversarialLoss", features)
        modes = [(module, module.training) for module in self.discriminator.modules()]
        try:
            self.discriminator.eval()
            logits = self._logits(rows, len(features))
        finally:
            for module, training in modes:
                module.training = training
        guess = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)
        right = (guess == domain).to(accumulation_dtype(logits.dtype))
        right = right.masked_fill(logits.isnan().any(dim=1), torch.nan)
        parts = torch.split(right, [x.shape[0] for x in features])
        means = [part.mean() for part in parts if len(part)]
        return torch.stack(means).mean() if means else right.sum()

    def _logits(self, rows: Tensor, domains: int) -> Tensor:
        logits: Tensor = self.discriminator(self.reversal(rows))
        check_ndim("logits", logits, "b k")
        wanted = 1 if domains == 2 and logits.shape[1] == 1 else domains
        check_last_dim(
            "logits", logits, wanted, f"Features of {domains} domains came: rebuild it for as many."
        )
        return logits


def check_domains(owner: str, features: Sequence[Tensor]) -> list[str]:
    """Raise unless there are two domains or more, alike in width and dtype; their names."""
    if len(features) < 2:
        raise ValueError(
            f"{owner}: expected features of two domains or more, one tensor each, got "
            f"{len(features)}. Pass source and target, as loss(source, target)."
        )
    names = ["source", "target"] if len(features) == 2 else [*map(str, range(len(features)))]
    for name, x in zip(names, features, strict=True):
        if not isinstance(x, Tensor):
            raise TypeError(
                f"features of {name}: expected a tensor, got {type(x).__name__}. A domain without "
                "rows in this batch has an empty one, such as source[:0]."
            )
        check_floating(f"features of {name}", x)
        check_ndim(f"features of {name}", x, "b d")
        check_last_dim(
            f"features of {name}", x, features[0].shape[1], "All domains share one encoder."
        )
        if x.dtype != features[0].dtype:
            raise TypeError(
                f"{owner}: features must have one dtype, got {features[0].dtype} and {x.dtype}"
            )
    return names


def _rows(owner: str, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All rows, and the domain of each."""
    check_domains(owner, features)
    device = features[0].device
    domain = [torch.full((x.shape[0],), i, device=device) for i, x in enumerate(features)]
    return torch.cat(list(features)), torch.cat(domain)


def check_weights(weight: Weights | None, features: Sequence[Tensor]) -> Weights:
    """Raise unless ``weight`` is None or fits the rows of each domain; one entry for each."""
    if weight is None:
        return [None] * len(features)
    if len(weight) != len(features):
        raise ValueError(
            f"weight: expected {len(features)} tensors, one for each domain, got {len(weight)}. "
            "None stands for a domain without weights."
        )
    for one, x in zip(weight, features, strict=True):
        check_weight(one, x.shape[0], "row of its domain")
    return weight


def _weights(weight: Weights | None, features: Sequence[Tensor]) -> Tensor | None:
    """One weight for each of all rows."""
    if weight is None:
        return None
    wide = accumulation_dtype(features[0].dtype)
    pairs = zip(check_weights(weight, features), features, strict=True)
    parts = (x.new_ones(x.shape[0]) if one is None else one for one, x in pairs)
    return torch.cat([part.to(wide) for part in parts])
