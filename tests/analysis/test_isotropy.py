import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

import embedkit.analysis.isotropy as isotropy
from embedkit.analysis.isotropy import alignment, isotropy_score, mean_cosine, uniformity
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


EXAMPLE = torch.tensor([[2, 1, 0], [3, 1, 1], [2, 2, -1], [4, 0, 0], [3, 3, 2]]).double()


def test_mean_cosine_by_hand():
    centred = EXAMPLE - EXAMPLE.mean(0)
    assert mean_cosine(EXAMPLE) == pytest.approx(0.811580, abs=1e-6)
    assert mean_cosine(centred) == pytest.approx(-0.225579, abs=1e-6)
    assert mean_cosine(centred / centred.std(0)) == pytest.approx(-0.233709, abs=1e-6)


@given(seed=st.integers(0, 2**31), n=st.integers(2, 30), block=st.integers(1, 9))
def test_mean_cosine_agrees_with_scipy_for_any_block_and_length(seed, n, block):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator).double() + 1
    x = x * torch.rand(n, 1, generator=generator).double().add(0.01)
    want = 1 - pdist(x.numpy(), "cosine").mean()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isotropy, "BLOCK", block)
        assert mean_cosine(x) == pytest.approx(want, abs=1e-12)


def test_mean_cosine_of_zero_rows_is_zero():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    assert mean_cosine(x) == pytest.approx(1 / 3)
    assert mean_cosine(torch.zeros(3, 2)) == mean_cosine(torch.ones(1, 2)) == 0.0


@given(seed=st.integers(0, 2**31), block=st.integers(1, 9))
def test_isotropy_score_agrees_with_numpy_and_not_with_signs(seed, block):
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed)).double() + 0.5
    _, _, directions = np.linalg.svd(x.numpy())
    z = np.exp(x.numpy() @ np.concatenate([directions, -directions]).T).sum(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isotropy, "BLOCK", block)
        assert isotropy_score(x) == pytest.approx(z.min() / z.max(), rel=1e-9)
    assert isotropy_score(-x) == pytest.approx(isotropy_score(x), rel=1e-9)


def test_isotropy_score_falls_with_a_common_direction_and_does_not_overflow():
    x = torch.randn(500, 4)
    assert isotropy_score(x - x.mean(0)) > 0.7 > 0.1 > isotropy_score(x + 3)
    assert isotropy_score(x * 1e4 + 1e6) == 0.0
    assert isotropy_score(torch.zeros(3, 2)) == pytest.approx(1)
    assert isotropy_score(torch.zeros(0, 2)) == 1.0


@pytest.mark.parametrize("measure", [mean_cosine, isotropy_score])
def test_isotropy_is_computed_in_float64_and_needs_finite_rows(measure):
    x = torch.randn(6, 3).half()
    assert measure(x) == pytest.approx(measure(x.double()), rel=1e-12)
    with pytest.raises(ValueError, match=r"x must be finite, got NaN or infinity in 1 of 2 rows"):
        measure(torch.tensor([[1.0], [torch.nan]]))
