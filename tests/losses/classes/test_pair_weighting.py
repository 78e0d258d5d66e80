"""Multi-similarity and circle: pytorch-metric-learning, loops, blocks of rows, memory."""

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses.classes import pair_weighting
from embedkit.losses.classes.pair_weighting import (
    CircleLoss,
    MultiSimilarityLoss,
    circle,
    multi_similarity,
)

BOTH = pytest.mark.parametrize("loss", [multi_similarity, circle])


def drawn(rows=12, dim=5, classes=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator, dtype=dtype).requires_grad_()
    return x, torch.randint(0, classes, (rows,), generator=generator)


def cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


def pairs_of(x, labels):
    """(cosines with positives, cosines with negatives) of every row."""
    x, labels = x.tolist(), labels.tolist()
    for i, row in enumerate(x):
        other = [(cosine(row, x[j]), labels[j] == labels[i]) for j in range(len(x)) if j != i]
        yield [s for s, same in other if same], [s for s, same in other if not same]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 3e-5)])
def test_agrees_with_pytorch_metric_learning(dtype, tolerance):
    losses = importlib.import_module("pytorch_metric_learning.losses")
    miner = importlib.import_module("pytorch_metric_learning.miners").MultiSimilarityMiner(0.1)
    x, labels = drawn(dtype=dtype)
    theirs = losses.MultiSimilarityLoss()
    results = [
        (theirs(x, labels, miner(x, labels)), multi_similarity(x, labels)),
        (theirs(x, labels), multi_similarity(x, labels, mining_margin=None)),
        (losses.CircleLoss()(x, labels), circle(x, labels)),
        (
            losses.CircleLoss(m=0.25, gamma=16)(x, labels),
            circle(x, labels, margin=0.25, scale=16.0),
        ),
    ]
    for want, got in results:
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            torch.autograd.grad(got, x),
            torch.autograd.grad(want, x),
            rtol=10 * tolerance,
            atol=10 * tolerance,
        )


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 9), margin=st.sampled_from([None, 0.1, 0.4]))
def test_multi_similarity_by_loops(seed, rows, margin):
    x, labels = drawn(rows, seed=seed)
    want = []
    for positive, negative in pairs_of(x, labels):
        pulled, pushed = positive, negative
        if margin is not None:
            pulled = [s for s in positive if negative and s - margin < max(negative)]
            pushed = [s for s in negative if positive and s + margin > min(positive)]
        pull = math.log(1 + sum(math.exp(-3 * (s - 0.4)) for s in pulled)) / 3
        push = math.log(1 + sum(math.exp(7 * (s - 0.4)) for s in pushed)) / 7
        want.append(pull + push)
    settings = {"positive_scale": 3.0, "negative_scale": 7.0, "threshold": 0.4}
    settings["mining_margin"] = margin
    got = multi_similarity(x, labels, **settings, reduction="none")
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(multi_similarity(x, labels, **settings), got.mean())


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 9))
def test_circle_by_loops(seed, rows):
    x, labels = drawn(rows, seed=seed)
    want = []
    for positive, negative in pairs_of(x, labels):
        total = sum(
            math.exp(5 * (max(n + 0.3, 0) * (n - 0.3) - max(1.3 - p, 0) * (p - 0.7)))
            for n in negative
            for p in positive
        )
        want.append(math.log(1 + total))
    got = circle(x, labels, margin=0.3, scale=5.0, reduction="none")
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    count = max(sum(w > 0 for w in want), 1)
    mean = circle(x, labels, margin=0.3, scale=5.0)
    assert abs(mean.item() - sum(want) / count) < 1e-9


@BOTH
def test_blocks_of_rows_change_nothing(loss, monkeypatch):
    x, labels = drawn(13)
    want = loss(x, labels)
    monkeypatch.setattr(pair_weighting, "_ENTRIES", 13 * 3)
    got = loss(x, labels)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


@BOTH
def test_nothing_of_the_size_of_the_matrix_is_made_or_kept(loss, monkeypatch):
    monkeypatch.setattr(pair_weighting, "_ENTRIES", 2**12)
    x, labels = drawn(256, dtype=torch.float32)
    sizes, kept = [], []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else [out]
            sizes.extend(t.numel() for t in tensors if isinstance(t, torch.Tensor))
            return out

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with Sizes():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss(x, labels)
        value.backward()
    assert 0 < max(sizes) <= 2**12
    assert max(kept) <= x.numel()
    assert x.grad.abs().sum() > 0


@BOTH
def test_one_label_for_all_all_different_one_row_none(loss):
    x, _ = drawn(6)
    for rows, labels in [
        (x, torch.zeros(6, dtype=torch.long)),
        (x, torch.arange(6)),
        (x[:1], torch.zeros(1, dtype=torch.long)),
        (x[:0], torch.zeros(0, dtype=torch.long)),
    ]:
        value = loss(rows, labels)
        assert value == 0
        assert torch.autograd.grad(value, x)[0].abs().sum() == 0


def test_without_mining_one_side_is_enough():
    x = torch.tensor([[1.0, 0], [0, 1]], dtype=torch.float64)
    apart = multi_similarity(x, torch.tensor([0, 1]), mining_margin=None)
    assert abs(apart.item() - math.log(1 + math.exp(-25)) / 50) < 1e-12
    alike = multi_similarity(x, torch.tensor([0, 0]), mining_margin=None)
    assert abs(alike.item() - math.log(1 + math.exp(1)) / 2) < 1e-12


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1e-3, 50.0, 1e4])
def test_finite_at_any_scale_with_zero_and_equal_rows(loss, dtype, scale):
    x, labels = drawn(8)
    x = x.detach().to(dtype)
    x[2], x[3] = 0.0, x[4]
    x.requires_grad_()
    names = ["positive_scale", "negative_scale"] if loss is multi_similarity else ["scale"]
    value = loss(x, labels, **dict.fromkeys(names, scale))
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()
    assert (x.grad[2] == 0).all()


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_input_gives_a_non_finite_loss(loss, bad):
    x, labels = drawn(8)
    x = x.detach()
    x[1, 0] = bad
    assert not loss(x, labels).isfinite()


@BOTH
def test_autocast_leaves_the_cosines_wide(loss):
    x, labels = drawn(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(x, labels)
    torch.testing.assert_close(low, loss(x, labels))


@given(seed=st.integers(0, 2**31))
def test_order_and_length_of_rows_do_not_matter(seed):
    x, labels = drawn(7, seed=seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    for loss in (multi_similarity, circle):
        want = loss(x, labels, reduction="none")[order]
        got = loss(4.0 * x[order], 3 - labels[order], reduction="none")
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_second_derivatives(monkeypatch):
    monkeypatch.setattr(pair_weighting, "_ENTRIES", 8)
    x, labels = drawn(5, dim=3, classes=2)

    def smooth(x):
        return multi_similarity(x, labels, negative_scale=5.0)

    assert torch.autograd.gradcheck(smooth, x)
    assert torch.autograd.gradgradcheck(smooth, x)


@pytest.mark.compile
@BOTH
def test_several_blocks_compile_to_one_graph(loss, monkeypatch):
    monkeypatch.setattr(pair_weighting, "_ENTRIES", 24)
    x, labels = drawn(dtype=torch.float32)
    got = torch.compile(loss, fullgraph=True, backend="aot_eager")(x, labels)
    want = loss(x, labels)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


def test_errors_teach():
    with pytest.raises(ValueError, match=r"CircleLoss: scale must be > 0, got 0. It multiplies"):
        CircleLoss(scale=0.0)
    with pytest.raises(ValueError, match="MultiSimilarityLoss: negative_scale must be > 0, got -"):
        MultiSimilarityLoss(negative_scale=-1.0)


@BOTH
@pytest.mark.wording
def test_errors_about_shapes_teach(loss):
    x, labels = drawn()
    with pytest.raises(ValueError, match=r"labels: expected 12 rows, got shape \(5,\)"):
        loss(x, labels[:5])
    with pytest.raises(TypeError, match=r"labels: expected integers, got torch.float32"):
        loss(x, labels.float())
    with pytest.raises(ValueError, match=r"embeddings: expected 2 axes \(b, d\)"):
        loss(x[0], labels)
