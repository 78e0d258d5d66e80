"""Heads that stand between an encoder and its loss in training, and are left out afterwards."""

import math
import warnings
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_last_dim
from embedkit.ops import accumulation_dtype

_STEEPEST = 1e6  # first weight over last, above which a reweighting head all but truncates
_USUAL = 100.0


class ProjectionHead(nn.Module):
    """Linear layers with ReLUs between them: the loss sees the result, users the input.

    z = W_n ReLU(... ReLU(W_1 h + b_1)) + b_n,  with batch normalisation before each ReLU if asked
    for. Training makes z ignore what its own task doesn't need; h keeps more. The result is not
    normalised to length 1: losses do that.

    Batch normalisation takes its statistics over all rows of the leading axes. Fewer than two rows
    have none, so they are normalised by the running statistics, which stay as they are. On several
    devices convert the model with ``torch.nn.SyncBatchNorm.convert_sync_batchnorm``, or each device
    takes statistics of its own.

    Args:
        in_features: width of the encoder's output h.
        out_features: width of z.
        hidden_features: width of the hidden layers; None: ``in_features``.
        num_layers: number of linear layers, at least 1.
        batch_norm: normalise the hidden layers; three layers with it are SimCLRv2's head.

    Raises:
        ValueError: if a width or ``num_layers`` is below 1, or the input has another width.
        TypeError: if the input is not floating.

    Source: Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual
    Representations, section 2.1 (the projection head); Chen et al. 2020, Big Self-Supervised
    Models are Strong Semi-Supervised Learners (three layers).
    Differs: the authors' code also normalises z; append
    ``torch.nn.BatchNorm1d(out_features, affine=False)`` for that.

    >>> ProjectionHead(512)(torch.randn(4, 512)).shape
    torch.Size([4, 128])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int = 128,
        hidden_features: int | None = None,
        num_layers: int = 2,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        hidden = in_features if hidden_features is None else hidden_features
        for name, size in (
            ("in_features", in_features),
            ("out_features", out_features),
            ("hidden_features", hidden),
            ("num_layers", num_layers),
        ):
            check_at_least("ProjectionHead", name, size, 1)
        self.in_features, self.out_features = in_features, out_features
        widths = [in_features, *[hidden] * (num_layers - 1)]
        self.layers = nn.Sequential()
        for narrow, wide in pairwise(widths):
            self.layers.append(nn.Linear(narrow, wide, bias=not batch_norm))
            if batch_norm:
                self.layers.append(nn.BatchNorm1d(wide))
            self.layers.append(nn.ReLU())
        self.layers.append(nn.Linear(widths[-1], out_features))

    def reset_parameters(self) -> None:
        """Give the layers torch's own initialisation."""
        for layer in self.layers:
            if not isinstance(layer, nn.ReLU):
                layer.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """(*b, in_features) -> (*b, out_features)."""
        check_floating("x", x)
        check_last_dim("x", x, self.in_features, "A head fits one width: rebuild it.")
        rows = rearrange(x.to(self.get_parameter("layers.0.weight").dtype), "... d -> (...) d")
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm1d) and layer.training and rows.shape[0] < 2:
                rows = F.batch_norm(
                    rows,
                    layer.running_mean,
                    layer.running_var,
                    layer.weight,
                    layer.bias,
                    eps=layer.eps,
                )
            else:
                rows = layer(rows)
        return rows.reshape(*x.shape[:-1], self.out_features).to(x.dtype)


class ReweightingHead(nn.Module):
    """Coordinate i counts kappa^-i:  z_i = x_i * max(kappa^-i, min_weight),  i = 0 ... dim - 1.

    A fixed head in place of a learned one, with nothing to train: the loss sees z, users take x.
    To be heard by the loss, the encoder must write important features large into the first
    coordinates only, and x itself stays less unequal than z. No dropout and no shuffling of
    coordinates before it; normalising z to length 1 is fine. ``kappa = 100 ** (1 / (dim - 1))``
    makes the first weight 100 times the last; try ratios from 10 to 10,000 on a validation set.

    The weights are a buffer, not a parameter: a learned diagonal before a linear layer would mean
    nothing. It is saved with the state, so that a loaded head weighs as the trained one did. The
    product is taken in float32 or wider; casting the module itself to float16 zeroes weights
    below 6e-8.

    Args:
        dim: width of the encoder's output.
        kappa: how much less each coordinate counts than the one before, >= 1; 1 changes nothing.
        min_weight: no coordinate counts less than this, in [0, 1].

    Raises:
        ValueError: if ``dim`` is below 1, ``kappa`` below 1, ``min_weight`` outside [0, 1], or the
            input has another width.
        TypeError: if the input is not floating.

    Warns:
        UserWarning: if the first weight is more than 1e6 times the last, as then only the first
            coordinates are trained at all.

    Source: Xue et al. 2024, Investigating the Benefits of Projection Head for Representation
    Learning, the fixed reweighting head.
    Differs: ``min_weight``; the weights are made in float64.

    >>> ReweightingHead(4, kappa=2.0)(torch.ones(4))
    tensor([1.0000, 0.5000, 0.2500, 0.1250])
    """

    weight: Tensor

    def __init__(self, dim: int, kappa: int | float, min_weight: int | float = 0.0) -> None:
        super().__init__()
        check_at_least("ReweightingHead", "dim", dim, 1)
        usual = _USUAL ** (1 / max(dim - 1, 1))
        if not (kappa >= 1 and math.isfinite(kappa)):
            raise ValueError(
                f"ReweightingHead: kappa must be >= 1, got {kappa:g}. Each coordinate counts kappa "
                f"times less than the one before; try {usual:.4g}, with which the last of "
                f"{dim} counts 1 / {_USUAL:g}."
            )
        if not 0 <= min_weight <= 1:
            raise ValueError(
                f"ReweightingHead: min_weight must be in [0, 1], got {min_weight:g}. It is the "
                "least that a coordinate counts, where the first counts 1."
            )
        exponent = torch.arange(dim, dtype=torch.float64) * -math.log(kappa)
        weight = exponent.exp().clamp(min=min_weight)
        if (dim - 1) * math.log(kappa) > math.log(_STEEPEST) and min_weight * _STEEPEST < 1:
            trained = int(math.log(_STEEPEST) / math.log(kappa) + 1e-9) + 1
            warnings.warn(
                f"ReweightingHead: kappa={kappa:g} gives all but the first {trained} of {dim} "
                f"coordinates a weight below {1 / _STEEPEST:g}, so they are hardly trained. Try "
                f"kappa={usual:.4g}, or min_weight={1 / _USUAL:g}.",
                stacklevel=2,
            )
        self.dim, self.kappa, self.min_weight = dim, kappa, min_weight
        self.register_buffer("weight", weight.float())

    def forward(self, x: Tensor) -> Tensor:
        """(*b, dim) -> (*b, dim)."""
        check_floating("x", x)
        check_last_dim("x", x, self.dim, "A head fits one width: rebuild it.")
        return (x.to(accumulation_dtype(x.dtype)) * self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        """What was asked for."""
        least = f", min_weight={self.min_weight:g}" if self.min_weight else ""
        return f"dim={self.dim}, kappa={self.kappa:g}{least}"


def symmetric_relu(x: Float[Tensor, "*b"], threshold: Float[Tensor, ""]) -> Float[Tensor, "*b"]:
    """Shrink towards zero by a learnable amount:  relu(x - t) - relu(-x - t).

    For t >= 0 this is sign(x) max(abs(x) - t, 0), the soft threshold; below a negative t, which
    training may reach, entries closer to 0 than -t are doubled and others move away by -t. It is
    odd and continuous for every t, and the identity for t = 0.

    Args:
        x: any shape.
        threshold: a tensor without axes, so that it can be learned; for a fixed number t >= 0
            there is ``torch.nn.functional.softshrink``.

    Returns:
        The shape and dtype of ``x``, computed in float32 or wider.

    Raises:
        TypeError: if ``x`` is not floating.

    Source: Xue et al. 2024, Investigating the Benefits of Projection Head for Representation
    Learning, the symmetric ReLU of its non-linear model.
    """
    check_floating("x", x)
    wide = x.to(accumulation_dtype(x.dtype))
    return ((wide - threshold).relu() - (-wide - threshold).relu()).to(x.dtype)


class SymmetricReLU(nn.Module):
    """:func:`symmetric_relu` with one learned threshold for all entries.

    Above its threshold a feature passes, below it vanishes, so a layer after it can lose what the
    layer before it still carries. Between two linear layers that start as the identity it makes a
    head that starts as the identity, too.

    Args:
        init_threshold: where the threshold starts, >= 0.

    Raises:
        ValueError: if ``init_threshold`` is negative or not finite.
        TypeError: if the input is not floating.

    Source: Xue et al. 2024, as :func:`symmetric_relu`.

    >>> SymmetricReLU(0.5)(torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0])).tolist()
    [-1.5, 0.0, 0.0, 0.0, 1.5]
    """

    def __init__(self, init_threshold: int | float = 0.0) -> None:
        super().__init__()
        if not (init_threshold >= 0 and math.isfinite(init_threshold)):
            raise ValueError(
                f"SymmetricReLU: init_threshold must be >= 0, got {init_threshold:g}. Entries "
                "closer to zero than this become zero; 0 starts as the identity."
            )
        self.init_threshold = init_threshold
        self.threshold = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the threshold back to where it started."""
        nn.init.constant_(self.threshold, self.init_threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return symmetric_relu(x, self.threshold)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"init_threshold={self.init_threshold:g}"
