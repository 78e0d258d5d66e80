"""Label retrieval: hand numbers, loops, pytorch-metric-learning's calculator."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from embedkit.analysis import label_retrieval
from embedkit.analysis.label_retrieval import label_retrieval_metrics


def by_loops(x, labels):
    """One row after the other, as the definitions say."""
    cosine = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(x, dim=1).T
    found = []
    for i, row in enumerate(cosine):
        others = [j for j in row.argsort(descending=True, stable=True).tolist() if j != i]
        hit = [int(labels[j] == labels[i]) for j in others]
        if depth := sum(hit):
            precise = sum(sum(hit[:r]) / r for r in range(1, depth + 1) if hit[r - 1])
            found.append((hit[0], sum(hit[:depth]) / depth, precise / depth))
    mean = [sum(column) / len(found) for column in zip(*found, strict=True)] if found else [0.0] * 3
    return (*mean, len(found))


def test_hand_numbers():
    # Along a line of angles: row 0 sees 1 (match), 2 (other), 3 (match); R = 2.
    angle = torch.tensor([0.0, 0.1, 0.3, 0.6, 1.5], dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    labels = torch.tensor([0, 0, 1, 0, 2])
    # Row 0: hits 1 0; row 1: hits 1 0; row 3: hits 0 1 (2 first, then 1). Rows 2, 4 are alone.
    found = label_retrieval_metrics(x, labels)
    assert found == pytest.approx((2 / 3, 1 / 2, (1 / 2 + 1 / 2 + 1 / 4) / 3, 3))


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 24), classes=st.integers(1, 6))
def test_is_the_loop(seed, rows, classes):
    torch.manual_seed(seed)
    x, labels = torch.randn(rows, 3).double(), torch.randint(-1, classes, (rows,))
    assert label_retrieval_metrics(x, labels) == pytest.approx(by_loops(x, labels))


def test_blocks_change_nothing(monkeypatch):
    x, labels = torch.randn(60, 4), torch.randint(0, 9, (60,))
    want = label_retrieval_metrics(x, labels)
    monkeypatch.setattr(label_retrieval, "_ENTRIES", 20)
    assert label_retrieval_metrics(x, labels) == pytest.approx(want)


def test_agrees_with_pytorch_metric_learning():
    x = torch.nn.functional.normalize(torch.randn(150, 4), dim=1)
    labels = torch.randint(0, 12, (150,))

    def search(query, k, reference, same_source):  # in place of faiss; they drop the row itself
        distance, index = torch.cdist(query, reference).sort(dim=1, stable=True)
        first = int(same_source)
        return distance[:, first : k + first], index[:, first : k + first]

    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    theirs = AccuracyCalculator(include=names, k="max_bin_count", knn_func=search)
    want = theirs.get_accuracy(x, labels)
    assert label_retrieval_metrics(x, labels)[:3] == pytest.approx([want[n] for n in names])
    want = theirs.get_accuracy(x[:50], labels[:50], x[50:], labels[50:])
    got = label_retrieval_metrics(
        x[:50], labels[:50], reference=x[50:], reference_labels=labels[50:]
    )
    assert got[:3] == pytest.approx([want[n] for n in names])


@given(seed=st.integers(0, 2**31))
def test_order_scale_and_names_of_labels_do_not_matter(seed):
    torch.manual_seed(seed)
    x, labels, order = torch.randn(30, 5), torch.randint(0, 5, (30,)), torch.randperm(30)
    want = label_retrieval_metrics(x, labels)
    scale = torch.rand(30, 1) + 0.5
    assert label_retrieval_metrics((x * scale)[order], 7 - labels[order]) == pytest.approx(want)
    assert 0 <= want.map_at_r <= want.r_precision <= 1


def test_perfect_classes_score_one_and_none_scores_zero():
    labels = torch.arange(40) % 4
    x = torch.eye(4)[labels] + 0.01 * torch.randn(40, 4)
    assert label_retrieval_metrics(x, labels) == (1.0, 1.0, 1.0, 40)
    for rows in (x[:0], x):
        assert label_retrieval_metrics(rows, torch.arange(len(rows))) == (0.0, 0.0, 0.0, 0)
    assert label_retrieval_metrics(torch.zeros(3, 2).half(), torch.ones(3).long())[:3] == (1, 1, 1)


def test_dot_product_sees_length():
    x = torch.tensor([[1.0, 0.0], [0.9, 0.2], [9.0, 9.0]])
    labels = torch.tensor([0, 0, 1])
    assert label_retrieval_metrics(x, labels).precision_at_1 == 1.0
    assert label_retrieval_metrics(x, labels, similarity="dot").precision_at_1 == 0.0


def test_wrong_input_says_so():
    x, labels = torch.randn(4, 2), torch.arange(4)
    with pytest.raises(ValueError, match="expected both or neither, got one"):
        label_retrieval_metrics(x, labels, reference=x)
    with pytest.raises(ValueError, match="embeddings must be finite, got NaN or infinity in 1 of"):
        label_retrieval_metrics(torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]), labels[:2])


@pytest.mark.wording
def test_wrong_shapes_and_types_say_so():
    x, labels = torch.randn(4, 2), torch.arange(4)
    with pytest.raises(TypeError, match=r"labels: expected integers, got torch.float32"):
        label_retrieval_metrics(x, labels.float())
    with pytest.raises(ValueError, match=r"labels: expected 4 rows.* One label per row of emb"):
        label_retrieval_metrics(x, labels[:3])
    with pytest.raises(ValueError, match="similarity must be one of cosine, dot, got 'l2'"):
        label_retrieval_metrics(x, labels, similarity="l2")
    with pytest.raises(ValueError, match="reference: expected last axis of size 2"):
        label_retrieval_metrics(x, labels, reference=torch.randn(4, 3), reference_labels=labels)
