import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses.depth.alignment import EmbeddingAlignmentLoss, embedding_alignment

STUDENT = torch.tensor([[1, 0, -1], [0.5, 0.5, 0]], dtype=torch.float64)
TEACHER = torch.tensor([[2, 0, -2], [0, 1, 0]], dtype=torch.float64)


def test_numbers_made_by_hand():
    got = embedding_alignment(STUDENT, TEACHER)
    assert got.item() == pytest.approx(0.102137, abs=1e-6)
    got = EmbeddingAlignmentLoss(temperature=0.3)(STUDENT, TEACHER)
    assert got.item() == pytest.approx(0.086811, abs=1e-6)
    assert got.item() / 0.3 == pytest.approx(0.289369, abs=1e-6)


@given(
    seed=st.integers(0, 2**31),
    temperature=st.sampled_from([0.3, 1.0, 20.0]),
    weights=st.sampled_from([(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)]),
)
def test_agrees_with_torch(seed, temperature, weights):
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, 5, 7, dtype=torch.float64)
    student.requires_grad_()
    divergence = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.softmax(teacher / temperature, 1),
        reduction="batchmean",
    )
    want = weights[0] * temperature * divergence + weights[1] * F.mse_loss(student, teacher)
    got = embedding_alignment(
        student, teacher, temperature=temperature, kl_weight=weights[0], mse_weight=weights[1]
    )
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(value, student)[0] for value in (got, want)]
    torch.testing.assert_close(*grads)


def test_a_constant_per_row_changes_nothing_and_agreement_is_zero():
    moved = STUDENT + torch.tensor([[3.0], [-7.0]])
    want = embedding_alignment(STUDENT, TEACHER)
    torch.testing.assert_close(embedding_alignment(moved, TEACHER), want)
    assert embedding_alignment(STUDENT, STUDENT, mse_weight=1.0) == 0


def test_the_teacher_is_a_constant():
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    embedding_alignment(student, teacher, mse_weight=1.0).backward()
    assert teacher.grad is None
    assert (student.grad != 0).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = (200 * torch.randn(2, 4, 8)).to(dtype)
    student.requires_grad_()
    got = embedding_alignment(student, teacher, temperature=0.01, mse_weight=1.0)
    got.backward()
    want = embedding_alignment(student.float(), teacher.float(), temperature=0.01, mse_weight=1.0)
    assert got.dtype == torch.float32
    assert student.grad.isfinite().all()
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_silent(bad):
    spoiled = STUDENT.clone()
    spoiled[0, 1] = bad
    assert not embedding_alignment(spoiled, TEACHER).isfinite()
    assert not embedding_alignment(STUDENT, spoiled).isfinite()


def test_rows_and_reductions():
    row = embedding_alignment(STUDENT, TEACHER, reduction="none")
    assert row.shape == (2,)
    total = embedding_alignment(STUDENT, TEACHER, reduction="sum")
    torch.testing.assert_close(row.sum(), total)
    torch.testing.assert_close(total / 2, embedding_alignment(STUDENT, TEACHER))


@pytest.mark.wording
def test_wrong_arguments_teach():
    with pytest.raises(ValueError, match=r"student \(2, 2\), teacher \(2, 3\). Cut both to one"):
        embedding_alignment(STUDENT[:, :2], TEACHER)
    with pytest.raises(ValueError, match=r"EmbeddingAlignmentLoss: temperature must be > 0, got 0"):
        EmbeddingAlignmentLoss(temperature=0)
    with pytest.raises(ValueError, match=r"mse_weight must be >= 0, got -1"):
        EmbeddingAlignmentLoss(mse_weight=-1)
    with pytest.raises(TypeError, match=r"teacher: expected a floating-point tensor"):
        embedding_alignment(STUDENT, TEACHER.long())
