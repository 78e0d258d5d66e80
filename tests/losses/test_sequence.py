"""Cross-entropy that keeps the first pad as the end of a sentence."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_sequence import CASES

from embedkit.losses.sequence import SequenceCrossEntropyLoss, sequence_cross_entropy
from embedkit.testing import check_module

IDS = torch.tensor([[5, 7, 0, 0], [3, 0, 0, 0], [4, 6, 8, 2]])


def test_the_first_pad_counts():
    rows = sequence_cross_entropy(torch.zeros(3, 4, 9), IDS, 0, reduction="none")
    assert (rows > 0).int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    rows = sequence_cross_entropy(torch.zeros(3, 4, 9), IDS, 0, pad_is_end=False, reduction="none")
    assert (rows > 0).int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


@given(seed=st.integers(0, 2**31), pad=st.integers(0, 5), own_end=st.booleans())
def test_agrees_with_torch(seed, pad, own_end):
    torch.manual_seed(seed)
    logits = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(6, (2, 3, 5))
    mask = torch.rand(2, 3) > 0.3
    drop = ids == pad
    if not own_end:  # padding is on the right
        ids = ids.masked_fill(drop.cumsum(-1) > 0, pad)
        drop = (ids == pad).cumsum(-1) > 1
    target = ids.masked_fill(drop | ~mask[..., None], -100).flatten()
    want = F.cross_entropy(logits.flatten(0, 2), target, ignore_index=-100, reduction="sum")
    for reduction, share in (("sum", 1), ("mean", int((target != -100).sum().clamp(min=1)))):
        got = sequence_cross_entropy(
            logits, ids, pad, pad_is_end=not own_end, mask=mask, reduction=reduction
        )
        torch.testing.assert_close(got, want / share)
        for a, b in zip(
            torch.autograd.grad(got, logits),
            torch.autograd.grad(want, logits, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b / share)


def test_what_stands_behind_the_end_never_matters():
    logits = torch.randn(3, 4, 9)
    want = sequence_cross_entropy(logits, IDS, 0)
    logits[0, 3], logits[1, 2:] = torch.nan, torch.inf
    logits.requires_grad_()
    got = sequence_cross_entropy(logits, IDS, 0)
    got.backward()
    assert got == want
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (2, 0, 4)])
def test_nothing_to_predict_is_zero_and_connected(shape):
    logits = torch.randn(*shape, 9, requires_grad=True)
    loss = sequence_cross_entropy(logits, torch.zeros(shape, dtype=torch.long), 0)
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == logits.shape
    hidden = torch.randn(2, 4, 9, requires_grad=True)
    loss = sequence_cross_entropy(hidden, IDS[:2], 0, mask=torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert (hidden.grad == 0).all()


def test_half_precision_is_summed_in_float32():
    logits = 300 * torch.randn(3, 4, 9)
    low = sequence_cross_entropy(logits.half(), IDS, 0)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, sequence_cross_entropy(logits, IDS, 0), rtol=2e-3, atol=0)


def test_an_end_of_its_own_leaves_any_id_for_padding():
    ids = torch.tensor([[5, 2, -100, -100]])
    want = sequence_cross_entropy(torch.zeros(1, 2, 9), ids[:, :2], 3, pad_is_end=False)
    assert sequence_cross_entropy(torch.zeros(1, 4, 9), ids, -100, pad_is_end=False) == want


def test_contract():
    build, inputs = CASES[SequenceCrossEntropyLoss]
    check_module(build, inputs, exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    build, inputs = CASES[SequenceCrossEntropyLoss]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    logits = torch.zeros(3, 5, 9)
    with pytest.raises(ValueError, match=r"got logits \(3, 5, 9\), targets \(3, 4\). A decoder wi"):
        sequence_cross_entropy(logits, IDS, 0)
    with pytest.raises(
        ValueError, match="pad_id=9 is predicted as the end of a sentence, so it mu"
    ):
        sequence_cross_entropy(logits[:, :4], IDS, 9)
    with pytest.raises(TypeError, match=r"targets: expected integers, got torch\.float32\. They"):
        sequence_cross_entropy(logits[:, :4], IDS.float(), 0)
    with pytest.raises(ValueError, match=r"mask: expected shape \(3,\), the leading axes of"):
        sequence_cross_entropy(logits[:, :4], IDS, 0, mask=IDS > 0)
    with pytest.raises(TypeError, match=r"mask: expected bool \(True is real"):
        sequence_cross_entropy(logits[:, :4], IDS, 0, mask=IDS[:, 0])
    with pytest.raises(ValueError, match="must be one of mean, sum, none, got 'avg'"):
        SequenceCrossEntropyLoss(0, reduction="avg")


def test_labels_of_minus_100_do_not_count():
    logits = torch.randn(1, 4, 8, requires_grad=True)
    labels = torch.tensor([[5, 7, -100, -100]])
    got = sequence_cross_entropy(logits, labels, 0)
    torch.testing.assert_close(got, F.cross_entropy(logits[0], labels[0]))


def test_padding_on_the_left_and_ids_out_of_range_are_explained():
    with pytest.raises(ValueError, match="padding must be on the right, got tokens behind padding"):
        sequence_cross_entropy(torch.zeros(2, 3, 8), torch.tensor([[5, 7, 0], [0, 5, 7]]), 0)
    with pytest.raises(ValueError, match=r"targets must be in 0 to 7, .* got 0 to 9"):
        sequence_cross_entropy(torch.zeros(1, 3, 8), torch.tensor([[5, 9, 0]]), 0)
