"""Position weights and instruction masks by hand and by their formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.pooling import instruction_mask, mean_pool, position_weighted_pool


@given(seed=st.integers(0, 2**31), n=st.integers(1, 6))
def test_weights_are_the_places_of_real_tokens(seed, n):
    torch.manual_seed(seed)
    tokens, mask = torch.randn(3, n, 4).double(), torch.rand(3, n) > 0.4
    for row, keep, got in zip(tokens, mask, position_weighted_pool(tokens, mask), strict=True):
        place = torch.arange(1, 1 + int(keep.sum())).double()
        want = place @ row[keep] / place.sum().clamp(min=1)
        torch.testing.assert_close(got, want)


def test_long_half_precision_sums_stay_finite():
    tokens = torch.full((1, 5000, 2), 60.0, dtype=torch.float16)
    assert position_weighted_pool(tokens).tolist() == [[60.0, 60.0]]


def test_long_packed_sequences_keep_their_precision():
    tokens = torch.ones(8000, 1, dtype=torch.float64)
    pooled = position_weighted_pool(tokens, offsets=torch.tensor([0, 8000]))
    torch.testing.assert_close(pooled, torch.ones(1, 1, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("mask", "want"),
    [([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]), ([1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0])],
)
def test_instruction_masks_by_hand(mask, want):
    mask, want = torch.tensor([mask]).bool(), torch.tensor([want]).bool()
    assert instruction_mask(mask, torch.tensor([2])).equal(want)
    assert instruction_mask(mask, torch.tensor([0])).equal(mask)


@given(seed=st.integers(0, 2**31), length=st.integers(0, 3), left=st.integers(0, 3))
def test_an_instruction_is_never_pooled(seed, length, left):
    torch.manual_seed(seed)
    tokens = torch.randn(1, left + length + 2, 4)
    mask = torch.arange(left + length + 2)[None] >= left
    pooled = mean_pool(tokens, instruction_mask(mask, torch.tensor([length])))
    torch.testing.assert_close(pooled, tokens[:, -2:].mean(dim=1))


def test_a_row_of_padding_has_no_instruction():
    assert not instruction_mask(torch.zeros(1, 3).bool(), torch.tensor([2])).any()


@pytest.mark.wording
def test_errors_teach():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    wanted = "row 1 has 2 real tokens and an instruction of 2: nothing would be left to pool"
    with pytest.raises(ValueError, match=wanted):
        instruction_mask(mask, torch.tensor([2, 2]))
    with pytest.raises(ValueError, match=r"lengths: expected 2 rows, got shape \(1,\)"):
        instruction_mask(mask, torch.tensor([2]))
    with pytest.raises(TypeError, match="mask: expected bool"):
        instruction_mask(mask.long(), torch.tensor([1, 1]))
    with pytest.raises(TypeError, match="lengths: expected integers"):
        instruction_mask(mask, torch.tensor([0.5, 1]))
