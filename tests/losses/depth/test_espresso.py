import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.depth.test_adaptive import layers

from embedkit.losses import InfoNCELoss, info_nce
from embedkit.losses.depth.adaptive import layer_weights
from embedkit.losses.depth.espresso import (
    EspressoLoss,
    learn_to_compress,
    learn_to_express,
    pca_compress,
)

M = torch.tensor([[1, 2, 0], [0, 1, 1], [2, 0, 1], [1, 1, 1]], dtype=torch.float64)


def test_numbers_made_by_hand():
    want = [[1.880199, 0.640132], [1.154145, 0.378902], [1.835013, 0.879548], [1.802532, 0.003548]]
    got = pca_compress(M, 2)
    torch.testing.assert_close(got.abs(), torch.tensor(want).double(), atol=1e-6, rtol=0)
    assert (got[:, 0] > 0).all()  # all of the first column of U has one sign, so +


@given(seed=st.integers(0, 2**31), dim=st.integers(1, 6), scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_agrees_with_torch_svd_and_is_steady(seed, dim, scale):
    torch.manual_seed(seed)
    x = scale * torch.randn(9, 6, dtype=torch.float64)
    left, size, right = torch.linalg.svd(F.softmax(x.T @ x / 6**0.5, dim=1))
    torch.testing.assert_close(left @ size.diag() @ right, F.softmax(x.T @ x / 6**0.5, dim=1))
    got = pca_compress(x, dim)
    torch.testing.assert_close(got.abs(), (x @ left * size)[:, :dim].abs(), atol=1e-7, rtol=1e-7)
    order = torch.randperm(9)
    if scale < 1:  # sizes far enough apart for columns to be the same
        torch.testing.assert_close(pca_compress(x[order], dim), got[order], atol=1e-5, rtol=1e-4)


def test_signs_do_not_follow_the_decomposition(monkeypatch):
    x, svd = torch.randn(9, 6, dtype=torch.float64), torch.linalg.svd
    want = pca_compress(x, 4)

    def flipped(a):
        left, size, right = svd(a)
        sign = torch.tensor([-1.0, 1, -1, 1, -1, 1]).double()
        return left * sign, size, sign[:, None] * right

    monkeypatch.setattr(torch.linalg, "svd", flipped)
    torch.testing.assert_close(pca_compress(x, 4), want)


def test_the_target_is_a_constant_of_the_dtype_given():
    x = torch.randn(5, 4, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = pca_compress(x, 2)
    assert got.dtype == torch.bfloat16
    assert not got.requires_grad
    want = pca_compress(x.float(), 2)
    torch.testing.assert_close(got.float(), want, atol=1e-2, rtol=1e-2)
    assert pca_compress(x[:0], 2).shape == (0, 2)
    spoiled = x.detach().clone()
    spoiled[1, 1] = torch.nan
    assert pca_compress(spoiled, 2).isnan().all()


@pytest.mark.parametrize("weighting", ["uniform", "log"])
def test_both_parts_are_the_formulas(weighting):
    query, key = layers(4)
    weights = layer_weights(4, weighting)
    express = info_nce(query[3], key[3]) + info_nce(query[3][:, :3], key[3][:, :3])
    compress = torch.zeros((), dtype=torch.float64)
    for n, weight in enumerate([*(w / 3 for w in weights), 1.0]):
        if n < 3:
            express += weight * info_nce(query[n][:, :3], key[n][:, :3])
        u = torch.cat([query[n], key[n]])
        target = pca_compress(u, 3)
        kl = F.kl_div(u[:, :3].log_softmax(1), target.softmax(1), reduction="batchmean")
        compress += weight * (F.mse_loss(u[:, :3], target) + kl)
    got = EspressoLoss(InfoNCELoss(), 3, weighting, compress_weight=0.5)(query, key)
    torch.testing.assert_close(got, express + 0.5 * compress)
    got = EspressoLoss(InfoNCELoss(), 3, weighting, compress_weight=0.0)(query, key)
    torch.testing.assert_close(got, express)


def test_one_layer_and_the_whole_width():
    query, key = layers(1)
    got = learn_to_express(lambda n, dims: info_nce(query[0], key[0], dims=dims), query, 8)
    torch.testing.assert_close(got, info_nce(query[0], key[0]))
    assert learn_to_compress(query, 8) > 0


@pytest.mark.wording
def test_wrong_arguments_teach():
    query, key = layers(3)
    with pytest.raises(ValueError, match=r"dim=9 is wider than the embeddings, of width 8"):
        EspressoLoss(InfoNCELoss(), 9)(query, key)
    with pytest.raises(ValueError, match=r"pca_compress: dim must be >= 1, got 0"):
        pca_compress(M, 0)
    with pytest.raises(ValueError, match=r"learn_to_compress: dim=128 is wider"):
        learn_to_compress(query)
    with pytest.raises(ValueError, match=r"compress_weight must be >= 0, got -1"):
        EspressoLoss(InfoNCELoss(), compress_weight=-1)
    with pytest.raises(ValueError, match=r"temperature must be > 0, got 0. It divides the coord"):
        EspressoLoss(InfoNCELoss(), temperature=0)
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor"):
        pca_compress(M.long(), 2)
