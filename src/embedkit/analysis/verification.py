"""Same or different? Rates of a threshold on distances, as face verification reports them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedkit._checks import check_at_least, check_ndim, check_same_shape


class ValidationRate(NamedTuple):
    """Share of same pairs accepted, and the distance below which a pair is accepted."""

    rate: float
    threshold: float


class FoldAccuracy(NamedTuple):
    """Mean accuracy over folds, its standard error, and each fold's threshold."""

    mean: float
    standard_error: float
    thresholds: list[float]


def verification_rates(
    distance: Float[Tensor, " p"], same: Bool[Tensor, " p"], thresholds: Float[Tensor, " t"]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """Shares of same pairs (VAL) and of different pairs (FAR) with distance <= threshold.

    Args:
        distance: one per pair, any scale; smaller is closer.
        same: True where both are of one class.
        thresholds: where to cut.

    Returns:
        (VAL, FAR) in float64, each (t,), not falling with the threshold; 0 where no such pair is.

    Raises:
        ValueError: if shapes differ.
        TypeError: if ``same`` is not bool.

    Source: Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition and Clustering,
    eq. 5-7.
    """
    _check(distance, same)
    rates = []
    for part in (distance[same], distance[~same]):
        below = torch.searchsorted(part.sort().values, thresholds.to(part.dtype), right=True)
        rates.append(below.double() / max(len(part), 1))
    return rates[0], rates[1]


def val_at_far(
    distance: Float[Tensor, " p"], same: Bool[Tensor, " p"], far: float = 1e-3
) -> ValidationRate:
    """The share of same pairs accepted by the largest threshold that accepts <= ``far`` of others.

    With n different pairs and k = floor(far n), a pair is accepted where it is closer than the
    (k + 1)-th closest different pair; k = 0, with few pairs, accepts no different pair at all.

    Raises:
        ValueError: if shapes differ, there is no different pair, or ``far`` is not in [0, 1].

    Source: Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition and Clustering,
    sec. 4 (VAL at a fixed FAR).
    """
    _check(distance, same)
    other = distance[~same].sort().values
    if not len(other):
        raise ValueError("val_at_far: no different pair is there, so no rate of false accepts is")
    if not 0.0 <= far <= 1.0:
        raise ValueError(f"val_at_far: far must be in [0, 1], got {far}. FaceNet takes 1e-3.")
    k = int(far * len(other) + 1e-9)
    threshold = float(other[k]) if k < len(other) else float("inf")
    own = distance[same]
    return ValidationRate(float((own < threshold).sum()) / max(len(own), 1), threshold)


def verification_accuracy(
    distance: Float[Tensor, " p"], same: Bool[Tensor, " p"], folds: int = 10
) -> FoldAccuracy:
    """Accuracy of "same where distance <= t", with t chosen on the other folds.

    Folds are consecutive pairs, as in the protocols that publish theirs; shuffle pairs first where
    they are sorted. Of equally good thresholds the smallest is taken.

    Raises:
        ValueError: if shapes differ, or there are fewer pairs than folds.

    Source: Huang et al. 2007, Labeled Faces in the Wild: A Database for Studying Face Recognition
    in Unconstrained Environments, the accuracy over ten folds.
    """
    _check(distance, same)
    check_at_least("verification_accuracy", "folds", folds, 2)
    if len(distance) < folds:
        raise ValueError(
            f"verification_accuracy: expected at least {folds} pairs, one per fold, got "
            f"{len(distance)}"
        )
    fold = torch.arange(len(distance), device=distance.device) * folds // len(distance)
    accuracies, thresholds = [], []
    for number in range(folds):
        threshold = _best_threshold(distance[fold != number], same[fold != number])
        held = fold == number
        right = (distance[held] <= threshold) == same[held]
        accuracies.append(right.double().mean())
        thresholds.append(threshold)
    found = torch.stack(accuracies)
    return FoldAccuracy(float(found.mean()), float(found.std() / folds**0.5), thresholds)


def _best_threshold(distance: Tensor, same: Tensor) -> float:
    ordered, order = distance.sort()
    right = torch.where(same[order], 1, -1).cumsum(dim=0)
    last = torch.ones_like(same)  # of equal distances all are accepted or none
    last[:-1] = ordered[1:] > ordered[:-1]
    right = right.masked_fill(~last, -len(distance))
    place = int(right.argmax())
    return float(ordered[place]) if right[place] > 0 else float("-inf")


def _check(distance: Tensor, same: Tensor) -> None:
    check_ndim("distance", distance, "p")
    check_same_shape("One entry per pair.", distance=distance, same=same)
    if same.dtype != torch.bool:
        raise TypeError(f"same: expected bool (True: one class), got {same.dtype}")
