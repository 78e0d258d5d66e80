"""ArcFace and CosFace: pytorch-metric-learning, loops, the continuation, rows on a class vector."""

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from embedkit.losses.classes.margin_softmax import ArcFaceLoss, CosFaceLoss, arc_face, cos_face
from embedkit.ops.gram import _problem

BOTH = pytest.mark.parametrize("loss", [arc_face, cos_face])


def drawn(rows=9, classes=5, dim=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(classes, dim, generator=generator, dtype=dtype).requires_grad_()
    return x, weight, torch.randint(0, classes, (rows,), generator=generator)


def at_angles(*degrees):
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.mark.parametrize(
    ("loss", "name", "margin"), [(arc_face, "ArcFaceLoss", 28.6), (cos_face, "CosFaceLoss", 0.35)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_agrees_with_pytorch_metric_learning(loss, name, margin, dtype, tolerance):
    losses = importlib.import_module("pytorch_metric_learning.losses")
    x, weight, labels = drawn(dtype=dtype)
    theirs = getattr(losses, name)(5, 4, margin=margin).to(dtype)
    with torch.no_grad():
        theirs.W.copy_(weight.T)
    want = theirs(x, labels)
    got = loss(x, weight, labels, margin=math.radians(margin) if name[0] == "A" else margin)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    of_x, of_weight = torch.autograd.grad(want, [x, theirs.W])
    of = torch.autograd.grad(got, [x, weight])
    torch.testing.assert_close(of, (of_x, of_weight.T), rtol=10 * tolerance, atol=10 * tolerance)


def test_hand_numbers():
    weight = at_angles(0, 90)
    x = 3.0 * at_angles(60, 170)
    near = [math.cos(math.radians(60) + 0.5), math.cos(math.radians(30))]
    far = math.radians(170)  # beyond pi - 0.5, the straight continuation
    past = [math.cos(far) - 0.5 * math.sin(0.5), math.cos(math.radians(80))]
    for row, (own, other) in zip(
        arc_face(x, weight, torch.tensor([0, 0]), scale=2.0, reduction="none"),
        (near, past),
        strict=True,
    ):
        want = math.log(1 + math.exp(2 * (other - own)))
        assert abs(row.item() - want) < 1e-12
    row = cos_face(x[:1], weight, torch.tensor([1]), margin=0.35, scale=2.0)
    want = math.log(1 + math.exp(2 * (0.5 - (math.cos(math.radians(30)) - 0.35))))
    assert abs(row.item() - want) < 1e-12


def test_farther_from_the_class_never_costs_less():
    angle = torch.linspace(0, 180, 721, dtype=torch.float64)
    # The other class stands across the plane, at the same cosine to every row.
    x = torch.cat([at_angles(*angle.tolist()), torch.zeros(721, 1)], dim=1)
    weight = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=torch.float64)
    rows = arc_face(x, weight, torch.zeros(721, dtype=torch.long), reduction="none")
    assert (rows.diff() > -1e-9).all()
    assert rows[-1] > rows[0] + 64


@BOTH
def test_without_margin_it_is_the_softmax_over_cosines(loss):
    x, weight, labels = drawn()
    want = cross_entropy(7.0 * normalize(x) @ normalize(weight).T, labels, reduction="none")
    got = loss(x, weight, labels, margin=0.0, scale=7.0, reduction="none")
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@BOTH
@given(seed=st.integers(0, 2**31))
def test_the_length_of_vectors_and_the_order_of_classes_do_not_matter(loss, seed):
    x, weight, labels = drawn(seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    want = loss(x, weight, labels, reduction="none")
    got = loss(1e-3 * x, 7.0 * weight[order], order.argsort()[labels], reduction="none")
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_finite_on_a_class_vector_opposite_to_it_and_at_zero(loss, dtype):
    weight = torch.tensor([[1.0, 1, 1], [1, -1, 0]], dtype=dtype, requires_grad=True)
    x = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [0, 0, 0]], dtype=dtype, requires_grad=True)
    value = loss(x, weight, torch.zeros(3, dtype=torch.long))
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()
    assert weight.grad.isfinite().all()
    assert (x.grad[2] == 0).all()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@BOTH
def test_autocast_leaves_the_logits_wide(loss):
    x, weight, labels = drawn(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(x, weight, labels)
    torch.testing.assert_close(low, loss(x, weight, labels))


@BOTH
def test_reductions_and_the_empty_batch(loss):
    x, weight, labels = drawn()
    rows = loss(x, weight, labels, reduction="none")
    torch.testing.assert_close(loss(x, weight, labels), rows.mean())
    torch.testing.assert_close(loss(x, weight, labels, reduction="sum"), rows.sum())
    empty = loss(x[:0], weight, labels[:0])
    assert empty == 0
    assert torch.autograd.grad(empty, weight)[0].abs().sum() == 0


@BOTH
def test_non_finite_input_gives_a_non_finite_loss(loss):
    x, weight, labels = drawn()
    bad = x.detach().clone()
    bad[1, 0] = math.nan
    assert not loss(bad, weight, labels).isfinite()
    bad = weight.detach().clone()
    bad[4, 0] = math.inf
    assert not loss(x, bad, labels).isfinite()


@BOTH
def test_the_logits_are_not_stored(loss, monkeypatch):
    monkeypatch.setitem(_problem.BLOCK_ENTRIES, "cpu", 2**14)
    x, weight, labels = drawn(rows=256, classes=1024, dtype=torch.float32)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else [out]
            sizes.extend(t.numel() for t in tensors if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        loss(x, weight, labels).backward()
    assert 0 < max(sizes) <= 2**15


@pytest.mark.parametrize("cls", [ArcFaceLoss, CosFaceLoss])
def test_the_module_trains_its_class_vectors(cls):
    loss = cls(3, 4)
    x = torch.randn(6, 4)
    labels = torch.arange(6) % 3
    with torch.no_grad():
        loss.weight.copy_(torch.eye(3, 4))
    before = loss(x, labels)
    before.backward()
    with torch.no_grad():
        loss.weight -= 0.01 * loss.weight.grad
    assert loss(x, labels) < before
    assert "num_classes=3, dim=4, margin=" in repr(loss)


def test_errors_teach():
    x, weight, labels = drawn()
    with pytest.raises(ValueError, match=r"arc_face: labels must be in 0 to 4, .* got -1 to 5"):
        arc_face(x[:3], weight, torch.tensor([0, 5, -1]))
    with pytest.raises(ValueError, match=r"cos_face: labels must be in 0 to 4, .* got -100 to 2"):
        cos_face(x[:2], weight, torch.tensor([2, -100]))
    with pytest.raises(ValueError, match=r"margin must be an angle in radians, in \[0, pi\), got"):
        ArcFaceLoss(3, 4, margin=28.6)
    with pytest.raises(ValueError, match="CosFaceLoss: margin must be a difference of cosines >= "):
        CosFaceLoss(3, 4, margin=-0.1)
    with pytest.raises(ValueError, match="ArcFaceLoss: scale must be > 0, got 0"):
        ArcFaceLoss(3, 4, scale=0.0)
    with pytest.raises(ValueError, match="ArcFaceLoss: num_classes must be >= 2, got 1"):
        ArcFaceLoss(1, 4)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(
            torch.autograd.grad(arc_face(x, weight, labels), x, create_graph=True)[0].sum(), x
        )


@pytest.mark.wording
def test_errors_about_shapes_teach():
    x, weight, labels = drawn()
    with pytest.raises(ValueError, match=r"embeddings: expected last axis of size 4, got .*\(9, 3"):
        arc_face(x[:, :3], weight, labels)
    with pytest.raises(ValueError, match=r"labels: expected 9 rows, got shape \(4,\)"):
        arc_face(x, weight, labels[:4])
    with pytest.raises(TypeError, match=r"labels: expected integers, got torch.float32"):
        arc_face(x, weight, labels.float())
