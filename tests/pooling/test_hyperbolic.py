"""Pools of the ball: midpoints under masks, attention by distance, the edge."""

import pytest
import torch
from geometry.spaces import EVERY, ball, tangents
from hypothesis import given
from hypothesis import strategies as st

from embedkit.geometry import Curvature, poincare
from embedkit.pooling import HyperbolicAttentionPool, MidpointPool, hyperbolic_attention_pool

lengths = given(seed=st.integers(0, 2**31), n=st.integers(1, 6))


@lengths
def test_padding_never_matters(seed, n):
    points = ball(2 * 8, 3, 0.5, 0.9, seed).reshape(2, 8, 3)
    mask = torch.arange(8) < torch.tensor([n, 8])[:, None]
    bad = points.masked_fill(~mask[..., None], float("nan"))
    query = torch.randn(3, generator=torch.Generator().manual_seed(seed)).double()
    midpoint = MidpointPool(0.5)(bad, mask)[0]
    torch.testing.assert_close(midpoint, poincare.midpoint(points[0, :n], curvature=0.5))
    for score in ("distance", "tangent"):
        got = hyperbolic_attention_pool(bad, query, mask, curvature=0.5, score=score)
        alone = hyperbolic_attention_pool(points[:1, :n], query, curvature=0.5, score=score)
        torch.testing.assert_close(got[:1], alone)


@lengths
def test_attention_is_a_weighted_midpoint(seed, n):
    points = ball(n, 3, 0.5, 0.9, seed)[None]
    query = torch.randn(3, generator=torch.Generator().manual_seed(seed)).double()
    place = poincare.expmap0(query, curvature=0.5)
    score = -poincare.distance(points[0], place, curvature=0.5) / 0.3
    want = poincare.midpoint(points[0], score.softmax(0), curvature=0.5)
    got = hyperbolic_attention_pool(points, query, curvature=0.5, temperature=0.3)
    torch.testing.assert_close(got[0], want)
    score = poincare.logmap0(points[0], curvature=0.5) @ query / 0.3
    want = poincare.midpoint(points[0], score.softmax(0), curvature=0.5)
    got = hyperbolic_attention_pool(points, query, curvature=0.5, score="tangent", temperature=0.3)
    torch.testing.assert_close(got[0], want)


def test_extremes_of_temperature():
    points = ball(5, 3)[None]
    query = torch.tensor([0.2, 0.1, -0.4]).double()
    distance = poincare.distance(points[0], poincare.expmap0(query))
    coldest = hyperbolic_attention_pool(points, query, temperature=1e-6)
    torch.testing.assert_close(coldest[0], points[0, distance.argmin()], atol=1e-9, rtol=1e-9)
    hottest = hyperbolic_attention_pool(points, query, temperature=1e9)
    torch.testing.assert_close(hottest, poincare.midpoint(points), atol=1e-8, rtol=1e-8)
    at_start = HyperbolicAttentionPool(3, score="tangent").double()(points)
    torch.testing.assert_close(at_start, poincare.midpoint(points))


@pytest.mark.parametrize(("dtype", "c"), EVERY)
@pytest.mark.parametrize("score", ["distance", "tangent"])
def test_never_outside_never_nan_at_any_radius(dtype, c, score):
    points = poincare.expmap0(tangents(c, dtype), curvature=c).reshape(2, -1, 4).requires_grad_()
    mask = torch.ones(points.shape[:2], dtype=torch.bool)
    mask[0] = False
    mask[1, ::2] = False
    pool = HyperbolicAttentionPool(4, Curvature(c), score).to(dtype)
    torch.nn.init.normal_(pool.query, std=c**-0.5)
    for call in (pool, MidpointPool(c)):
        result = call(points, mask)
        assert result.dtype == dtype
        assert not result[0].any()
        poincare.check_inside(result, curvature=c)
        gradients = torch.autograd.grad(result.sum(), (points, *call.parameters()))
        assert all(g.isfinite().all() for g in gradients)


def test_vmap_and_print():
    points = ball(24, 2).reshape(4, 1, 3, 2, 2).flatten(2, 3)
    query = torch.tensor([0.1, 0.2]).double()
    got = torch.func.vmap(lambda p: hyperbolic_attention_pool(p, query))(points)
    torch.testing.assert_close(got[:, 0], hyperbolic_attention_pool(points[:, 0], query))
    assert "curvature=3" in repr(MidpointPool(3.0))
    assert "curvature=3" in repr(HyperbolicAttentionPool(2, 3.0))


def test_weights_of_padding_may_be_anything():
    points = ball(2, 3)[None]
    mask = torch.tensor([[True, False]])
    for bad in (-1.0, float("nan"), float("inf")):
        weight = torch.tensor([[2.0, bad]]).double()
        torch.testing.assert_close(MidpointPool()(points, mask, weight), points[:, 0])


def test_a_query_of_another_dtype_is_refused_but_under_autocast():
    points = ball(3, 2, dtype=torch.float32)[None]
    pool = HyperbolicAttentionPool(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert pool(points.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(
        TypeError, match=r"expected query of the dtype of the points, torch.float32"
    ):
        pool.double()(points)


@pytest.mark.wording
def test_errors_teach():
    points = torch.rand(2, 3, 4) / 4
    with pytest.raises(
        ValueError, match=r"HyperbolicAttentionPool: score must be one of distance, t"
    ):
        HyperbolicAttentionPool(4, score="cosine")
    with pytest.raises(ValueError, match=r"HyperbolicAttentionPool: temperature must be > 0"):
        HyperbolicAttentionPool(4, temperature=0)
    with pytest.raises(ValueError, match=r"points: expected last axis of size 5, got shape"):
        HyperbolicAttentionPool(5)(points)
    with pytest.raises(ValueError, match=r"MidpointPool: curvature must be > 0, got 0"):
        MidpointPool(0)
    with pytest.raises(TypeError, match=r"mask"):
        MidpointPool()(points, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"weights must be >= 0"):
        MidpointPool()(points, None, torch.full((2, 3), -1.0))
