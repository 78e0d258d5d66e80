"""Tell from features which domain they come from, alone or joined with predicted classes."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import (
    check_at_least,
    check_floating,
    check_last_dim,
    check_list,
    check_ndim,
    check_rows,
)


class DomainDiscriminator(nn.Module):
    """Logits of the domain of features: linear layers with ReLUs between them.

    Two domains have one logit, above 0 for domain 1, the target; more have one logit each. Train it
    with :class:`embedkit.losses.DomainAdversarialLoss`, which puts the reversal before it. Its
    ``layers`` take torch's spectral norm, weight norm and pruning.

    Args:
        in_features: width of the features.
        hidden: widths of the hidden layers; ``()`` makes it linear. A narrow feature needs less:
            the paper has (100,) for its smallest network.
        num_domains: at least 2.
        dropout: of hidden units; 0.5 in the paper's largest networks.

    Raises:
        ValueError: if a width is below 1, ``num_domains`` below 2, or ``dropout`` outside [0, 1).
        TypeError: if ``hidden`` is no list, or features are not floating.

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, figure 4.
    Differs: initialised as torch's own linear layers, not as the paper's Office network (standard
    deviation 0.01, in the last layer 0.3); no layer normalises.

    >>> DomainDiscriminator(8, hidden=[16])(torch.randn(3, 8)).shape
    torch.Size([3, 1])
    >>> DomainDiscriminator(8, num_domains=4)(torch.randn(3, 8)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int] = (1024, 1024),
        num_domains: int = 2,
        dropout: int | float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least("DomainDiscriminator", "in_features", in_features, 1)
        check_list("DomainDiscriminator", "hidden", hidden, "One hidden layer: [16].")
        for width in hidden:
            check_at_least("DomainDiscriminator", "each width of hidden", width, 1)
        check_at_least(
            "DomainDiscriminator", "num_domains", num_domains, 2, "One domain has nothing to tell."
        )
        if not 0 <= dropout < 1:
            raise ValueError(
                f"DomainDiscriminator: dropout must be in [0, 1), got {dropout:g}. Try 0.5."
            )
        self.num_domains = num_domains
        self.widths = (in_features, *hidden, 1 if num_domains == 2 else num_domains)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(self.widths))
        self.dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Give the linear layers torch's own initialisation."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, features: Tensor) -> Tensor:
        """(*b, in_features) -> (*b, 1) for two domains, (*b, num_domains) for more."""
        check_floating("features", features)
        check_last_dim(
            "features", features, self.widths[0], "A discriminator fits one width: rebuild it."
        )
        # Not the weight's dtype: it may be computed from others, and cost one more iteration.
        x: Tensor = self.layers[0](features.to(next(self.parameters()).dtype))
        for layer in self.layers[1:]:
            x = layer(self.dropout(x.relu()))
        return x.to(features.dtype)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"widths={self.widths}, num_domains={self.num_domains}"


class JointFeatures(nn.Module):
    """Features joined with class probabilities, for a discriminator that sees both.

    joint = features (outer product) probabilities, flattened: what belongs to one class fills a
    part of its own, so domains are compared class by class. Where that is wider than
    ``max_features`` it is projected at random,  (F R_f) * (P R_p) / sqrt(k),  whose inner products
    equal those of the outer product on average; both matrices are buffers, drawn once and saved.

    Args:
        dim: width of the features.
        num_classes: of the probabilities, at least 2.
        max_features: the widest outer product, ``dim * num_classes``, that is used as it is.
        projected_features: k, the width of the random projection.
        generator: of the projection, on the device the module is built on; None: torch's own.

    Attributes:
        out_features: the width that comes out, to build the discriminator with.

    Raises:
        ValueError: if a width is below 1, or inputs do not fit.
        TypeError: if inputs are not floating.

    Source: Long et al. 2018, Conditional Adversarial Domain Adaptation, eq. 4-7.

    >>> joint = JointFeatures(2, 2)
    >>> joint(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.75, 0.25]]))
    tensor([[0.7500, 0.2500, 1.5000, 0.5000]])
    >>> JointFeatures(512, 100).out_features
    1024
    """

    feature_matrix: Tensor | None
    class_matrix: Tensor | None

    def __init__(
        self,
        dim: int,
        num_classes: int,
        max_features: int = 4096,
        projected_features: int = 1024,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_at_least("JointFeatures", "dim", dim, 1)
        check_at_least("JointFeatures", "num_classes", num_classes, 2)
        check_at_least("JointFeatures", "projected_features", projected_features, 1)
        self.dim, self.num_classes = dim, num_classes
        project = dim * num_classes > max_features
        self.out_features = projected_features if project else dim * num_classes
        k = projected_features
        self.register_buffer("feature_matrix", torch.empty(dim, k) if project else None)
        self.register_buffer("class_matrix", torch.empty(num_classes, k) if project else None)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the projection anew, if there is one."""
        for matrix in (self.feature_matrix, self.class_matrix):
            if matrix is not None:
                matrix.normal_(generator=generator)

    def forward(
        self, features: Float[Tensor, "b d"], probabilities: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b k"]:
        """(b, dim) and (b, num_classes) -> (b, out_features), in the dtype of the features."""
        for name, rows in (("features", features), ("probabilities", probabilities)):
            check_floating(name, rows)
            check_ndim(name, rows, "b d" if rows is features else "b c")
        check_last_dim("features", features, self.dim, "As wide as dim says.")
        check_last_dim("probabilities", probabilities, self.num_classes, "One for each class.")
        check_rows("probabilities", probabilities, features.shape[0], "One row for each feature.")
        chances = probabilities.to(features.dtype)
        if self.feature_matrix is None or self.class_matrix is None:
            return (features[:, :, None] * chances[:, None, :]).flatten(1)
        left = features.to(self.feature_matrix.dtype) @ self.feature_matrix
        right = chances.to(self.class_matrix.dtype) @ self.class_matrix
        joint: Tensor = left * right / self.out_features**0.5
        return joint.to(features.dtype)

    def extra_repr(self) -> str:
        """What was asked for."""
        return (
            f"dim={self.dim}, num_classes={self.num_classes}, out_features={self.out_features}, "
            f"projected={self.feature_matrix is not None}"
        )
