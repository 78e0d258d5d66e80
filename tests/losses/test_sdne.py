"""SDNE's loss: the hand numbers, the sum over edges, and the words of its errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.cases_sdne import CASES

from embedkit.losses.sdne import SDNELoss, sdne_loss
from embedkit.testing import check_module

A = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
REBUILT = torch.tensor([[0.1, 0.8, 0.2], [0.7, 0.1, 0.9], [0.2, 0.6, 0.0]])
CODE = torch.tensor([[1.0, 0], [0, 1], [1, 1]])


def test_hand_numbers():
    first = sdne_loss(REBUILT, A, CODE, beta=5.0, alpha=0.0, reduction="sum")
    both = sdne_loss(REBUILT, A, CODE, beta=5.0, alpha=1.0, reduction="sum")
    torch.testing.assert_close(first, torch.tensor(7.6))
    torch.testing.assert_close(both - first, torch.tensor(6.0))
    rows = sdne_loss(REBUILT, A, CODE, reduction="none")
    torch.testing.assert_close(rows.mean(), sdne_loss(REBUILT, A, CODE))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), b=st.integers(1, 6))
def test_equals_the_double_sum_for_any_part_of_the_nodes(seed, b):
    torch.manual_seed(seed)
    rows = torch.rand(b, 6).double() * (torch.rand(b, 6) > 0.5)
    rebuilt, code, nodes = torch.rand(b, 6).double(), 9 + torch.randn(b, 3).double(), None
    nodes = torch.randperm(6)[:b]
    want = []
    for i in range(b):
        row = sum(
            ((5.0 if x else 1.0) * (r - x)) ** 2 for r, x in zip(rebuilt[i], rows[i], strict=True)
        )
        near = sum(rows[i, nodes[j]] * (code[i] - code[j]).square().sum() for j in range(b))
        want.append(row + 0.3 * near)
    got = sdne_loss(rebuilt, rows, code, nodes, alpha=0.3, reduction="none")
    torch.testing.assert_close(got, torch.stack(want))


def test_a_constant_added_to_all_codes_changes_nothing():
    far = sdne_loss(REBUILT, A, CODE + 1e4, alpha=1.0)
    torch.testing.assert_close(far, sdne_loss(REBUILT, A, CODE, alpha=1.0))


@pytest.mark.compile
@pytest.mark.parametrize("case", CASES.values())
def test_contract(case):
    check_module(*case)


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 0.0}, "sdne_loss: beta must be > 0, got 0. Try 5."),
        ({"alpha": -1.0}, "sdne_loss: alpha must be >= 0, got -1"),
        ({"rows": A[:2]}, r"expected equal shapes, got reconstruction \(3, 3\), rows \(2, 3\)"),
        ({"code": CODE[:2]}, r"code: expected 3 rows, got shape \(2, 2\)"),
        ({"nodes": torch.arange(2)}, r"nodes: expected 3 rows"),
        ({"nodes": torch.tensor([0, 9, -1])}, r"nodes must lie in \[0, 2\], .* in \[-1, 9\]"),
        (
            {"rows": A[:2], "reconstruction": REBUILT[:2], "code": CODE[:2]},
            "2 rows of 3 columns are not all nodes, so nodes= must say which node each row is",
        ),
    ],
)
def test_bad_arguments_are_explained(change, words):
    given_ = {"reconstruction": REBUILT, "rows": A, "code": CODE} | change
    with pytest.raises(ValueError, match=words):
        sdne_loss(**given_)


def test_settings_are_checked_when_made():
    with pytest.raises(ValueError, match="SDNELoss: beta must be > 0, got -2"):
        SDNELoss(beta=-2.0)
