"""Probes: scikit-learn's classifiers and scores, hand numbers, errors."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, v_measure_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedkit.analysis import probes
from embedkit.analysis.probes import clustering_scores, knn_probe, linear_probe


def blobs(rows, classes=3, noise=1.0):
    labels = torch.arange(rows) % classes
    return torch.eye(classes, 5)[labels].double() + noise * torch.randn(rows, 5).double(), labels


@given(seed=st.integers(0, 2**31), k=st.integers(1, 9), weighted=st.booleans())
def test_knn_agrees_with_scikit_learn(seed, k, weighted):
    torch.manual_seed(seed)
    x, labels = blobs(60)
    labels = labels * 10 - 5  # any integers will do
    weights = (lambda d: np.exp((1 - d) / 0.2)) if weighted else "uniform"
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    want = theirs.fit(x[:40].numpy(), labels[:40].numpy()).score(
        x[40:].numpy(), labels[40:].numpy()
    )
    temperature = 0.2 if weighted else None
    got = knn_probe(x[:40], labels[:40], x[40:], labels[40:], k=k, temperature=temperature)
    assert got == pytest.approx(want)


def test_knn_by_hand():
    train = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    test, labels = torch.tensor([[0.96, 0.28]]), torch.tensor([7, 2, 2])
    # Cosines .96, .8, .28: the nearest says 7, the majority 2; at t = .05 exp(-3.2) < 1 keeps 7.
    seven = torch.tensor([7])
    assert knn_probe(train, labels, test, seven, k=1, temperature=None) == 1.0
    assert knn_probe(train, labels, test, seven, k=3, temperature=None) == 0.0
    assert knn_probe(train, labels, test, seven, k=99, temperature=0.05) == 1.0
    assert knn_probe(train, labels, test, seven, k=3, temperature=2.0) == 0.0
    # A draw goes to the smaller label, and a label never seen is not found.
    assert knn_probe(train[:2], labels[:2], test, seven - 5, k=2, temperature=None) == 1.0
    assert knn_probe(train, labels, test, seven + 1, k=1) == 0.0


def test_knn_in_blocks_half_precision_and_extreme_temperatures(monkeypatch):
    x, labels = blobs(90)
    sides = x[:60], labels[:60], x[60:], labels[60:]
    want = knn_probe(*sides)
    monkeypatch.setattr(probes, "_ENTRIES", 40)
    assert knn_probe(*sides) == want
    assert knn_probe(x[:60].half(), labels[:60], x[60:].half(), labels[60:]) == pytest.approx(
        want, abs=0.1
    )
    assert knn_probe(*sides, temperature=1e-3) == knn_probe(*sides, k=1)
    assert knn_probe(*sides, temperature=1e4) == knn_probe(*sides, temperature=None)
    assert knn_probe(x, labels, x[:0], labels[:0]) == 0.0


def test_linear_agrees_with_scikit_learn():
    x, labels = blobs(120)
    x = x * torch.tensor([1, 1e3, 1e-3, 1, 1]) + 50
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
    theirs.fit(x[:80].numpy(), labels[:80].numpy())
    want = theirs.score(x[80:].numpy(), labels[80:].numpy())
    got = linear_probe(x[:80], labels[:80], x[80:], labels[80:], inverse_penalty=0.5)
    assert got == pytest.approx(want)
    assert 0.4 < want < 0.9
    assert linear_probe(x[:80], labels[:80], x[:0], labels[:0]) == 0.0


def test_linear_does_not_see_scale_shift_or_constant_columns():
    x, labels = blobs(90)
    x = x.float().requires_grad_()
    moved = torch.cat([x * torch.tensor([1.0, 9.0, 0.1, 1.0, -3.0]) + 4, torch.ones(90, 1)], dim=1)
    want = linear_probe(x[:60], labels[:60], x[60:], labels[60:])
    assert linear_probe(moved[:60], labels[:60], moved[60:], labels[60:]) == pytest.approx(want)


def test_clusters_agree_with_scikit_learn():
    x, labels = blobs(60, noise=2.0)
    found = clustering_scores(x, labels, 9, unit=False, seed=3)
    want = KMeans(9, n_init=10, random_state=3).fit_predict(x.numpy())
    truth = labels.numpy()
    assert found.nmi == pytest.approx(normalized_mutual_info_score(truth, want))
    assert found.nmi == pytest.approx(v_measure_score(truth, want))
    assert found.ari == pytest.approx(adjusted_rand_score(truth, want))
    purity = sum(np.unique(truth[want == c], return_counts=True)[1].max() for c in range(9)) / 60
    assert found.purity == pytest.approx(purity)
    both = found.homogeneity + found.completeness
    assert found.nmi == pytest.approx(2 * found.homogeneity * found.completeness / both)


def test_clusters_by_hand():
    angle = torch.tensor([0.0, 0.01, 0.02, 1.5, 1.51])
    length = torch.tensor([1.0, 50.0, 1.0, 50.0, 1.0])  # of no account for unit rows
    x = torch.stack([angle.cos(), angle.sin()], dim=1) * length[:, None]
    perfect = clustering_scores(x, torch.tensor([8, 8, 8, -1, -1]))
    assert perfect == pytest.approx((1.0, 1.0, 1.0, 1.0, 1.0))
    assert clustering_scores(x, torch.tensor([8, 8, -1, -1, -1])).purity == pytest.approx(4 / 5)
    assert clustering_scores(x, torch.tensor([1, 1, 2, 2, 3]), 1).purity == pytest.approx(2 / 5)
    assert clustering_scores(x, torch.arange(5), 5) == pytest.approx((1.0, 1.0, 1.0, 1.0, 1.0))


def test_collapsed_rows_have_no_clusters():
    with pytest.warns(ConvergenceWarning, match="distinct clusters"):
        found = clustering_scores(torch.ones(10, 3).bfloat16(), torch.arange(10) % 2)
    assert found == pytest.approx((0.0, 0.0, 0.0, 1.0, 0.5), abs=1e-12)


def test_without_scikit_learn_the_way_to_it_is_named(monkeypatch):
    for name in ("sklearn", "sklearn.preprocessing", "sklearn.cluster"):
        monkeypatch.setitem(sys.modules, name, None)
    x, labels = blobs(9)
    with pytest.raises(ImportError, match=r"linear_probe: scikit-learn.* pip install scikit-learn"):
        linear_probe(x, labels, x, labels)
    with pytest.raises(ImportError, match=r"clustering_scores: .* pip install scikit-learn"):
        clustering_scores(x, labels)
    assert knn_probe(x, labels, x, labels, k=1) == 1.0


def test_wrong_input_says_so():
    x, labels = blobs(9)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        knn_probe(x, labels, x, labels, k=0)
    with pytest.raises(ValueError, match=r"temperature must be > 0, got 0. It divides cosines"):
        knn_probe(x, labels, x, labels, temperature=0.0)
    with pytest.raises(ValueError, match="knn_probe: train must hold a row, got none"):
        knn_probe(x[:0], labels[:0], x, labels)
    with pytest.raises(ValueError, match="test must be finite, got NaN or infinity in 9 of 9"):
        knn_probe(x, labels, x * torch.nan, labels)
    with pytest.raises(ValueError, match="two classes or more, got one"):
        linear_probe(x, labels * 0, x, labels)
    with pytest.raises(ValueError, match="inverse_penalty must be > 0, got -1"):
        linear_probe(x, labels, x, labels, inverse_penalty=-1.0)
    with pytest.raises(ValueError, match="num_clusters must not exceed the 9 rows, got 10"):
        clustering_scores(x, labels, 10)
    with pytest.raises(ValueError, match="num_clusters must be >= 1, got 0"):
        clustering_scores(x, labels, 0)
    with pytest.raises(ValueError, match="rows must be >= 1, got 0"):
        clustering_scores(x[:0], labels[:0])


@pytest.mark.wording
def test_wrong_shapes_and_types_say_so():
    x, labels = blobs(9)
    with pytest.raises(ValueError, match=r"test: expected last axis of size 5.* one model"):
        knn_probe(x, labels, x[:, :4], labels)
    with pytest.raises(ValueError, match=r"labels: expected 9 rows.* One label per row of test"):
        knn_probe(x, labels, x, labels[:4])
    with pytest.raises(TypeError, match=r"train: expected a floating-point tensor"):
        linear_probe(x.long(), labels, x, labels)
    with pytest.raises(TypeError, match=r"labels: expected integers, got torch.float64"):
        clustering_scores(x, labels.double())
