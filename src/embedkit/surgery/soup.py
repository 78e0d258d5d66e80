"""Model soups: one set of weights out of several, in memory of one model whatever their number."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_choice, check_positive
from embedkit.surgery._average import add_to, distances, running, weighted_sum
from embedkit.surgery._checkpoints import (
    Checkpoint,
    check_alike,
    checkpoint_list,
    open_checkpoint,
)


class GreedySoup(NamedTuple):
    """What :func:`greedy_soup` ended with."""

    state: dict[str, Any]
    """The state dict: the plain mean of the checkpoints that were kept."""
    kept: list[int]
    """Their places in the list that was given, the best first."""
    score: float
    """What ``evaluate`` gave for their mean."""
    scores: list[float]
    """What it gave for each checkpoint alone, in the order given."""


def uniform_soup(
    checkpoints: Sequence[Checkpoint], weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """Average checkpoints, name by name:  theta = sum_c a_c theta_c  with  a = weights / sum.

    Works where the checkpoints lie in one basin: fine-tuned from the same weights, or taken from
    one run. Means are formed in float64 and rounded once to the type of the entry. Integers and
    flags (``num_batches_tracked``) and extra states are those of the first checkpoint. Running
    statistics of BatchNorm are averaged like weights; better pass some data through the model
    afterwards, as ``torch.optim.swa_utils.update_bn`` does.

    A sixteenth of one file at a time is in memory beside the result, so neither the number of
    files nor the size of a table matters.

    Args:
        checkpoints: state dicts, paths of files that ``torch.save`` wrote, or paths that end in
            ``.safetensors``, also mixed. Files are never unpickled beyond tensors and are read
            to the CPU; state dicts stay as they are.
        weights: >= 0, one per checkpoint, of any sum. None: all equal. A checkpoint with weight 0
            must still fit.

    Returns:
        A state dict for ``load_state_dict``: names in the order of the first checkpoint, which
        tells types and devices, too. Tied weights come back as equal tensors.

    Raises:
        ValueError: for an empty list, a file of another kind, names, shapes or types that differ
            (it says which), or weights that are negative, not finite, all 0 or of another number.
        TypeError: if a checkpoint is no state dict, or holds something else than tensors.
        ImportError: for ``.safetensors`` without that package.

    Source: Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models
    improves accuracy without increasing inference time, uniform soup; Zhao et al. 2025,
    KaLM-Embedding-V2: Superior Training Techniques and Data Inspire A Versatile Embedding Model.
    Differs: weights, which the uniform soup doesn't have; negative ones, as in task arithmetic,
    are refused, because a mean then leaves the checkpoints' hull.

    >>> first, second = torch.nn.Linear(3, 2).state_dict(), torch.nn.Linear(3, 2).state_dict()
    >>> soup = uniform_soup([first, second])
    >>> torch.allclose(soup["weight"], (first["weight"] + second["weight"]) / 2)
    True
    """
    sources = checkpoint_list("uniform_soup", checkpoints)
    shares = _shares(len(sources), weights)
    layout = check_alike("uniform_soup", sources)
    return weighted_sum("uniform_soup", sources, dict.fromkeys(layout, shares), layout)


def greedy_soup(
    checkpoints: Sequence[Checkpoint], evaluate: Callable[[dict[str, Any]], float]
) -> GreedySoup:
    """Add checkpoints to a mean, the best first, as long as the mean does not get worse.

    Each is evaluated alone. Then, from the best downwards, a checkpoint joins the soup if the mean
    of all members and itself scores at least as high as the mean without it. So on the data of
    ``evaluate`` the soup is never worse than the best checkpoint; use a validation split, never the
    test split.

    The sum of the members is kept in float32 (float64 for float64), and beside it one mean at a
    time is made for ``evaluate``, which is called 2 n - 1 times.

    Args:
        checkpoints: as for :func:`uniform_soup`.
        evaluate: a score of a state dict, larger is better; it should load and forget it, and must
            not change it: it may be yours. Of a loss return minus the loss.

    Returns:
        The state dict, which checkpoints it is the mean of, and the scores. Equal scores: the
        earlier checkpoint goes first. A soup that scores NaN is not taken.

    Raises:
        ValueError: as :func:`uniform_soup`; if a checkpoint alone scores NaN.
        TypeError: if a checkpoint is no state dict, or holds something else than tensors.
        ImportError: for ``.safetensors`` without that package.

    Source: Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models
    improves accuracy without increasing inference time, greedy soup.

    >>> wanted = torch.zeros(2)
    >>> found = greedy_soup(
    ...     [{"w": torch.tensor(w)} for w in ([1.0, 0.0], [5.0, 5.0], [-1.0, 0.5])],
    ...     lambda state: -torch.dist(state["w"], wanted).item(),
    ... )
    >>> found.kept, found.state["w"]
    ([0, 2], tensor([0.0000, 0.2500]))
    """
    owner = "greedy_soup"
    sources = checkpoint_list(owner, checkpoints)
    layout = check_alike(owner, sources)
    titles, scores = list(sources), []
    for title, source in sources.items():
        scores.append(float(evaluate(open_checkpoint(owner, title, source))))
        if math.isnan(scores[-1]):
            raise ValueError(
                f"{owner}: evaluate must give a number, got nan for {title}. Leave it out, if its "
                "training diverged."
            )
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    kept, best = order[:1], scores[order[0]]

    def mean_with(others: Mapping[str, Checkpoint], number: int) -> dict[str, Any]:
        parts = {"the running sum": total, **others}
        return weighted_sum(owner, parts, dict.fromkeys(layout, (1 / number,) * len(parts)), layout)

    start = {titles[kept[0]]: sources[titles[kept[0]]]}
    total = weighted_sum(owner, start, dict.fromkeys(layout, (1.0,)), running(layout))
    for place in order[1:]:
        title = titles[place]
        score = float(evaluate(mean_with({title: sources[title]}, len(kept) + 1)))
        if score >= best:
            kept, best = [*kept, place], score
            add_to(total, open_checkpoint(owner, title, sources[title]), layout)
    return GreedySoup(mean_with({}, len(kept)), kept, best, scores)


def delta_soup(
    base: Checkpoint,
    checkpoints: Sequence[Checkpoint],
    mode: Literal["proportional", "inverse", "softmax"] = "proportional",
    *,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Average checkpoints with weights of their own for each tensor, by how far it has moved.

    For a tensor, with  d_c = ||theta_c - theta_0||  and  theta_0  the weights all began with:

        theta = theta_0 + sum_c a_c (theta_c - theta_0),  where  sum_c a_c = 1  and

    - "proportional":  a_c = d_c / sum d:  whoever learned most about this tensor speaks loudest;
    - "inverse":  a_c = d_c^-1 / sum d^-1:  small, careful changes count most; a checkpoint that
      did not move at all then keeps the tensor at theta_0;
    - "softmax":  a = softmax(d / (mean(d) temperature)).

    Where no checkpoint has moved, the weights are equal. Memory is that of :func:`uniform_soup`;
    files are read twice.

    Args:
        base: the weights that training began with: a state dict or a path.
        checkpoints: as for :func:`uniform_soup`.
        mode: see above.
        temperature: > 0, of "softmax" alone; large ones lead to the uniform soup.

    Returns:
        A state dict, as :func:`uniform_soup` gives.

    Raises:
        ValueError: as :func:`uniform_soup`, where ``base`` must fit, too; for another mode, or a
            temperature that is not > 0.
        TypeError: if a checkpoint is no state dict, or holds something else than tensors.
        ImportError: for ``.safetensors`` without that package.

    Source: Zhang et al. 2025, CoDiEmb: A Collaborative yet Distinct Framework for Unified
    Representation Learning in Information Retrieval and Semantic Textual Similarity, the section
    on fusion.
    Differs: experimental. The paper says that weights follow from each parameter's deviation from
    the start; its formula was not at hand, so all three modes are unverified. A state dict doesn't
    tell parameters from buffers: every floating-point entry gets weights of its own.

    >>> base, moved = {"w": torch.tensor([1.0, 1.0])}, ([1.3, 0.6], [1.0, 1.1])
    >>> delta_soup(base, [{"w": torch.tensor(w)} for w in moved])["w"]
    tensor([1.2500, 0.6833])
    """
    owner = "delta_soup"
    check_choice(owner, "mode", mode, ("proportional", "inverse", "softmax"))
    check_positive(owner, "temperature", temperature)
    sources = checkpoint_list(owner, checkpoints)
    layout = check_alike(owner, {"base": base, **sources})
    shares = {
        name: _delta_shares(distance, mode, temperature).tolist()
        for name, distance in distances(owner, base, sources, layout).items()
    }
    return weighted_sum(owner, sources, shares, layout)


def _delta_shares(
    distance: Float[Tensor, " c"], mode: str, temperature: float
) -> Float[Tensor, " c"]:
    if mode == "softmax":
        relative = distance / distance.mean() if distance.any() else distance
        return (relative / temperature).softmax(dim=0)
    if mode == "inverse":
        least = distance.amin()
        distance = torch.where(distance == least, 1.0, least / distance)
    elif not distance.any():
        distance = torch.ones_like(distance)
    return distance / distance.sum()


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count:
        raise ValueError(f"uniform_soup: expected {count} weights, got {len(given)}")
    if not all(0 <= weight < math.inf for weight in given) or not sum(given):
        raise ValueError(
            f"uniform_soup: weights must be >= 0, finite and not all 0, got {given}. They say how "
            "much each checkpoint counts; their sum does not matter."
        )
    return [weight / sum(given) for weight in given]
