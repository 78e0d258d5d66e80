"""ProxyNCA and proxy anchor: pytorch-metric-learning, loops, classes without rows."""

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses import LearnableTemperature, decoupled_contrastive
from embedkit.losses.classes.proxy import ProxyAnchorLoss, ProxyNCALoss, proxy_anchor, proxy_nca
from embedkit.ops.gram import _problem


def drawn(rows=9, classes=5, dim=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator, dtype=dtype).requires_grad_()
    proxies = torch.randn(classes, dim, generator=generator, dtype=dtype).requires_grad_()
    return x, proxies, torch.randint(0, classes - 1, (rows,), generator=generator)


def cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("rows", [9, 1])
def test_agrees_with_pytorch_metric_learning(rows, dtype, tolerance):
    losses = importlib.import_module("pytorch_metric_learning.losses")
    x, proxies, labels = drawn(rows, dtype=dtype)
    pairs = [
        (losses.ProxyNCALoss(5, 4, softmax_scale=9), proxy_nca),
        (losses.ProxyAnchorLoss(5, 4, margin=0.1, alpha=32), proxy_anchor),
    ]
    for theirs, ours in pairs:
        theirs = theirs.to(dtype)
        with torch.no_grad():
            theirs.proxies.copy_(proxies)
        want, got = theirs(x, labels), ours(x, proxies, labels)
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
        want = torch.autograd.grad(want, [x, theirs.proxies])
        torch.testing.assert_close(
            torch.autograd.grad(got, [x, proxies]), want, rtol=10 * tolerance, atol=10 * tolerance
        )


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 7), classes=st.integers(2, 5))
def test_proxy_nca_by_loops(seed, rows, classes):
    x, proxies, labels = drawn(rows, classes, seed=seed)
    want = []
    for row, label in zip(x.tolist(), labels.tolist(), strict=True):
        weights = [math.exp(-(2 - 2 * cosine(row, p)) * 9) for p in proxies.tolist()]
        want.append(-math.log(weights[label] / sum(weights)))
    got = proxy_nca(x, proxies, labels, reduction="none")
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(proxy_nca(x, proxies, labels), got.mean())


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 7), classes=st.integers(2, 5))
def test_proxy_anchor_by_loops(seed, rows, classes):
    x, proxies, labels = drawn(rows, classes, seed=seed)
    near, far = [], []
    for index, proxy in enumerate(proxies.tolist()):
        similar = [cosine(proxy, row) for row in x.tolist()]
        mine = [s for s, y in zip(similar, labels.tolist(), strict=True) if y == index]
        rest = [s for s, y in zip(similar, labels.tolist(), strict=True) if y != index]
        near.append((bool(mine), math.log(1 + sum(math.exp(-8 * (s - 0.2)) for s in mine))))
        far.append(math.log(1 + sum(math.exp(8 * (s + 0.2)) for s in rest)))
    want = sum(v for _, v in near) / sum(k for k, _ in near) + sum(far) / len(far)
    got = proxy_anchor(x, proxies, labels, margin=0.2, scale=8.0)
    assert abs(got.item() - want) < 1e-9


def test_the_original_proxy_nca_is_decoupled():
    x, proxies, labels = drawn()
    want = []
    for row, label in zip(x.tolist(), labels.tolist(), strict=True):
        weights = [math.exp(-(2 - 2 * cosine(row, p))) for p in proxies.tolist()]
        want.append(-math.log(weights[label] / (sum(weights) - weights[label])))
    got = decoupled_contrastive(
        x, proxies, temperature=0.5, query_ids=labels, key_ids=torch.arange(5)
    )
    assert abs(got.item() - sum(want) / len(want)) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-3, 32.0, 1e4])
def test_finite_at_any_scale_and_with_zero_vectors(dtype, scale):
    x, proxies, labels = drawn(dtype=torch.float64)
    x, proxies = x.detach().to(dtype), proxies.detach().to(dtype)
    x[2], proxies[1] = 0.0, 0.0
    x.requires_grad_()
    proxies.requires_grad_()
    for value in (
        proxy_anchor(x, proxies, labels, scale=scale),
        proxy_nca(x, proxies, labels, temperature=1 / scale),
    ):
        of_x, of_proxies = torch.autograd.grad(value, [x, proxies])
        assert value.isfinite()
        assert of_x.isfinite().all()
        assert of_proxies.isfinite().all()
        assert (of_x[2] == 0).all()


@pytest.mark.parametrize("loss", [proxy_nca, proxy_anchor])
def test_edges(loss):
    x, proxies, labels = drawn()
    empty = loss(x[:0], proxies, labels[:0])
    assert empty == 0
    assert torch.autograd.grad(empty, proxies)[0].abs().sum() == 0
    alone = loss(x, proxies[:1], torch.zeros(9, dtype=torch.long))
    assert alone.isfinite()
    bad = x.detach().clone()
    bad[1, 0] = math.nan
    assert not loss(bad, proxies, labels).isfinite()
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(x.float(), proxies.float(), labels)
    torch.testing.assert_close(low, loss(x.float(), proxies.float(), labels))


def test_the_cosines_are_not_stored(monkeypatch):
    monkeypatch.setitem(_problem.BLOCK_ENTRIES, "cpu", 2**14)
    x, proxies, labels = drawn(rows=256, classes=1024, dtype=torch.float32)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else [out]
            sizes.extend(t.numel() for t in tensors if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        proxy_anchor(x, proxies, labels).backward()
        proxy_nca(x, proxies, labels).backward()
    assert 0 < max(sizes) <= 2**15


def test_the_temperature_can_be_learned():
    loss = ProxyNCALoss(3, 4, LearnableTemperature(0.1))
    loss(torch.randn(5, 4), torch.arange(5) % 3).backward()
    assert loss.temperature.log_scale.grad.abs() > 0
    assert "num_classes=3, dim=4" in repr(loss)
    assert "scale=32" in repr(ProxyAnchorLoss(3, 4))


def test_errors_teach():
    x, proxies, _ = drawn()
    with pytest.raises(ValueError, match=r"proxy_nca: labels must be in 0 to 4, .* got 0 to 5"):
        proxy_nca(x[:2], proxies, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"proxy_anchor: labels must be in 0 to 4, .* got -1 to 0"):
        proxy_anchor(x[:2], proxies, torch.tensor([0, -1]))
    with pytest.raises(ValueError, match="ProxyNCALoss: temperature must be > 0, got 0"):
        ProxyNCALoss(3, 4, 0.0)
    with pytest.raises(ValueError, match="ProxyAnchorLoss: scale must be > 0, got -1"):
        ProxyAnchorLoss(3, 4, scale=-1.0)
    with pytest.raises(ValueError, match="ProxyAnchorLoss: num_classes must be >= 1, got 0"):
        ProxyAnchorLoss(0, 4)


@pytest.mark.wording
def test_errors_about_shapes_teach():
    x, proxies, labels = drawn()
    with pytest.raises(ValueError, match=r"embeddings: expected last axis of size 4, got .*\(9, 3"):
        proxy_anchor(x[:, :3], proxies, labels)
