"""How well a fresh classifier tells two domains apart."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import (
    check_finite,
    check_floating,
    check_last_dim,
    check_ndim,
    check_positive,
)

COSTS = tuple(10.0**power for power in range(-5, 5))  # of the support vector machines


def proxy_a_distance(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m d"],
    *,
    costs: Sequence[int | float] = COSTS,
    seed: int = 0,
) -> float:
    """Proxy A-distance  2 (1 - 2 e),  e the error of the best linear classifier of the domains.

    Half of each domain trains one linear support vector machine for each of ``costs``, the other
    half measures it; the lowest error counts, and one above 1/2 as its difference from 1.

    The result is that of the features as they are, and has a bias: equal distributions give more
    than 0 (0.04 to 0.19 with 500 rows each), since an error of few rows is folded and the least of
    ten is taken. Small differences of many dimensions add up: compare equal numbers of rows and
    dimensions only. A low value is no promise of accuracy in the target, nor a high one of failure.

    Args:
        source: features of one domain.
        target: features of the other.
        costs: the settings C that are tried; the paper's are 1e-5 to 1e4.
        seed: of the halves.

    Returns:
        A number from 0, the domains look alike, to 2.

    Raises:
        ImportError: if scikit-learn is missing.
        TypeError: if features are not floating.
        ValueError: if a domain has fewer than two rows, widths differ, there is no cost or one that
            is not above 0, or a row holds NaN or infinity.

    Source: Ben-David et al. 2007, Analysis of Representations for Domain Adaptation; Ganin et al.
    2016, Domain-Adversarial Training of Neural Networks, section 5.1.5.
    Differs: the error is the mean of both domains' errors, so that sizes may differ.

    >>> proxy_a_distance(torch.randn(50, 2), torch.randn(50, 2) + 10)
    2.0
    """
    for name, rows in (("source", source), ("target", target)):
        check_floating(name, rows)
        check_ndim(name, rows, "n d")
        if rows.shape[0] < 2:
            raise ValueError(
                f"proxy_a_distance: {name} must have two rows or more, got {rows.shape[0]}. "
                "Telling two domains apart takes rows of both."
            )
        check_finite("proxy_a_distance", name, rows)
    check_last_dim("target", target, source.shape[1], "Both domains live in one space.")
    if not costs:
        raise ValueError("proxy_a_distance: costs must hold one number at least, got none")
    for cost in costs:
        check_positive("proxy_a_distance", "each of costs", cost)
    machine, slow = _machine()
    generator = torch.Generator().manual_seed(seed)
    train, test = [], []
    for rows in (source, target):
        shuffled = rows.detach().cpu().double()[torch.randperm(rows.shape[0], generator=generator)]
        train.append(shuffled[: rows.shape[0] // 2])
        test.append(shuffled[rows.shape[0] // 2 :])
    labels = torch.arange(2).repeat_interleave(torch.tensor([len(rows) for rows in train]))
    lowest = 0.5
    for cost in costs:
        model = machine(C=cost, dual="auto", class_weight="balanced", random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", slow)  # the largest costs need no optimum
            model.fit(torch.cat(train).numpy(), labels.numpy())
        wrong = [float((model.predict(rows.numpy()) != i).mean()) for i, rows in enumerate(test)]
        error = sum(wrong) / 2
        lowest = min(lowest, error, 1 - error)
    return 2 * (1 - 2 * lowest)


def _machine() -> tuple[Any, type[Warning]]:
    """scikit-learn's linear support vector machine, and its warning of not having converged."""
    try:
        from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
        from sklearn.svm import LinearSVC  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "proxy_a_distance: the classifier is scikit-learn's, which is not installed here. "
            "Install it with: pip install scikit-learn"
        ) from error
    return LinearSVC, ConvergenceWarning
