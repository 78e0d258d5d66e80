import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

import embedkit.analysis.isotropy as isotropy
from embedkit.analysis.isotropy import alignment, uniformity
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


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_entries_give_zero(shape):
    x = torch.ones(shape)
    assert (alignment(x, x), uniformity(x)) == (0.0, pytest.approx(0))


def test_one_row_and_zeros_are_defined():
    assert uniformity(torch.randn(1, 3)) == 0.0
    assert uniformity(torch.zeros(4, 3)) == pytest.approx(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_floating_dtype_is_computed_in_float64(dtype):
    x, y = torch.randn(6, 3).to(dtype), torch.randn(6, 3).to(dtype)
    for measure in (uniformity, lambda x: alignment(x, y)):
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
        (lambda: uniformity(torch.ones(2, 2).long()), TypeError, "floating-point"),
    ],
)
def test_bad_arguments_are_explained(call, error, words):
    with pytest.raises(error, match=words):
        call()
