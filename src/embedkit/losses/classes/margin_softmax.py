"""Margin softmax: classify by cosine, the own class handicapped by a margin."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import softplus

from embedkit._checks import check_at_least, check_choice, check_positive
from embedkit.losses._reduce import Reduction, reduce_rows
from embedkit.losses.classes._classes import classified, logsumexp_of_others

_SCALE = "It multiplies the cosines; 64 is usual, 30 for a few hundred classes."


def arc_face(
    embeddings: Float[Tensor, "b d"],
    class_weight: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    margin: float = 0.5,
    scale: float = 64.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Softmax over classes by angle, where the own class is moved away by an angle.

    Row loss: cross-entropy of the logits  scale * cos(angle_ij),  for the own class
    scale * cos(angle + margin). Beyond an angle of pi - margin, where that would rise again, it
    goes on as  scale * (cos(angle) - margin sin(margin)).  The b x c logits are never stored:
    memory is linear in b and in c, forward and backward.

    Args:
        embeddings: vectors of any length; a zero vector has cosine 0 and gets no gradient.
        class_weight: one learned vector per class, of any length; at least 2.
        labels: integers, 0 to c - 1.
        margin: an angle in radians, in [0, pi); 0 gives the plain cosine softmax.
        scale: > 0, multiplies the cosines.
        reduction: "mean" divides by the number of rows.

    Returns:
        A scalar, or (b,) for "none", in float32 or wider; an empty batch gives 0.

    Raises:
        ValueError: if shapes do not fit, a setting is out of range, or a label is (on a GPU the
            device reports that).
        TypeError: if embeddings are not floating or labels not integers.

    Source: Deng et al. 2019, ArcFace: Additive Angular Margin Loss for Deep Face Recognition,
    eq. 3; the continuation is that of the authors' code.
    Differs: pytorch-metric-learning takes the margin in degrees (28.6 there is 0.5 here) and
    stores the logits. No arc cosine: cos(angle + margin) = cos cos(margin) - sin sin(margin), with
    sin^2 held at the resolution of the dtype or above, so that a row that lies on its class
    vector has a finite gradient.
    """
    _check_angle("arc_face", margin)
    return _margin_softmax(
        "arc_face", _arc(margin), embeddings, class_weight, labels, scale, reduction
    )


def cos_face(
    embeddings: Float[Tensor, "b d"],
    class_weight: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    margin: float = 0.35,
    scale: float = 64.0,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Softmax over classes by cosine, where the margin is taken off the own class's cosine.

    Row loss: cross-entropy of the logits  scale * cos_ij,  for the own class
    scale * (cos - margin). Arguments, memory and errors as in :func:`arc_face`, but ``margin`` is
    in units of the cosine, >= 0.

    Source: Wang et al. 2018, CosFace: Large Margin Cosine Loss for Deep Face Recognition, eq. 4.
    """
    _check_difference("cos_face", margin)

    def lowered(cosine: Tensor) -> Tensor:
        return cosine - margin

    return _margin_softmax("cos_face", lowered, embeddings, class_weight, labels, scale, reduction)


def _arc(margin: float) -> Callable[[Tensor], Tensor]:
    def shifted(cosine: Tensor) -> Tensor:
        least = torch.finfo(cosine.dtype).eps
        sine = ((1.0 - cosine) * (1.0 + cosine)).clamp(min=least).sqrt()
        moved = cosine * math.cos(margin) - sine * math.sin(margin)
        beyond = cosine < -math.cos(margin)
        return torch.where(beyond, cosine - margin * math.sin(margin), moved)

    return shifted


def _margin_softmax(
    owner: str,
    handicap: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    class_weight: Tensor,
    labels: Tensor,
    scale: float,
    reduction: Reduction,
) -> Tensor:
    """Cross-entropy as  softplus(logsumexp of the other classes - own logit)."""
    _check(owner, class_weight.shape[0], scale)
    c = classified(owner, embeddings, class_weight, labels)
    others = logsumexp_of_others(c.rows, c.classes, c.labels, c.class_ids, scale)
    row = softplus(others - scale * handicap(c.cosine), threshold=40.0)
    return reduce_rows(row, torch.ones_like(row, dtype=torch.bool), reduction)


def _check(owner: str, num_classes: int, scale: float) -> None:
    check_at_least(owner, "num_classes", num_classes, 2, "One class leaves nothing to tell apart.")
    check_positive(owner, "scale", scale, _SCALE)


def _check_angle(owner: str, margin: float) -> None:
    if not 0 <= margin < math.pi:
        raise ValueError(
            f"{owner}: margin must be an angle in radians, in [0, pi), got {margin:g}. "
            "Turn degrees by math.radians; 0.5 is usual."
        )


def _check_difference(owner: str, margin: float) -> None:
    if not 0 <= margin < math.inf:
        raise ValueError(
            f"{owner}: margin must be a difference of cosines >= 0, got {margin:g}. 0.35 is usual."
        )


class ArcFaceLoss(nn.Module):
    """:func:`arc_face` with the class vectors as its parameter ``weight`` (num_classes, dim).

    Train them with the model: ``optimizer = Adam([*model.parameters(), *loss.parameters()])``.
    They start at a length of about 1 in random directions; only directions matter.

    Args:
        num_classes: at least 2.
        dim: width of the embeddings.
        margin: an angle in radians, in [0, pi).
        scale: > 0, multiplies the cosines.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> loss = ArcFaceLoss(num_classes=10, dim=4)
    >>> loss(torch.randn(3, 4), torch.tensor([1, 9, 1])).shape
    torch.Size([])
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        margin: float = 0.5,
        scale: float = 64.0,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check("ArcFaceLoss", num_classes, scale)
        _check_angle("ArcFaceLoss", margin)
        check_choice("ArcFaceLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.margin, self.scale, self.reduction = margin, scale, reduction
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new directions."""
        nn.init.normal_(self.weight, std=max(self.weight.shape[1], 1) ** -0.5)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (b, dim) with labels (b,)."""
        return arc_face(
            embeddings,
            self.weight,
            labels,
            margin=self.margin,
            scale=self.scale,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        classes, dim = self.weight.shape
        return f"num_classes={classes}, dim={dim}, margin={self.margin:g}, scale={self.scale:g}"


class CosFaceLoss(nn.Module):
    """:func:`cos_face` with the class vectors as its parameter ``weight``; see ArcFaceLoss.

    Args:
        num_classes: at least 2.
        dim: width of the embeddings.
        margin: in units of the cosine, >= 0.
        scale: > 0, multiplies the cosines.
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> loss = CosFaceLoss(num_classes=10, dim=4)
    >>> loss(torch.randn(3, 4), torch.tensor([1, 9, 1])).shape
    torch.Size([])
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        margin: float = 0.35,
        scale: float = 64.0,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check("CosFaceLoss", num_classes, scale)
        _check_difference("CosFaceLoss", margin)
        check_choice("CosFaceLoss", "reduction", reduction, ("mean", "sum", "none"))
        self.margin, self.scale, self.reduction = margin, scale, reduction
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new directions."""
        nn.init.normal_(self.weight, std=max(self.weight.shape[1], 1) ** -0.5)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (b, dim) with labels (b,)."""
        return cos_face(
            embeddings,
            self.weight,
            labels,
            margin=self.margin,
            scale=self.scale,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        classes, dim = self.weight.shape
        return f"num_classes={classes}, dim={dim}, margin={self.margin:g}, scale={self.scale:g}"
