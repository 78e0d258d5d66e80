"""Mixed negatives: hand numbers, hardness, masks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses import info_nce
from embedkit.mining.mixing import _blend, mix_negative_lists, mix_negative_pairs
from embedkit.ops import normalize


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def test_hand_numbers_of_a_pair():
    left, right = torch.eye(2, dtype=torch.float64)
    mixed = _blend(left, right, torch.tensor(0.3))
    torch.testing.assert_close(mixed, torch.tensor([0.3, 0.7]).double(), rtol=1e-7, atol=1e-7)
    want = torch.tensor([0.393919, 0.919145]).double()
    torch.testing.assert_close(normalize(mixed), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("temperature", "want"),
    [(0.1, (0.999832, 0.018313, 0)), (1.0, (0.598688, 0.401312, 0))],
)
def test_hand_numbers_of_a_list(temperature, want):
    query = torch.tensor([[0.6, 0.2, 0.6**0.5]], dtype=torch.float64)
    negative = torch.eye(3, dtype=torch.float64)[None, :2]
    mixed = mix_negative_lists(3 * query, 5 * negative, temperature=temperature)
    want = F.normalize(torch.tensor(want).double(), dim=0)
    torch.testing.assert_close(mixed.negative[0, 0], want, rtol=0, atol=2e-6)


@given(seed=st.integers(0, 2**31), cosine=st.floats(0.05, 0.95))
def test_a_mixture_of_equals_is_harder(seed, cosine):
    query = F.pad(torch.ones(4, 1, dtype=torch.float64), (0, 4))
    side = F.normalize(draw(seed, 4, 3, 4), dim=-1) * (1 - cosine**2) ** 0.5
    negative = torch.cat([torch.full((4, 3, 1), cosine, dtype=torch.float64), side], dim=-1)
    for mixed in (
        mix_negative_pairs(negative, num_mixed=8, generator=seeded(seed)),
        mix_negative_lists(query, negative),
    ):
        assert mixed.mask.all()
        torch.testing.assert_close(mixed.negative.norm(dim=-1), mixed.mask.double())
        similarity = (mixed.negative * query[:, None]).sum(dim=-1)
        assert (similarity >= cosine - 1e-9).all()


@given(seed=st.integers(0, 2**31), mask=st.lists(st.booleans(), min_size=5, max_size=5))
def test_only_two_different_real_negatives_are_mixed(seed, mask):
    mask = torch.tensor([mask])
    negative = torch.eye(5, dtype=torch.float64)[None] * 3.0
    spoilt = negative.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    mixed = mix_negative_pairs(spoilt, mask, num_mixed=20, generator=seeded(seed))
    parents = mixed.negative[0] > 0
    count = int(mask.sum())
    assert mixed.mask.tolist() == [[count >= 2] * 20]
    assert (parents.sum(dim=1) == (2 if count >= 2 else 0)).all()
    assert not parents[:, ~mask[0]].any()
    if count >= 2:
        assert parents.any(dim=0).equal(mask[0])
    (gradient,) = torch.autograd.grad((mixed.negative.square() * draw(1, 5)).sum(), spoilt)
    assert gradient.isfinite().all()
    assert not gradient[0, ~mask[0]].any()


def test_the_share_is_beta_2_2():
    mixed = mix_negative_pairs(torch.eye(2)[None], num_mixed=20000, generator=seeded(0))
    share = mixed.negative[0, :, 0] / mixed.negative[0].sum(dim=1)
    moments = torch.stack([share.mean(), share.square().mean(), (share < 0.2).float().mean()])
    torch.testing.assert_close(moments, torch.tensor([0.5, 0.3, 0.104]), rtol=0, atol=0.01)
    again = mix_negative_pairs(torch.eye(2)[None], num_mixed=20000, generator=seeded(0))
    assert again.negative.equal(mixed.negative)


def test_list_weights_are_constants_and_padding_is_nothing():
    query, negative = draw(0, 2, 4).requires_grad_(), draw(1, 2, 3, 4).requires_grad_()
    mask = torch.tensor([[True, True, False], [False] * 3])
    spoilt = negative.masked_fill(~mask[..., None], torch.nan)
    mixed = mix_negative_lists(query, spoilt, mask, temperature=0.5)
    short = mix_negative_lists(query, negative[:, :2], mask[:, :2], temperature=0.5)
    torch.testing.assert_close(mixed, short)
    assert mixed.mask.tolist() == [[True], [False]]
    of_query, of_negative = torch.autograd.grad(
        mixed.negative.sum(), (query, negative), allow_unused=True
    )
    assert of_query is None
    assert of_negative[0, :2].all()
    assert not of_negative[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hard", [0, 1, 2, 3])
@pytest.mark.parametrize("queries", [0, 1, 3])
def test_degenerate_batches_stay_finite(dtype, hard, queries):
    query = torch.ones(queries, 4, dtype=dtype)
    for negative in (torch.zeros(queries, hard, 4), draw(0, queries, hard, 4)):
        negative = negative.to(dtype).requires_grad_()
        parts = [mix_negative_pairs(negative), mix_negative_lists(query, negative)]
        assert [p.negative.dtype for p in parts] == [dtype] * 2
        assert parts[0].mask.shape == (queries, hard)
        both = torch.cat([negative, *(p.negative for p in parts)], dim=1)
        real = torch.cat([negative[..., 0] == negative[..., 0], *(p.mask for p in parts)], dim=1)
        loss = info_nce(query, query, negative=both, negative_mask=real)
        (gradient,) = torch.autograd.grad(loss + both.sum() * 0, negative)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_one_negative_leaves_nothing_to_mix():
    negative, mask = torch.full((2, 1, 3), torch.nan), torch.zeros(2, 1, dtype=torch.bool)
    mixed = mix_negative_pairs(negative, mask, num_mixed=4)
    assert mixed.negative.eq(0).all()
    assert mixed.mask.shape == (2, 4)
    assert not mixed.mask.any()


def test_opposite_parents_are_left_out():
    negative = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    mixed = mix_negative_lists(torch.tensor([[0.0, 1.0]]), negative)
    assert (mixed.mask.tolist(), mixed.negative.tolist()) == ([[False]], [[[0, 0]]])


@pytest.mark.wording
def test_errors_teach():
    negative = torch.randn(2, 3, 4)
    with pytest.raises(TypeError, match=r"mask: expected bool \(True is a real negative\), got"):
        mix_negative_pairs(negative, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 3\), one entry per negative"):
        mix_negative_pairs(negative, torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="num_mixed must be >= 0, got -1"):
        mix_negative_pairs(negative, num_mixed=-1)
    with pytest.raises(ValueError, match="mix_negative_lists: temperature must be > 0, got 0"):
        mix_negative_lists(torch.randn(2, 4), negative, temperature=0.0)
    with pytest.raises(ValueError, match="negative: expected 3 rows"):
        mix_negative_lists(torch.randn(3, 4), negative)
