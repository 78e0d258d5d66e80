"""What frozen vectors know of the labels: nearest neighbours, a linear classifier, clusters."""

from importlib import import_module
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_at_least,
    check_finite,
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_positive,
    check_rows,
)
from embedkit.ops import accumulation_dtype, normalize
from embedkit.search import exact_search

_ENTRIES = 2**22  # of a block of votes


class ClusteringScores(NamedTuple):
    """How clusters found without labels agree with labels; 1 is best for each."""

    nmi: float
    """Normalised mutual information, by the arithmetic mean: equals the V-measure. In [0, 1]."""
    ari: float
    """Adjusted Rand index: pairs put together or apart rightly; 0 is chance, at least -0.5."""
    homogeneity: float
    """1 where each cluster has rows of one label only. In [0, 1]."""
    completeness: float
    """1 where the rows of each label are in one cluster. In [0, 1]."""
    purity: float
    """Share of rows whose label is the most frequent one of their cluster; more clusters, more."""


@torch.no_grad()
def knn_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "q d"],
    test_labels: Int[Tensor, " q"],
    *,
    k: int = 20,
    temperature: float | None = 0.07,
) -> float:
    """Accuracy of the vote of the k nearest training rows, by cosine: nothing is fitted.

    Neighbour j of a test row votes for its own label with weight exp(s_j / t), s_j the cosine;
    without a temperature each neighbour has one vote. The smallest label wins a draw. The search
    is exact and in bounded memory.

    Args:
        train: rows whose labels are known.
        train_labels: integers.
        test: rows to classify, none of them in ``train``.
        test_labels: integers; a label that ``train_labels`` lacks cannot be found.
        k: neighbours that vote; all of ``train`` where it has fewer.
        temperature: t > 0; None for a vote by majority.

    Returns:
        The share of test rows classified rightly; 0.0 where there is none.

    Raises:
        TypeError: if rows are not floating or labels not integers.
        ValueError: if rows, widths and labels do not fit, ``train`` is empty, ``k`` or
            ``temperature`` is not above 0, or a row holds NaN or infinity.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance
        Discrimination, sec. 3.4 (weighted kNN, k = 200, t = 0.07).

    >>> train = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> knn_probe(train, torch.tensor([0, 0, 1]), train.flip(1), torch.tensor([1, 1, 0]), k=1)
    1.0
    """
    _check("knn_probe", train, train_labels, test, test_labels)
    check_at_least("knn_probe", "k", k, 1)
    if temperature is not None:
        hint = "It divides cosines; 0.07 is usual, and None counts votes."
        check_positive("knn_probe", "temperature", temperature, hint)
    k = min(k, train.shape[0])
    classes, number = torch.unique(train_labels, return_inverse=True)
    right = torch.zeros((), dtype=torch.long, device=test.device)
    step = max(1, _ENTRIES // max(len(classes), k))
    for rows, target in zip(torch.split(test, step), torch.split(test_labels, step), strict=True):
        found = exact_search(rows, train, k)
        cosine = found.similarity.double()
        weight = torch.ones_like(cosine)
        if temperature is not None:  # the largest weight is 1, so that none overflows
            weight = ((cosine - cosine[:, :1]) / temperature).exp()
        vote = weight.new_zeros(len(rows), len(classes)).scatter_add_(
            1, number[found.index], weight
        )
        right += (classes[vote.argmax(dim=1)] == target).sum()
    return int(right) / max(test.shape[0], 1)


def linear_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "q d"],
    test_labels: Int[Tensor, " q"],
    *,
    inverse_penalty: float = 1.0,
    max_iter: int = 1000,
) -> float:
    """Accuracy of a linear classifier on standardised features: are classes linearly separable?

    Columns are scaled to mean 0 and deviation 1 of ``train``; scikit-learn's multinomial logistic
    regression then minimises  |W|^2 / 2 + c sum_i cross-entropy_i  over ``train``, in float64.

    Args:
        train: rows to fit on.
        train_labels: integers, two classes or more.
        test: rows to classify.
        test_labels: integers.
        inverse_penalty: c > 0 (scikit-learn's ``C``); larger fits closer. Choose it on rows that
            are neither in ``train`` nor in ``test``.
        max_iter: steps of L-BFGS; scikit-learn warns where they do not suffice.

    Returns:
        The share of test rows classified rightly; 0.0 where there is none.

    Raises:
        ImportError: if scikit-learn is missing.
        TypeError: if rows are not floating or labels not integers.
        ValueError: if rows, widths and labels do not fit, ``train_labels`` holds one class only,
            ``inverse_penalty`` or ``max_iter`` is not above 0, or a row holds NaN or infinity.

    Source: Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes.
    """
    _check("linear_probe", train, train_labels, test, test_labels)
    check_positive("linear_probe", "inverse_penalty", inverse_penalty, "1.0 is usual.")
    check_at_least("linear_probe", "max_iter", max_iter, 1)
    if len(torch.unique(train_labels)) < 2:
        raise ValueError(
            "linear_probe: train_labels must hold two classes or more, got one. "
            "A classifier needs something to tell apart."
        )
    scaler = _sklearn("linear_probe", "preprocessing").StandardScaler()
    model = _sklearn("linear_probe", "linear_model").LogisticRegression(
        C=inverse_penalty, max_iter=max_iter
    )
    model.fit(scaler.fit_transform(_array(train)), _array(train_labels))
    if not len(test):
        return 0.0
    return float((model.predict(scaler.transform(_array(test))) == _array(test_labels)).mean())


def clustering_scores(
    embeddings: Float[Tensor, "b d"],
    labels: Int[Tensor, " b"],
    num_clusters: int | None = None,
    *,
    unit: bool = True,
    seed: int = 0,
) -> ClusteringScores:
    """Cluster the rows by k-means, without labels, and compare clusters with labels.

    The clusters are scikit-learn's, the best of 10 starts; so are all scores but purity,
    (1/b) sum over clusters of the count of their most frequent label.

    Args:
        embeddings: one row per item.
        labels: integers.
        num_clusters: None for as many as there are labels. More raise purity and homogeneity.
        unit: scale rows to length 1 first, as befits vectors compared by cosine.
        seed: of the starts.

    Returns:
        A :class:`ClusteringScores`. scikit-learn warns where fewer rows differ than clusters are
        wanted, as a collapsed encoder makes them.

    Raises:
        ImportError: if scikit-learn is missing.
        TypeError: if embeddings are not floating or labels not integers.
        ValueError: if there is not one label per row, ``num_clusters`` is below 1 or above the
            number of rows, there is no row, or a row holds NaN or infinity.

    Source: Hubert and Arabie 1985, Comparing Partitions; Rosenberg and Hirschberg 2007, V-Measure:
    A Conditional Entropy-Based External Cluster Evaluation Measure.
    """
    _check_side("clustering_scores", "embeddings", embeddings, labels)
    classes, number = torch.unique(labels, return_inverse=True)
    clusters = len(classes) if num_clusters is None else num_clusters
    check_at_least("clustering_scores", "rows", embeddings.shape[0], 1)
    check_at_least("clustering_scores", "num_clusters", clusters, 1)
    if clusters > embeddings.shape[0]:
        raise ValueError(
            f"clustering_scores: num_clusters must not exceed the {embeddings.shape[0]} rows, got "
            f"{clusters}"
        )
    rows = embeddings.detach().to(accumulation_dtype(embeddings.dtype))
    means = _sklearn("clustering_scores", "cluster").KMeans(clusters, n_init=10, random_state=seed)
    metrics = _sklearn("clustering_scores", "metrics")
    truth = _array(labels)
    found = means.fit_predict(_array(normalize(rows) if unit else rows))
    homogeneity, completeness, nmi = metrics.homogeneity_completeness_v_measure(truth, found)
    cell = torch.as_tensor(found).long() * len(classes) + number.cpu()
    count = cell.bincount(minlength=clusters * len(classes)).view(clusters, len(classes))
    return ClusteringScores(
        nmi=float(nmi),
        ari=float(metrics.adjusted_rand_score(truth, found)),
        homogeneity=float(homogeneity),
        completeness=float(completeness),
        purity=int(count.amax(dim=1).sum()) / len(rows),
    )


def _sklearn(owner: str, module: str) -> Any:
    """A module of scikit-learn, which is loaded only where something is fitted."""
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            f"{owner}: scikit-learn does the fitting, and it is not installed here. "
            "Install it with: pip install scikit-learn"
        ) from error


def _array(rows: Tensor) -> Any:
    """For scikit-learn: on the CPU, floating-point numbers as float64."""
    rows = rows.detach().cpu()
    return (rows.double() if rows.is_floating_point() else rows).numpy()


def _check(
    owner: str, train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor
) -> None:
    _check_side(owner, "train", train, train_labels)
    _check_side(owner, "test", test, test_labels)
    check_last_dim("test", test, train.shape[1], "Both must come from one model.")
    if not len(train):
        raise ValueError(f"{owner}: train must hold a row, got none")


def _check_side(owner: str, name: str, rows: Tensor, labels: Tensor) -> None:
    check_floating(name, rows)
    check_ndim(name, rows, "n d")
    check_integer("labels", labels, "Number the classes.")
    check_rows("labels", labels, rows.shape[0], f"One label per row of {name}.")
    check_ndim("labels", labels, "n")
    check_finite(owner, name, rows)
