import builtins

import numpy as np
import pytest
import torch
from geometry.cases_isotropy import CASES
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA, FastICA
from sklearn.preprocessing import StandardScaler

import embedkit.geometry.isotropy as isotropy
from embedkit.analysis.isotropy import mean_cosine
from embedkit.geometry import (
    AffineMap,
    fit_all_but_the_top,
    fit_ica,
    fit_standardization,
    fit_whitening,
)
from embedkit.testing import check_module

EXAMPLE = torch.tensor([[2, 1, 0], [3, 1, 1], [2, 2, -1], [4, 0, 0], [3, 3, 2]]).double()
FITS = [fit_standardization, fit_whitening, fit_all_but_the_top, fit_ica]


def correlated(seed, n=40, d=4):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator).double()
    return torch.randn(n, d, generator=generator).double() @ mixing + 5


def covariance(x):
    return torch.from_numpy(np.cov(x.numpy(), rowvar=False))


def test_mean_cosines_made_by_hand():
    centred = fit_all_but_the_top(EXAMPLE, 0)(EXAMPLE)
    assert mean_cosine(centred) == pytest.approx(-0.225579, abs=1e-6)
    assert mean_cosine(fit_standardization(EXAMPLE)(EXAMPLE)) == pytest.approx(-0.233709, abs=1e-6)
    for method in ("pca", "zca"):
        white = fit_whitening(EXAMPLE, method=method)(EXAMPLE)
        assert mean_cosine(white) == pytest.approx(-0.236859, abs=1e-6)


@given(seed=st.integers(0, 2**31))
def test_standardization_agrees_with_sklearn(seed):
    x, other = correlated(seed), correlated(seed + 1)
    x[:, 1] = 0.1  # constant, and not exact in binary
    scaler = StandardScaler().fit(x.numpy())
    want = torch.from_numpy(scaler.transform(other.numpy()))
    torch.testing.assert_close(fit_standardization(x)(other), want, rtol=1e-6, atol=1e-9)


@given(seed=st.integers(0, 2**31), kept=st.integers(1, 4), block=st.integers(3, 50))
def test_pca_whitening_agrees_with_sklearn_up_to_sign_for_any_block(seed, kept, block):
    x, other = correlated(seed), correlated(seed + 1)
    want = torch.from_numpy(PCA(kept, whiten=True).fit(x.numpy()).transform(other.numpy()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isotropy, "BLOCK", block)
        got = fit_whitening(x, kept)(other)
    assert got.shape == (40, kept)
    torch.testing.assert_close(got.abs(), want.abs(), rtol=1e-5, atol=1e-7)


@given(seed=st.integers(0, 2**31))
def test_white_rows_have_unit_covariance(seed):
    x = correlated(seed)
    for method in ("pca", "zca"):
        white = fit_whitening(x, method=method, scale=3)(x)
        torch.testing.assert_close(covariance(white), 9 * torch.eye(4).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(white.mean(0), torch.zeros(4).double(), rtol=0, atol=1e-6)


def test_zca_is_the_symmetric_one_and_keeps_the_width():
    x = correlated(3)
    matrix = fit_whitening(x, method="zca").matrix
    torch.testing.assert_close(matrix, matrix.mT)
    assert fit_whitening(x, 2, method="zca")(x).shape == (40, 4)


def test_shrinkage_holds_back_directions_of_tiny_variance():
    x = correlated(4)
    x[:, 3] = x[:, 2]
    white = fit_whitening(x, shrinkage=0.1)(x)
    share = torch.linalg.eigvalsh(covariance(x)).flip(0)
    want = share / (share + 0.1 * share.mean())
    torch.testing.assert_close(covariance(white).diagonal(), want, rtol=1e-6, atol=1e-9)


@given(seed=st.integers(0, 2**31), removed=st.integers(0, 3))
def test_all_but_the_top_leaves_the_rest_alone(seed, removed):
    x = correlated(seed)
    centred = x - x.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    left = fit_all_but_the_top(x, removed)(x)
    gone = torch.zeros(40, removed).double()
    torch.testing.assert_close(left @ directions[:removed].mT, gone, rtol=0, atol=1e-6)
    rest = directions[removed:].mT
    torch.testing.assert_close(left @ rest, centred @ rest, rtol=1e-6, atol=1e-6)


def test_all_but_the_top_removes_a_hundredth_of_the_width():
    map_ = fit_all_but_the_top(torch.randn(300, 150))
    assert torch.linalg.matrix_rank(map_.matrix) == 148


def test_ica_finds_independent_sources():
    sources = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)).double()
    mixed = sources @ torch.tensor([[1.0, 0.4], [-0.7, 1.0]]).double() + 3
    found = fit_ica(mixed)(mixed)
    torch.testing.assert_close(found.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-6)
    deviation = found.std(0, correction=0)
    torch.testing.assert_close(deviation, torch.full((2,), 100.0).double(), rtol=1e-6, atol=0)
    cross = np.abs(np.corrcoef(found.numpy().T, sources.numpy().T)[:2, 2:])
    assert sorted(cross.argmax(1)) == [0, 1]
    assert (cross.max(1) > 0.99).all()


def test_ica_agrees_with_sklearn_on_standardised_rows():
    x = torch.rand(400, 3).double() @ torch.randn(3, 3).double()
    x = x * torch.tensor([1.0, 50.0, 0.02]).double()
    rows = StandardScaler().fit_transform(x.numpy())
    want = FastICA(2, whiten="unit-variance", random_state=42, max_iter=1000).fit_transform(rows)
    got = fit_ica(x, 2)(x).numpy()
    np.testing.assert_allclose(got, 100 * want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_state_is_buffers_and_rows_keep_their_dtype(fit, dtype):
    x = torch.rand(60, 3).to(dtype)
    map_ = fit(x.requires_grad_())
    assert not list(map_.parameters())
    assert map_(x).dtype == dtype
    assert not map_.matrix.requires_grad
    copy = AffineMap(*map_.matrix.shape).to(map_.matrix.dtype)
    copy.load_state_dict(map_.state_dict())
    torch.testing.assert_close(copy(x), map_(x))


def test_an_unfitted_map_changes_nothing():
    x = torch.randn(2, 5, 3)
    torch.testing.assert_close(AffineMap(3)(x), x)


def test_contract():
    check_module(*CASES[AffineMap], exempt={"compile": "one at a time"})


@pytest.mark.compile
def test_contract_compiled():
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[AffineMap], exempt=dict.fromkeys(names.split(), "one at a time"))


@pytest.mark.parametrize("fit", FITS)
def test_rows_to_fit_to_must_be_there_and_finite(fit):
    with pytest.raises(ValueError, match=r"the number of rows must be >= 1, got 0"):
        fit(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"x must be finite, got NaN or infinity in 1 of 2 rows"):
        fit(torch.tensor([[0.0, 1.0], [torch.inf, 2.0]]))


@pytest.mark.parametrize("fit", [fit_whitening, fit_ica])
def test_missing_variance_teaches(fit):
    x = correlated(5)
    x[:, 3] = x[:, 2]
    with pytest.raises(ValueError, match=r"vary in 3 directions only, too few for 4. Pass more"):
        fit(x)
    assert fit(x, 3)(x).shape == (40, 3)
    with pytest.raises(ValueError, match=r"n_components must be from 1 to 4, .* got 5"):
        fit(x, 5)
    with pytest.raises(ValueError, match=r"scale must be > 0, got 0"):
        fit(x, 3, scale=0)


def test_settings_teach():
    x = correlated(6)
    with pytest.raises(ValueError, match=r"shrinkage must be >= 0, got -1. Try 0.01"):
        fit_whitening(x, shrinkage=-1)
    with pytest.raises(ValueError, match=r"rows must differ, got none that do"):
        fit_whitening(torch.ones(5, 3), shrinkage=0.1)
    with pytest.raises(ValueError, match=r"num_directions must be from 0 to 3, got 4"):
        fit_all_but_the_top(x, 4)
    with pytest.raises(ValueError, match=r"AffineMap: dim must be >= 1, got 0"):
        AffineMap(0)


@pytest.mark.wording
def test_wrong_rows_teach():
    with pytest.raises(ValueError, match=r"x: expected last axis of size 4, .* fitted to"):
        AffineMap(4)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"method must be one of pca, zca, got 'ica'"):
        fit_whitening(torch.zeros(2, 3), method="ica")
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor"):
        fit_standardization(torch.zeros(2, 3, dtype=torch.long))


def test_ica_without_sklearn_teaches(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"fit_ica: .*pip install scikit-learn`, or fit_whit"):
        fit_ica(correlated(7))
