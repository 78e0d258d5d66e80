"""The loss of entailment cones: hand numbers, negatives, what is degenerate, errors."""

import math

import pytest
import torch

from embedkit.geometry import lorentz
from embedkit.geometry.lorentz.cone import half_aperture
from embedkit.losses.hyperbolic.entailment import EntailmentConeLoss, entailment_cone

PARENT = lorentz.project(torch.tensor([[0, 1, 0], [0, 0.3, 0.1], [0, 1, 0]], dtype=torch.float64))
CHILD = lorentz.project(torch.tensor([[0, 0, 1], [0, 3, 1], [0, -2, 0]], dtype=torch.float64))


def test_hand_numbers():
    aperture = math.asin(0.2)
    want = [math.acos(-math.sqrt(2 / 3)) - aperture, 0.0, math.pi - aperture]
    rows = entailment_cone(PARENT, CHILD, reduction="none")
    torch.testing.assert_close(rows, torch.tensor(want, dtype=torch.float64))
    torch.testing.assert_close(entailment_cone(PARENT, CHILD), rows.mean())


def test_negatives_must_be_outside_by_the_margin():
    pair = torch.tensor([False, False, True])
    rows = entailment_cone(PARENT, CHILD, pair, margin=2.5, reduction="none")
    plain = entailment_cone(PARENT, CHILD, reduction="none")
    want = torch.stack([2.5 - plain[0], torch.tensor(2.5).double(), plain[2]])
    torch.testing.assert_close(rows, want)


def test_gradient_descent_puts_children_into_cones():
    torch.manual_seed(0)
    tangent = torch.randn(2, 40, 3, requires_grad=True)
    optimizer = torch.optim.Adam([tangent], lr=0.03)
    loss_fn = EntailmentConeLoss()
    for _ in range(300):
        parent, child = lorentz.expmap0(tangent)
        loss = loss_fn(parent, child)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3
    assert half_aperture(lorentz.expmap0(tangent[0])).median() < 1.5  # not by opening all cones


def test_equal_points_the_origin_and_half_precision_are_finite():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        space = torch.tensor([[0, 0, 0], [0, 1, 2], [0, 1e-6, 0], [0, 900, 0]], dtype=dtype)
        points = lorentz.project(space).requires_grad_()
        for other in (points, points.flip(0), points.roll(1, 0)):
            loss = entailment_cone(points, other)
            assert loss.isfinite()
            assert loss.dtype == torch.promote_types(dtype, torch.float32)
            assert torch.autograd.grad(loss, points)[0].isfinite().all()
        assert entailment_cone(points, points) == 0
    assert entailment_cone(points[:0], points[:0]) == 0


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"child": CHILD[:2]}, ValueError, r"expected equal shapes, got parent \(3, 3\), child"),
        ({"child": CHILD.float()}, TypeError, "child: expected the dtype of parent, torch.float64"),
        ({"positive": torch.ones(3)}, TypeError, r"positive: expected bool \(True is a pair\)"),
        ({"positive": torch.ones(2).bool()}, ValueError, r"positive: expected shape \(3,\)"),
        ({"min_radius": 0.0}, ValueError, "entailment_cone: min_radius must be > 0, got 0"),
        ({"margin": -1.0}, ValueError, "entailment_cone: margin must be > 0, got -1"),
        ({"curvature": 0.0}, ValueError, "curvature must be > 0, got 0"),
    ],
)
def test_bad_arguments_are_explained(change, error, words):
    given_ = {"parent": PARENT, "child": CHILD} | change
    with pytest.raises(error, match=words):
        entailment_cone(**given_)


def test_settings_are_checked_when_made():
    with pytest.raises(ValueError, match="EntailmentConeLoss: min_radius must be > 0, got -1"):
        EntailmentConeLoss(min_radius=-1.0)


@pytest.mark.parametrize("c", [1.0, 1e3])
def test_float16_gradients_stay_finite(c):
    parent = lorentz.expmap0(torch.tensor([[1e-6, 0.0]]).half(), curvature=c).requires_grad_()
    child = lorentz.expmap0(torch.tensor([[0.0, 1e-6]]).half(), curvature=c).requires_grad_()
    loss = entailment_cone(parent, child, curvature=c)
    for gradient in torch.autograd.grad(loss, (parent, child)):
        assert gradient.isfinite().all()
