import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

import embedkit.analysis.isotropy as isotropy
from embedkit.analysis import alignment, effective_rank, uniformity
from embedkit.ops import normalize

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@given(seed=st.integers(0, 2**31), n=st.integers(2, 40), block=st.integers(1, 15))
def test_uniformity_agrees_with_scipy_for_any_block(seed, n, block):
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)).double() + 3
    want = np.log(np.exp(-1.5 * pdist(x.numpy(), "sqeuclidean")).mean())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isotropy, "BLOCK", block)
        assert uniformity(x, t=1.5) == pytest.approx(want, rel=1e-9)
    assert uniformity(x, t=1.5) == pytest.approx(want, rel=1e-9)


def test_uniformity_by_hand():
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8)
    assert uniformity(torch.ones(7, 3)) == pytest.approx(0)
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert uniformity(corners, t=1) == pytest.approx(np.log((2 * np.exp(-2) + np.exp(-4)) / 3))


@given(seed=st.integers(0, 2**31))
def test_uniformity_of_equal_rows_is_zero_and_never_above(seed):
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(seed)).expand(9, 3) * 100
    assert uniformity(x) == pytest.approx(0)
    assert uniformity(x) <= 0


def test_uniformity_of_far_rows_does_not_underflow():
    assert uniformity(torch.tensor([[0.0], [100.0]])) == pytest.approx(-20_000)


def test_uniformity_of_near_duplicates_far_from_the_origin():
    x = torch.tensor([[1e4, 0.0], [1e4, 1e-3]]).double()
    assert uniformity(x, t=1) == pytest.approx(-1e-6, rel=1e-6)


@given(seed=st.integers(0, 2**31))
def test_ranges_on_the_sphere(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (normalize(torch.randn(9, 3, generator=generator)) for _ in range(2))
    assert -8 <= uniformity(x) <= 0
    assert 0 <= alignment(x, y) <= 4
    assert alignment(x, y) == pytest.approx(2 - 2 * float((x * y).sum(1).mean()), abs=1e-6)


@pytest.mark.parametrize("exponent", [1, 2, 3.5])
def test_alignment_agrees_with_numpy(exponent):
    x, y = torch.randn(11, 4).double(), torch.randn(11, 4).double()
    want = (np.linalg.norm(x.numpy() - y.numpy(), axis=1) ** exponent).mean()
    assert alignment(x, y, exponent) == pytest.approx(want, rel=1e-12)
    assert alignment(x, x, exponent) == 0.0


def test_effective_rank_agrees_with_numpy():
    x = torch.randn(20, 6).double() @ torch.diag(torch.logspace(0, -3, 6).double())
    p = np.linalg.svd(x.numpy(), compute_uv=False)
    p = p / p.sum()
    assert effective_rank(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-12)


def test_effective_rank_by_hand():
    assert effective_rank(torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0]))) == pytest.approx(3.363586)
    assert effective_rank(torch.ones(7, 3)) == pytest.approx(1)
    assert effective_rank(torch.linalg.qr(torch.randn(9, 7).double()).Q) == pytest.approx(7)


@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 30))
def test_effective_rank_ignores_scale_and_rotation(seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 5, generator=generator).double()
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator).double()).Q
    rank = effective_rank(x)
    assert effective_rank(x @ turn * 10.0**exponent) == pytest.approx(rank)
    assert effective_rank(x.float() * 10.0**exponent) == pytest.approx(rank, rel=1e-5)
    assert 1 <= rank <= 5


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_entries_give_zero(shape):
    x = torch.ones(shape)
    assert (alignment(x, x), uniformity(x), effective_rank(x)) == (0.0, pytest.approx(0), 0.0)


def test_one_row_and_zeros_are_defined():
    assert uniformity(torch.randn(1, 3)) == 0.0
    assert effective_rank(torch.randn(1, 3)) == pytest.approx(1)
    assert effective_rank(torch.zeros(4, 3)) == 0.0
    assert uniformity(torch.zeros(4, 3)) == pytest.approx(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_floating_dtype_is_computed_in_float64(dtype):
    x, y = torch.randn(6, 3).to(dtype), torch.randn(6, 3).to(dtype)
    for measure in (uniformity, effective_rank, lambda x: alignment(x, y)):
        got = measure(x)
        assert type(got) is float
        assert got == pytest.approx(measure(x.double()), rel=1e-12)


@pytest.mark.wording
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: alignment(torch.ones(2, 3), torch.ones(3, 3)),
            ValueError,
            "expected equal shapes",
        ),
        (
            lambda: alignment(torch.ones(2, 3), torch.ones(2, 3), 0),
            ValueError,
            "exponent must be > 0",
        ),
        (
            lambda: uniformity(torch.ones(2, 3), t=-1),
            ValueError,
            "uniformity: t must be > 0, got -1",
        ),
        (lambda: uniformity(torch.ones(3)), ValueError, r"x: expected 2 axes \(n, d\)"),
        (
            lambda: uniformity(torch.tensor([[1.0], [torch.inf]])),
            ValueError,
            "uniformity: x must be finite, got NaN or infinity in 1 of 2 rows, first in row 1",
        ),
        (
            lambda: effective_rank(torch.tensor([[torch.nan]])),
            ValueError,
            "effective_rank: x must be",
        ),
        (lambda: effective_rank(torch.ones(2, 2, dtype=torch.long)), TypeError, "floating-point"),
    ],
)
def test_bad_arguments_are_explained(call, error, words):
    with pytest.raises(error, match=words):
        call()
