"""CoSENT and AnglE: against sentence-transformers and a double loop."""

import importlib
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses.scores.ordering import AnglELoss, angle_loss, angle_similarity, cosent_loss


def test_hand_number():
    pred, target = (
        torch.tensor([0.9, 0.2, 0.5, 0.4], dtype=torch.float64),
        torch.tensor([5, 1, 3, 3]),
    )
    assert cosent_loss(pred, target).item() == pytest.approx(0.020955, abs=5e-7)


@given(seed=st.integers(0, 2**31), temperature=st.sampled_from([0.05, 1.0]))
def test_cosent_equals_the_sum_over_all_pairs(seed, temperature):
    torch.manual_seed(seed)
    pred = torch.rand(9, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, (9,))
    pairs = (target[:, None] > target).double() * ((pred - pred[:, None]) / temperature).exp()
    want = (1 + pairs.sum()).log()
    got = cosent_loss(pred, target, temperature=temperature)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, pred), torch.autograd.grad(want, pred))


def test_saved_memory_is_linear():
    saved = []
    pred = torch.rand(3000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel()) or t, lambda t: t
    ):
        cosent_loss(pred, torch.rand(3000)).backward()
    assert sum(saved) <= 30 * 3000


@given(seed=st.integers(0, 2**31))
def test_angle_similarity_in_complex_numbers(seed):
    torch.manual_seed(seed)
    query, key = torch.randn(2, 5, 6, dtype=torch.float64)
    z, w = (torch.complex(*side.chunk(2, dim=1)) for side in (query, key))
    product = (z * w.conj()).sum(1) / (query.norm(dim=1) * key.norm(dim=1))
    want = (product.real + product.imag).abs()
    torch.testing.assert_close(angle_similarity(query, key), want)
    torch.testing.assert_close(angle_similarity(3 * query, 0.1 * key), want)
    assert (want <= 2**0.5 + 1e-9).all()


def test_zero_vectors_have_no_direction():
    query, key = torch.zeros(3, 4, requires_grad=True), torch.randn(3, 4)
    angle_loss(query, key, torch.arange(3)).backward()
    assert query.grad.equal(torch.zeros(3, 4))
    assert angle_similarity(query, key).equal(torch.zeros(3))


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(2, 4)
    with pytest.raises(ValueError, match=r"expected an even width, got 3. Half of the"):
        angle_similarity(x[:, :3], x[:, :3])
    with pytest.raises(ValueError, match=r"got query \(2, 4\), key \(1, 4\). Row i of one goes"):
        angle_similarity(x, x[:1])
    with pytest.raises(TypeError, match="key: expected a floating-point tensor"):
        angle_similarity(x, x.long())
    with pytest.raises(ValueError, match=r"got pred \(2,\), target \(3,\)"):
        angle_loss(x, x, torch.arange(3))
    with pytest.raises(ValueError, match=r"AnglELoss: temperature must be > 0, got 0. It divides"):
        AnglELoss(0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_sentence_transformers(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rivals = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    torch.manual_seed(0)
    query, key = (torch.randn(40, 6, dtype=dtype, requires_grad=True) for _ in range(2))
    target = torch.randint(0, 6, (40,)) / 5

    def cosent(a, b, y):
        return cosent_loss(torch.nn.functional.cosine_similarity(a, b), y)

    rows = torch.nn.Identity()
    for ours, theirs in ((cosent, rivals.CoSENTLoss(rows)), (angle_loss, rivals.AnglELoss(rows))):
        got = ours(query, key, target)
        want = theirs.compute_loss_from_embeddings([query, key], target.to(dtype))
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(got, (query, key)), torch.autograd.grad(want, (query, key))
        )
