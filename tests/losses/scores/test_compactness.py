"""The loss on node compactness."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_compactness import CASES

from embedkit.losses.scores.compactness import POTLoss, pot_loss
from embedkit.testing import check_module

Q = torch.tensor([0.323904, 0.104309, -0.221633], dtype=torch.float64)


def test_hand_number():
    assert pot_loss(Q).item() == pytest.approx(0.665565, abs=1e-6)


@given(seed=st.integers(0, 2**31))
def test_is_binary_cross_entropy_with_target_one(seed):
    torch.manual_seed(seed)
    q, other = torch.randn(2, 7, dtype=torch.float64, requires_grad=True).unbind()
    ones = torch.ones(7, dtype=torch.float64)
    want = [F.binary_cross_entropy_with_logits(x, ones, reduction="none") for x in (q, other)]
    torch.testing.assert_close(pot_loss(q, reduction="none"), want[0])
    torch.testing.assert_close(pot_loss(q, other), (want[0] + want[1]).mean() / 2)
    weight = torch.rand(7)
    torch.testing.assert_close(
        POTLoss("sum")(q, other, weight=weight), (weight * (want[0] + want[1])).sum() / 2
    )


def test_stays_finite():
    q = torch.tensor([-1e4, 1e4], dtype=torch.float16, requires_grad=True)
    loss = pot_loss(q)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(5000, rel=1e-3)
    assert q.grad.tolist() == [-0.5, 0.0]
    assert pot_loss(torch.zeros(0)).item() == 0
    assert pot_loss(torch.tensor([0.0, torch.nan])).isnan()


def test_contract():
    build, inputs = CASES[POTLoss]
    check_module(build, inputs, exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    build, inputs = CASES[POTLoss]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        POTLoss("max")
    with pytest.raises(ValueError, match=r"got compactness \(3,\), other \(2,\). Both directions"):
        pot_loss(Q, Q[:2])
    with pytest.raises(
        ValueError, match=r"weight: expected shape \(3,\), one number >= 0 per node"
    ):
        pot_loss(Q, weight=Q[:2])
    with pytest.raises(TypeError, match="compactness: expected a floating-point tensor"):
        pot_loss(Q.long())
