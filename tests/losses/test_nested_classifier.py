import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_depth import CASES

from embedkit.heads.nested_classifier import MatryoshkaClassifier
from embedkit.losses.nested_classifier import MatryoshkaCrossEntropyLoss, matryoshka_cross_entropy
from embedkit.testing import check_module

X = torch.tensor([[1, 2, -1, 0.5], [0, -1, 3, 1]], dtype=torch.float64)
W = torch.tensor([[0.5, -0.5, 1, 0], [0, 1, -1, 0.5], [1, 0, 0.5, -1]], dtype=torch.float64)


def test_numbers_made_by_hand():
    classifier = MatryoshkaClassifier(4, 3, [1, 2, 4], shared=True, bias=False).double()
    with torch.no_grad():
        classifier.weight.copy_(W)
    logits, target = classifier(X), torch.tensor([0, 2])
    each = [matryoshka_cross_entropy(part[None], target).item() for part in logits]
    assert each == pytest.approx([1.139441, 1.987835, 3.922896], abs=1e-6)
    assert matryoshka_cross_entropy(logits, target).item() == pytest.approx(7.050171, abs=1e-6)
    weighted = MatryoshkaCrossEntropyLoss(weights=[0.5, 0.3, 0.2])(logits, target)
    assert weighted.item() == pytest.approx(1.950650, abs=1e-6)


@given(
    seed=st.integers(0, 2**31),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    left_out=st.integers(0, 4),
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_agrees_with_torch_per_width(seed, smoothing, left_out, reduction):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randint(0, 4, (5,), generator=generator)
    target[:left_out] = -100
    weights = [0.5, 2.0, 0.0]
    got = matryoshka_cross_entropy(
        logits, target, weights=weights, label_smoothing=smoothing, reduction=reduction
    )
    want = sum(
        w * F.cross_entropy(part, target, label_smoothing=smoothing, reduction=reduction)
        for w, part in zip(weights, logits, strict=True)
    )
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(value, logits)[0] for value in (got, want)]
    torch.testing.assert_close(*grads)


def test_rows_sum_to_the_sum_and_nobody_gives_zero():
    logits, target = torch.randn(2, 3, 4, requires_grad=True), torch.tensor([1, -100, 3])
    row = matryoshka_cross_entropy(logits, target, reduction="none")
    assert row.shape == (3,)
    assert row[1] == 0
    torch.testing.assert_close(row.sum(), matryoshka_cross_entropy(logits, target, reduction="sum"))
    nobody = matryoshka_cross_entropy(logits, torch.full((3,), -100))
    nobody.backward()
    assert nobody == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, target = (300 * torch.randn(2, 3, 4)).to(dtype), torch.tensor([0, 1, 2])
    got = matryoshka_cross_entropy(logits, target)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, matryoshka_cross_entropy(logits.float(), target))


def test_contract():
    check_module(*CASES[MatryoshkaCrossEntropyLoss], exempt={"compile": "one at a time"})


@pytest.mark.compile
def test_contract_compiled():
    names = "state_dict copies gradients autocast empty_batch moves seed"
    exempt = dict.fromkeys(names.split(), "one at a time")
    check_module(*CASES[MatryoshkaCrossEntropyLoss], exempt=exempt)


@pytest.mark.wording
def test_wrong_arguments_teach():
    logits, target = torch.zeros(2, 3, 4), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"expected 2 weights, one per width, got 1"):
        matryoshka_cross_entropy(logits, target, weights=[1.0])
    with pytest.raises(ValueError, match=r"target: expected 3 rows, got shape .* one class for"):
        matryoshka_cross_entropy(logits, target[:2])
    with pytest.raises(ValueError, match=r"logits: expected 3 axes \(g, b, c\)"):
        matryoshka_cross_entropy(logits[0], target)
    with pytest.raises(TypeError, match=r"target: expected integers, got torch.float32"):
        matryoshka_cross_entropy(logits, target.float())
    with pytest.raises(ValueError, match=r"label_smoothing must be from 0 to 1, got 2"):
        MatryoshkaCrossEntropyLoss(label_smoothing=2)


def test_a_row_left_out_may_hold_anything():
    logits = torch.zeros(2, 2, 3)
    logits[:, 1] = torch.nan
    logits.requires_grad_()
    loss = matryoshka_cross_entropy(logits, torch.tensor([1, -100]))
    loss.backward()
    torch.testing.assert_close(loss.detach(), 2 * torch.tensor(3.0).log())
    assert logits.grad.isfinite().all()


def test_a_class_out_of_range_is_explained():
    with pytest.raises(ValueError, match=r"target must be in 0 to 2, .* got 0 to 3"):
        matryoshka_cross_entropy(torch.zeros(2, 2, 3), torch.tensor([0, 3]))
