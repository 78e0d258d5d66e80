"""The spectral contrastive loss, and the linear encoder that is known to minimise it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_spectral import CASES

from embedkit.losses.pairs.spectral import SpectralContrastiveLoss, spectral_contrastive_loss
from embedkit.testing import check_module

PHI = torch.tensor([1.5, 1.0, 0.8, 0.5, 0.3], dtype=torch.float64)
ALPHA = torch.tensor([0.1, 0.1, 0.9, 0.1, 0.1], dtype=torch.float64)
seeds = st.integers(0, 2**31)
shapes = pytest.mark.parametrize("shape", [(3, 8), (8, 8), (9, 8), (40, 3), (2, 1)])


def views(seed, shape=(9, 4), dtype=torch.float64):
    torch.manual_seed(seed)
    return torch.randn(2, *shape, dtype=dtype).unbind()


def by_loop(query, key):
    rows = len(query)
    total = sum(-2 * query[i] @ key[i] / rows for i in range(rows))
    for i in range(rows):
        for j in range(rows):
            if i != j:
                total = total + (query[i] @ key[j]) ** 2 / (rows * (rows - 1))
    return total


def value_and_gradients(loss, query, key, **settings):
    leaves = [side.detach().clone().requires_grad_() for side in (query, key)]
    value = loss(*leaves, **settings)
    value.sum().backward()
    return value.detach(), [leaf.grad for leaf in leaves]


@shapes
def test_both_forms_agree_with_a_loop(shape):
    query, key = views(0, shape)
    got = value_and_gradients(spectral_contrastive_loss, query, key)
    torch.testing.assert_close(got, value_and_gradients(by_loop, query, key))


@shapes
def test_reductions_are_of_the_same_rows(shape):
    query, key = views(1, shape)
    row = spectral_contrastive_loss(query, key, reduction="none")
    assert row.shape == shape[:1]
    torch.testing.assert_close(spectral_contrastive_loss(query, key, reduction="sum"), row.sum())
    torch.testing.assert_close(spectral_contrastive_loss(query, key), row.mean())


@given(seed=seeds, rows=st.integers(2, 9))
def test_what_must_not_matter(seed, rows):
    query, key = views(seed, (rows, 5))
    want = spectral_contrastive_loss(query, key)
    order = torch.randperm(rows)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    torch.testing.assert_close(spectral_contrastive_loss(key, query), want)
    torch.testing.assert_close(spectral_contrastive_loss(query[order], key[order]), want)
    torch.testing.assert_close(spectral_contrastive_loss(query @ turn, key @ turn), want)
    extended = torch.nn.functional.pad(query, (0, 9)), torch.nn.functional.pad(key, (0, 9))
    torch.testing.assert_close(spectral_contrastive_loss(*extended), want)


def test_by_hand():
    assert spectral_contrastive_loss(torch.eye(3), torch.eye(3)) == -2
    assert spectral_contrastive_loss(torch.ones(4, 1), torch.ones(4, 1)) == -1
    assert spectral_contrastive_loss(torch.ones(2, 3), torch.ones(2, 3)) == -6 + 9


# The theory that the loss is used for.


def test_the_best_linear_encoder_of_the_diagonal_model():
    centre = torch.randn(200_000, 5, dtype=torch.float64) * PHI
    first, second = (centre + ALPHA * torch.randn_like(centre) for _ in range(2))
    weight = PHI / (PHI**2 + ALPHA**2)
    losses = {
        scale: spectral_contrastive_loss(scale * weight * first, scale * weight * second).item()
        for scale in (0.95, 1.0, 1.05)
    }
    assert losses[1.0] == pytest.approx(-3.900838, abs=0.03)
    assert min(losses, key=losses.get) == 1.0


@given(seed=seeds, rows=st.integers(2, 20))
def test_gradient_flow_keeps_two_linear_layers_balanced(seed, rows):
    x, y = views(seed, (rows, 6))
    first, second = (torch.randn(5, 6).double(), torch.randn(3, 5).double())
    for weight in (first, second):
        weight.requires_grad_()
    spectral_contrastive_loss(x @ first.T @ second.T, y @ first.T @ second.T).backward()
    torch.testing.assert_close(second.T @ second.grad, first.grad @ first.T)


# What must stay finite, small and exact.


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_row_without_negatives_takes_no_part(rows, reduction):
    query, key = views(0, (rows, 3))
    value, gradients = value_and_gradients(
        spectral_contrastive_loss, query, key, reduction=reduction
    )
    assert value.sum() == 0
    assert all(gradient.equal(torch.zeros(rows, 3).double()) for gradient in gradients)


@shapes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(shape, dtype):
    query, key = (100 * side.to(dtype) for side in views(2, shape))
    value, gradients = value_and_gradients(spectral_contrastive_loss, query, key)
    want, _ = value_and_gradients(spectral_contrastive_loss, query.float(), key.float())
    with torch.autocast("cpu", torch.bfloat16):
        low = spectral_contrastive_loss(query.float(), key.float())
    assert value.dtype == torch.float32
    assert all(gradient.dtype == dtype for gradient in gradients)
    assert value.equal(want)
    assert low.equal(want)


@shapes
@pytest.mark.parametrize("length", [1e-3, 1.0, 30.0])
def test_float32_keeps_its_digits(shape, length):
    query = length * views(3, shape)[0]
    key = query + 0.1 * length * views(4, shape)[0]
    want, want_gradients = value_and_gradients(spectral_contrastive_loss, query, key)
    got, gradients = value_and_gradients(spectral_contrastive_loss, query.float(), key.float())
    terms = 2 * (query * key).sum(1).abs().mean() + want.abs()
    assert abs(got - want) < 3e-6 * terms
    for one, other in zip(gradients, want_gradients, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_nothing_of_size_b_by_b_is_made():
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    query, key = views(0, (1000, 4))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        spectral_contrastive_loss(query.requires_grad_(), key.requires_grad_())
    assert max(sizes) == 4000


@shapes
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_silent(shape, bad):
    query, key = views(0, shape)
    query[0, 0] = bad
    assert not spectral_contrastive_loss(query, key).isfinite()
    assert not spectral_contrastive_loss(key[:1], query[:1]).isfinite()


def test_contract():
    build, inputs = CASES[SpectralContrastiveLoss]
    check_module(build, inputs, exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("width", [3, 9])
def test_contract_compiled(width):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(
        SpectralContrastiveLoss,
        lambda b: views(0, (b, width), torch.float32),
        exempt=dict.fromkeys(names.split(), "above"),
    )


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(3, 2)
    with pytest.raises(ValueError, match=r"got query \(3, 2\), key \(2, 2\). Row i of one side"):
        spectral_contrastive_loss(x, x[:2])
    with pytest.raises(ValueError, match=r"query: expected 2 axes \(b, d\), got shape \(2,\)"):
        spectral_contrastive_loss(x[0], x[0])
    with pytest.raises(TypeError, match="key: expected a floating-point tensor"):
        spectral_contrastive_loss(x, x.long())
    with pytest.raises(ValueError, match="SpectralContrastiveLoss: reduction must be one of mean"):
        SpectralContrastiveLoss("max")
