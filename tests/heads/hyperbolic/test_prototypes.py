"""Prototypes: logits from distances or directions, with a scale that learns."""

import pytest
import torch
import torch.nn.functional as F
from geometry.spaces import EVERY, ball, tangents

from embedkit.geometry import Curvature, poincare
from embedkit.heads import HyperbolicPrototypeHead, hyperbolic_prototype_logits


def test_logits_are_scaled_similarities():
    x, prototypes = ball(5, 3, 0.5), ball(4, 3, 0.5, seed=3)
    want = -2.5 * poincare.distance(x[:, None], prototypes, curvature=0.5)
    got = HyperbolicPrototypeHead(0.5, scale=2.5).double()(x, prototypes)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    want = F.cosine_similarity(x[:, None], prototypes, dim=-1)
    got = hyperbolic_prototype_logits(x, prototypes, similarity="cosine", curvature=0.5)
    torch.testing.assert_close(got, want)
    # directions from the origin are those of the tangent vectors
    v, w = (poincare.logmap0(t, curvature=0.5) for t in (x, prototypes))
    torch.testing.assert_close(got, F.cosine_similarity(v[:, None], w, dim=-1))


def test_the_scale_learns_where_asked():
    x, prototypes = ball(5, 3, dtype=torch.float32), ball(4, 3, seed=3, dtype=torch.float32)
    head = HyperbolicPrototypeHead(Curvature(), scale=2.0)
    F.cross_entropy(head(x, prototypes), torch.arange(5) % 4).backward()
    assert head.log_scale.grad.abs() > 0
    assert head.curvature.log_curvature.grad.abs() > 0
    fixed = HyperbolicPrototypeHead(scale=2.0, learnable_scale=False)
    assert not list(fixed.parameters())
    torch.testing.assert_close(fixed(x, prototypes), head(x, prototypes))
    assert "scale=2, curvature=1" in repr(fixed)


@pytest.mark.parametrize(("dtype", "c"), EVERY)
@pytest.mark.parametrize("similarity", ["neg_distance", "cosine"])
def test_finite_at_any_radius(dtype, c, similarity):
    x = poincare.expmap0(tangents(c, dtype), curvature=c).requires_grad_()
    head = HyperbolicPrototypeHead(c, similarity, scale=3.0)
    result = head(x, x[:3].detach())
    assert result.dtype == dtype
    assert result.isfinite().all()
    for gradient in torch.autograd.grad(result.sum(), (x, head.log_scale)):
        assert gradient.isfinite().all()


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match=r"similarity must be one of neg_distance, cosine, got"):
        HyperbolicPrototypeHead(similarity="dot")
    with pytest.raises(ValueError, match=r"HyperbolicPrototypeHead: scale must be > 0, got 0"):
        HyperbolicPrototypeHead(scale=0)
    with pytest.raises(TypeError, match=r"prototypes: expected the dtype of x, torch.float32"):
        HyperbolicPrototypeHead()(torch.zeros(2, 3), torch.zeros(2, 3).double())
    with pytest.raises(ValueError, match=r"x: expected 2 axes \(n, d\), got shape \(3,\)"):
        HyperbolicPrototypeHead()(torch.zeros(3), torch.zeros(2, 3))
