"""Distillation: the specs' hand numbers, torch's losses and sentence-transformers' margin MSE."""

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_distillation import CASES

from embedkit.losses.scores.candidate_distillation import (
    MarginMSELoss,
    SimilarityDistillationLoss,
    margin_mse,
    similarity_distillation,
)
from embedkit.losses.scores.distillation import (
    LogitDistillationLoss,
    binary_margin,
    logit_distillation,
    score_regression,
)
from embedkit.losses.scores.soft_labels import SoftLabelLoss, soft_label_cross_entropy
from embedkit.testing import check_module

S = torch.tensor([[1.2, -0.3, 0.1], [0.0, 0.5, 2.0]], dtype=torch.float64)
T = torch.tensor([[2.0, -1.0, 0.0], [-0.5, 0.5, 1.5]], dtype=torch.float64)
Y = torch.tensor([0, 2])
seeds = st.integers(0, 2**31)


def double(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def same(got, want, inputs):
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs))


def test_hand_numbers_of_three_classes():
    assert logit_distillation(S, T, Y, alpha=0.0).item() == pytest.approx(0.374237, abs=5e-7)
    assert score_regression(S, T).item() == pytest.approx(0.82, abs=1e-12)
    assert logit_distillation(S, T, Y).item() == pytest.approx(0.597119, abs=1e-6)


def test_hand_numbers_of_a_binary_task():
    s, t, y = torch.tensor([0.8, -1.5]), torch.tensor([2.1, -2.4]), torch.tensor([1, 0])
    parts = {0.0: 0.286257, 1.0: 1.25, 0.5: 0.768128}
    for alpha, want in parts.items():
        got = logit_distillation(s, t, y, task="binary", alpha=alpha)
        assert got.item() == pytest.approx(want, abs=1e-6)
    two = torch.stack([torch.zeros(2), t], dim=1) + 7
    torch.testing.assert_close(score_regression(s, binary_margin(two)), torch.tensor(1.25))


@given(seed=seeds, alpha=st.floats(0, 1))
def test_logit_distillation_agrees_with_torch(seed, alpha):
    torch.manual_seed(seed)
    s, t, y = double(5, 3), double(5, 3), torch.randint(0, 3, (5,))
    squared = F.mse_loss(s, t.detach(), reduction="sum") / 5
    want = (1 - alpha) * F.cross_entropy(s, y) + alpha * squared
    same(logit_distillation(s, t, y, alpha=alpha), want, [s])
    one, teacher, score = double(5), double(5).detach(), torch.rand(5).double()
    want = (1 - alpha) * F.mse_loss(one, score) + alpha * F.mse_loss(one, teacher)
    same(logit_distillation(one, teacher, score, task="score", alpha=alpha), want, [one])
    logistic = F.binary_cross_entropy_with_logits(one, score.round())
    want = (1 - alpha) * logistic + alpha * F.mse_loss(one, teacher)
    same(logit_distillation(one, teacher, score.round(), task="binary", alpha=alpha), want, [one])


def test_the_teacher_is_a_constant_and_a_perfect_student_rests():
    t = T.clone().requires_grad_()
    s = T.clone().requires_grad_()
    for loss in (score_regression(s, t), similarity_distillation(s, t)):
        s.grad = None
        loss.backward()
        assert loss.abs() < 1e-12
        assert s.grad.abs().max() < 1e-12
    assert t.grad is None
    (gradient,) = torch.autograd.grad(score_regression(s, S), s)
    torch.testing.assert_close(gradient, 2 * (T - S) / 2)


def test_hand_numbers_of_similarity_distillation():
    teacher, student = torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([[0.7, 0.6, 0.2]])
    for temperature, want in ((0.05, 0.124620), (0.5, 0.044201)):
        got = similarity_distillation(student, teacher, temperature=temperature)
        assert got.item() == pytest.approx(want, abs=1e-6)


@given(seed=seeds, temperature=st.sampled_from([0.05, 1.0]))
def test_similarity_distillation_agrees_with_kl_div(seed, temperature):
    torch.manual_seed(seed)
    s, t = double(4, 6), double(4, 6).detach()
    want = torch.nn.KLDivLoss(reduction="batchmean")(
        (s / temperature).log_softmax(1), (t / temperature).softmax(1)
    )
    got = similarity_distillation(s, t, temperature=temperature)
    same(got, want, [s])
    shifted = similarity_distillation(s + double(4, 1), t + double(4, 1), temperature=temperature)
    torch.testing.assert_close(shifted, want)


@given(seed=seeds)
def test_what_is_masked_never_matters(seed):
    torch.manual_seed(seed)
    s, t, p = double(4, 3), double(4, 3).detach(), double(4)
    padded, teacher = (
        torch.cat([x, torch.full((4, 2), bad).double()], 1)
        for x, bad in ((s, torch.nan), (t, torch.inf))
    )
    mask = (torch.arange(5) < 3).expand(4, -1)
    same(similarity_distillation(padded, teacher, mask=mask), similarity_distillation(s, t), [s])
    same(margin_mse(p, padded, teacher, mask=mask), margin_mse(p, s, t), [p, s])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_without_candidates_take_no_part(dtype):
    s = torch.randn(3, 2, dtype=dtype, requires_grad=True)
    t, mask = torch.randn(3, 2), torch.tensor([[1, 1], [0, 0], [1, 1]]).bool()
    keep = torch.tensor([0, 2])
    for loss in (similarity_distillation, lambda *a, **k: margin_mse(s[:, 0], *a, **k)):
        rows = loss(s, t, mask=mask, reduction="none")
        assert rows[1] == 0
        assert rows.dtype == torch.float32
        torch.testing.assert_close(loss(s, t, mask=mask), rows[keep].mean())
        torch.testing.assert_close(loss(s, t, mask=mask, reduction="sum"), rows.sum())
        weighted = loss(s, t, mask=mask, weight=torch.tensor([2.0, 9.0, 0.0]))
        torch.testing.assert_close(weighted, rows[0])
        nothing = loss(s, t, mask=torch.zeros(3, 2).bool())
        (gradient,) = torch.autograd.grad(nothing, s)
        assert nothing == 0
        assert gradient.equal(torch.zeros_like(s))


@given(seed=seeds)
def test_soft_labels_agree_with_torch(seed):
    torch.manual_seed(seed)
    s, labels = double(4, 3), torch.rand(4, 3).double().softmax(1)
    want = F.cross_entropy(s / 2, labels)
    same(soft_label_cross_entropy(s, labels, temperature=2.0), want, [s])
    rows = soft_label_cross_entropy(s, labels, temperature=2.0, reduction="none")
    unlabelled = labels.clone()
    unlabelled[1] = 0
    got = soft_label_cross_entropy(s, unlabelled, temperature=2.0)
    torch.testing.assert_close(got, rows[[0, 2, 3]].mean())
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0]).double()
    got = soft_label_cross_entropy(s, labels, temperature=2.0, weight=weight)
    torch.testing.assert_close(got, (rows * weight).mean())


def test_score_regression_reduces_and_weighs_rows():
    rows = score_regression(S, T, reduction="none")
    assert rows.tolist() == pytest.approx([0.64 + 0.49 + 0.01, 0.25 + 0.25])
    weight = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(score_regression(S, T, reduction="sum"), rows.sum())
    torch.testing.assert_close(score_regression(S, T, weight=weight), (rows * weight).mean())


def test_margin_mse_agrees_with_sentence_transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rival = importlib.import_module(
            "sentence_transformers.sentence_transformer.losses"
        ).MarginMSELoss
    q, p, *n = (double(6, 4) for _ in range(5))
    scores = torch.randn(6, 4, dtype=torch.float64)
    want = rival(torch.nn.Identity()).compute_loss_from_embeddings([q, p, *n], scores)
    positive, negative = (q * p).sum(1), torch.stack([(q * x).sum(1) for x in n], 1)
    got = margin_mse(positive, negative, scores[:, :1] - scores[:, 1:])
    same(got, want, [q, p, *n])


@pytest.mark.parametrize("module", CASES, ids=lambda module: module.__name__)
def test_contract(module):
    build, inputs, *rest = CASES[module]
    check_module(build, inputs, exempt={"compile": "below", **(rest[0] if rest else {})})


@pytest.mark.compile
@pytest.mark.parametrize("module", CASES, ids=lambda module: module.__name__)
def test_contract_compiled(module):
    build, inputs, *_ = CASES[module]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_wrong_shapes_teach():
    with pytest.raises(ValueError, match=r"got student \(2, 1\), teacher \(2, 2\). A two-logit"):
        score_regression(torch.rand(2, 1), torch.rand(2, 2))
    with pytest.raises(ValueError, match=r"got student \(2, 1\), teacher \(2,\)"):
        score_regression(torch.rand(2, 1), torch.rand(2))
    with pytest.raises(ValueError, match=r"student: expected \(b,\) scores or \(b, c\) logits"):
        score_regression(torch.rand(1, 2, 3), torch.rand(1, 2, 3))
    with pytest.raises(
        ValueError, match=r"task='binary' needs one logit per row, got shape \(2, 3"
    ):
        logit_distillation(S, T, Y, task="binary")
    with pytest.raises(ValueError, match="target: expected 2 rows"):
        logit_distillation(S, T, Y[:1])
    with pytest.raises(TypeError, match=r"target: expected integers, got torch.float32. Class num"):
        logit_distillation(S, T, Y.float())
    with pytest.raises(ValueError, match=r"binary_margin: expected \(b, 2\) logits, got shape"):
        binary_margin(S)
    with pytest.raises(ValueError, match=r"got student \(2, 3\), teacher \(2, 2\). One score per"):
        similarity_distillation(S, T[:, :2])
    with pytest.raises(TypeError, match="mask: expected bool"):
        similarity_distillation(S, T, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"One margin per negative: teacher_positive\[:, None\]"):
        margin_mse(S[:, 0], S, T[:, :2])
    with pytest.raises(
        ValueError, match=r"expected positive \(b,\) and negative \(b, h\), got \(3"
    ):
        margin_mse(S[0], S, T)
    with pytest.raises(ValueError, match="equal shapes, got logits"):
        soft_label_cross_entropy(S, T[:, :2])
    with pytest.raises(ValueError, match=r"weight: expected shape \(2,\)"):
        score_regression(S, T, weight=torch.rand(3))


@pytest.mark.wording
def test_wrong_settings_teach():
    with pytest.raises(
        ValueError, match=r"LogitDistillationLoss: alpha must be in \[0, 1\], got 2"
    ):
        LogitDistillationLoss(alpha=2)
    with pytest.raises(ValueError, match="LogitDistillationLoss: task must be one of classes, bin"):
        LogitDistillationLoss("auto")
    with pytest.raises(ValueError, match="SimilarityDistillationLoss: temperature must be > 0"):
        SimilarityDistillationLoss(0.0)
    with pytest.raises(ValueError, match="SoftLabelLoss: temperature must be > 0, got -1"):
        SoftLabelLoss(-1)
    with pytest.raises(ValueError, match="MarginMSELoss: reduction must be one of mean, sum, none"):
        MarginMSELoss("average")


@pytest.mark.wording
def test_a_weight_of_two_axes_is_refused():
    rows = torch.ones(2, 1)
    for call in (
        lambda: similarity_distillation(S, T, weight=rows),
        lambda: margin_mse(S[:, 0], S, T, weight=rows),
        lambda: soft_label_cross_entropy(S, T.softmax(1), weight=rows),
    ):
        with pytest.raises(ValueError, match=r"weight: expected shape \(2,\), one number >= 0 per"):
            call()
