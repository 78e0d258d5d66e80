"""Feature weights of linear layers, and what training makes of them."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.layers import layer_feature_weights

PHI = torch.tensor([1.5, 1.0, 0.8, 0.5, 0.3], dtype=torch.float64)
ALPHA = torch.tensor([0.1, 0.1, 0.9, 0.1, 0.1], dtype=torch.float64)
BEFORE = [0.814688, 0.995037, 0.742781, 1.386750, 1.732051]
AFTER = [0.663717, 0.990099, 0.551724, 1.923077, 3.000000]


def orthogonal(*shape):
    return torch.linalg.qr(torch.randn(*shape, dtype=torch.float64)).Q


def trained(*weights, steps, rate=0.02):
    """Gradient descent on the population form of the spectral contrastive loss."""
    both, shared = torch.diag(PHI**2 + ALPHA**2), torch.diag(PHI**2)
    weights = [weight.requires_grad_() for weight in weights]
    for _ in range(steps):
        total = weights[1] @ weights[0]
        gram = total.T @ total
        loss = (gram @ both @ gram @ both).trace() - 2 * (gram @ shared).trace()
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= rate * gradient
    return [weight.detach() for weight in weights], loss.item()


def test_a_linear_head_makes_weights_more_unequal():
    start = 0.5 * torch.eye(5, dtype=torch.float64)
    (first, second), loss = trained(start, start.clone(), steps=1200)
    rows = layer_feature_weights([first, second], torch.eye(5, dtype=torch.float64))
    assert rows[0].tolist() == pytest.approx(BEFORE, abs=1e-6)
    assert rows[1].tolist() == pytest.approx(AFTER, abs=1e-6)
    assert loss == pytest.approx(-3.900838, abs=1e-6)
    assert first.equal(second)
    ratios = rows.amax(1) / rows.amin(1)
    assert ratios.tolist() == pytest.approx([2.332, 5.438], abs=1e-3)


def test_any_balanced_start_learns_the_same_weights():
    (first, second), _ = trained(0.5 * orthogonal(5, 5), 0.5 * orthogonal(5, 5), steps=1200)
    assert not torch.allclose(first, second, atol=0.1)
    rows = layer_feature_weights([first, second], torch.eye(5, dtype=torch.float64))
    assert rows[0].tolist() == pytest.approx(BEFORE, abs=5e-3)  # steps of 0.02 are not quite a flow
    assert rows[1].tolist() == pytest.approx(AFTER, abs=1e-6)


@given(seed=st.integers(0, 2**31), layers=st.integers(1, 4))
def test_balanced_layers_share_the_weight_of_a_feature(seed, layers):
    torch.manual_seed(seed)
    strength = torch.rand(4, dtype=torch.float64).sort(descending=True).values + 0.1
    turns = [orthogonal(6, 4) for _ in range(layers + 1)]
    root = torch.diag(strength ** (1 / layers))
    weights = [new @ root @ old.T for old, new in pairwise(turns)]
    want = torch.stack([strength ** (l / layers) for l in range(1, layers + 1)])  # noqa: E741
    torch.testing.assert_close(layer_feature_weights(weights, turns[0]), want)
    found = layer_feature_weights(weights)
    torch.testing.assert_close(found[:, :4], want)
    assert found.shape == (layers, 6)
    assert found[-1, 4:].abs().max() < 1e-12


def test_one_layer_is_its_singular_values():
    weight = torch.randn(3, 7)
    got = layer_feature_weights([weight])
    torch.testing.assert_close(got[0], torch.linalg.svdvals(weight.double()))


def test_widths_may_differ_and_half_precision_is_widened():
    weights = [torch.randn(4, 6).bfloat16(), torch.randn(2, 4, requires_grad=True)]
    directions = torch.randn(6, 3).half()
    got = layer_feature_weights(weights, directions)
    assert got.dtype == torch.float64
    assert not got.requires_grad
    middle = weights[0].double() @ directions.double()
    want = torch.stack([middle.norm(dim=0), (weights[1].double() @ middle).norm(dim=0)])
    torch.testing.assert_close(got, want.detach())
    assert layer_feature_weights(weights).shape == (2, 2)
    assert layer_feature_weights(weights, directions[:, :0]).shape == (2, 0)


@pytest.mark.wording
@pytest.mark.parametrize(
    ("weights", "directions", "error", "words"),
    [
        ([], None, ValueError, "weights must hold at least one matrix, got none. Pass"),
        (
            [torch.ones(3, 2), torch.ones(2, 4)],
            None,
            ValueError,
            r"weights\[1\]: expected last axis of size 3, got shape \(2, 4\). It takes what weig",
        ),
        ([torch.ones(3)], None, ValueError, r"weights\[0\]: expected 2 axes \(out, in\)"),
        ([torch.ones(2, 2).long()], None, TypeError, r"weights\[0\]: expected a floating"),
        ([torch.full((2, 2), torch.nan)], None, ValueError, r"weights\[0\] must be finite"),
        (
            [torch.ones(3, 2)],
            torch.ones(3, 2),
            ValueError,
            r"directions: expected 2 rows, got shape \(3, 2\). Features are columns, not rows.",
        ),
        ([torch.ones(3, 2)], torch.ones(2), ValueError, r"directions: expected 2 axes \(d, f\)"),
    ],
)
def test_errors_teach(weights, directions, error, words):
    with pytest.raises(error, match=words):
        layer_feature_weights(weights, directions)
