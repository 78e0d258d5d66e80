"""Prototypes and neighbourhoods: hand numbers, other libraries, what must not matter."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_few_shot import CASES
from sklearn.neighbors import NearestCentroid, NearestNeighbors

from embedkit.batch import EpisodeSampler, split_episode
from embedkit.losses.classes.few_shot import (
    ICNNLoss,
    ProtoTripletLoss,
    icnn_score,
    proto_triplet_loss,
    prototypical_logits,
)
from embedkit.ops import segment_mean
from embedkit.testing import CHECKS, check_module

HALVES, ALTERNATING = [0] * 4 + [1] * 4, [0, 1] * 4
LINE = list(range(8))
# points, labels, k, radius: compactness, separation, purity, score, loss
HAND = [
    ([0, 1, 4, 5], [0, 0, 1, 1], 4, None, (0.708333, 0.875, 1, 0.895833, 0.110001)),
    (LINE, HALVES, 2, 3, (0.75, 1, 0.875, 0.875, 0.133531)),
    (LINE, HALVES, 4, 5, (0.409722, 0.65625, 0.6875, 0.610243, 0.493898)),
    (LINE, ALTERNATING, 2, None, (0, 1, 0.125, 0.3125, 1.163151)),
    ([0, 0.1, 0.2, 0.3, 100, 100.1, 100.2, 100.3], HALVES, 2, 3, (1, 1, 1, 1, 0)),
]


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("check", [c for c in CHECKS if c != "compile"])
@pytest.mark.parametrize("module", CASES, ids=lambda m: m.__name__)
def test_promises(module, check):
    check_module(*CASES[module], exempt={name: "one at a time" for name in CHECKS if name != check})


@pytest.mark.compile
@pytest.mark.parametrize("module", CASES, ids=lambda m: m.__name__)
def test_compiles(module):
    check_module(*CASES[module], exempt={n: "one at a time" for n in CHECKS if n != "compile"})


@pytest.mark.parametrize(("points", "labels", "k", "radius", "want"), HAND)
def test_hand_numbers_of_the_score(points, labels, k, radius, want):
    x = torch.tensor(points, dtype=torch.float64)[:, None].requires_grad_()
    labels = torch.tensor(labels)
    found, loss = icnn_score(x, labels, k=k, radius=radius), ICNNLoss(k, radius)(x, labels)
    got = torch.stack([found.compactness, found.separation, found.purity, found.score, loss])
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype), rtol=0, atol=2e-6)
    loss.backward()
    assert x.grad.isfinite().all()
    assert (float(loss.detach()) > 1e-9) == bool(x.grad.abs().sum() > 1e-9)


def test_hand_numbers_of_the_triplets():
    query = torch.tensor([[0.0, 0], [1, 0], [0, 2]]).double()
    prototypes, labels = torch.tensor([[0, 0.5], [2, 0], [0, 3]]).double(), torch.tensor([0, 0, 2])
    rows = proto_triplet_loss(query, labels, prototypes, reduction="none")
    want = torch.tensor([0, 0.618034, 0], dtype=torch.float64)
    torch.testing.assert_close(rows, want, rtol=0, atol=2e-6)
    mean = proto_triplet_loss(query, labels, prototypes)
    torch.testing.assert_close(mean, want.sum() / 3, rtol=0, atol=2e-6)
    alike = ProtoTripletLoss(0.7)(query * 0, labels, prototypes * 0)
    torch.testing.assert_close(alike, torch.tensor(0.7).double())
    assert ProtoTripletLoss(0.0)(query, torch.tensor([0, 0, 0]), prototypes) > 0
    nearest = prototypical_logits(query, prototypes).argmax(dim=1)
    assert ProtoTripletLoss(0.0)(query, nearest, prototypes) == 0


def test_triplets_agree_with_pytorch_metric_learning():
    pml = {n: importlib.import_module(f"pytorch_metric_learning.{n}") for n in
           ("losses", "miners", "distances", "reducers")}  # fmt: skip
    query, prototypes = draw(0, 12, 6).requires_grad_(), draw(1, 4, 6).requires_grad_()
    labels, distance = torch.arange(12) % 4, pml["distances"].LpDistance(normalize_embeddings=False)
    mined = pml["miners"].BatchHardMiner(distance=distance)(
        query, labels, prototypes, torch.arange(4)
    )
    peer = pml["losses"].TripletMarginLoss(
        margin=0.5, distance=distance, reducer=pml["reducers"].MeanReducer()
    )
    want = peer(query, labels, mined, prototypes, torch.arange(4))
    got = proto_triplet_loss(query, labels, prototypes)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(got, (query, prototypes)),
        torch.autograd.grad(want, (query, prototypes)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_logits_name_the_nearest_centroid():
    support, labels, query = draw(0, 20, 5), torch.arange(20) % 4, draw(1, 30, 5)
    logits = prototypical_logits(query, segment_mean(support, labels, 4))
    want = NearestCentroid().fit(support, labels).predict(query)
    assert logits.argmax(dim=1).tolist() == want.tolist()
    difference = query[:, None] - segment_mean(support, labels, 4)
    torch.testing.assert_close(logits, -difference.square().sum(dim=-1))


def loop_score(x, labels, reference, reference_labels, k, radius, alone):
    """The score by loops over scikit-learn's neighbours, from the description."""
    there = len(reference) - alone
    found = NearestNeighbors(n_neighbors=there + alone).fit(reference).kneighbors(x)[1]
    whole, k = k + 1 >= there, min(k, there - 1)
    radius, near_rows, far_rows, hits = min(radius or k + 1, there), [], [], 0
    for i, row in enumerate(found):
        near = [j for j in row if not (alone and j == i)][:radius]
        d = [(((x[i] - reference[j]) ** 2).sum() + 1e-6) ** 0.5 for j in near]
        same = [bool(labels[i] == reference_labels[j]) for j in near]
        first = min((v for v, s in zip(d, same, strict=True) if not s), default=torch.inf)
        ratio = [v / first for v in d[:k]]
        ratio = [r / max(1.0, *ratio) for r in ratio]
        own = [r for r, s in zip(ratio, same, strict=False) if s]
        near_rows += [sum(own) / len(own)] if own else []
        far_rows.append([v for v, s in zip(d[:k], same, strict=False) if not s])
        hits += sum(same[:k])
    near = 1 - (sum(near_rows) / len(near_rows) if near_rows else 0.0)
    means = [sum(row) / len(row) for row in far_rows if row]
    far = sum(means) / len(means) / max(v for row in far_rows for v in row) if means else 1.0
    return float(((near + far) / 2 + (1.0 if whole else hits / len(x) / k)) / 2)


@given(seed=st.integers(0, 2**31), k=st.integers(1, 6), extra=st.integers(0, 4))
def test_score_equals_loops(seed, k, extra):
    x, other = draw(seed, 9, 3), draw(seed + 1, 6, 3)
    labels, other_labels = torch.arange(9) % 3, torch.arange(6) % 3
    radius = k + extra if extra else None
    for reference, its_labels in ((None, None), (other, other_labels)):
        got = icnn_score(x, labels, reference, its_labels, k=k, radius=radius).score
        alone = reference is None
        want = loop_score(
            x.numpy(), labels, (x if alone else other).numpy(),
            labels if alone else its_labels, k, radius, alone,
        )  # fmt: skip
        assert float(got) == pytest.approx(want, abs=1e-12)


@given(seed=st.integers(0, 2**31), scale=st.floats(10, 1e4))
def test_what_must_not_matter(seed, scale):
    x, labels = draw(seed, 10, 4), torch.arange(10) % 3
    turn, order = torch.linalg.qr(draw(seed + 1, 4, 4))[0], torch.randperm(10)
    want = icnn_score(x, labels)
    assert 0 < want.score <= 1
    for changed in (x @ turn, x + draw(seed + 2, 4), x[order]):
        its = labels[order] if changed.shape == x.shape and (changed == x[order]).all() else labels
        torch.testing.assert_close(icnn_score(changed, its), want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(icnn_score(x * scale, 7 - labels), want, rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 2**31))
def test_the_nearest_negative_is_the_hardest(seed):
    query, prototypes, labels = draw(seed, 8, 3), draw(seed + 1, 4, 3), torch.arange(8) % 4
    rows = proto_triplet_loss(query, labels, prototypes, reduction="none")
    other = (labels + 1) % 4
    easier = F.triplet_margin_loss(
        query, prototypes[labels], prototypes[other], margin=0.5, reduction="none"
    )
    assert (rows >= easier - 1e-5).all()
    right = prototypical_logits(query, prototypes).argmax(dim=1) == labels
    assert right[rows == 0].all()


def test_an_episode_end_to_end():
    data, classes = draw(0, 60, 4), torch.arange(60) % 6
    rows = torch.as_tensor(next(iter(EpisodeSampler(classes, 3, 2, 5, num_episodes=1))))
    support, query, labels = split_episode(data[rows].requires_grad_(), 3, 2, 5)
    assert (split_episode(classes[rows], 3, 2, 5).query.unflatten(0, (3, 5)).diff(dim=1) == 0).all()
    prototypes = segment_mean(support, torch.arange(3).repeat_interleave(2), 3)
    losses = [
        F.cross_entropy(prototypical_logits(query, prototypes), labels),
        proto_triplet_loss(query, labels, prototypes),
        ICNNLoss(k=1)(query, labels, prototypes, torch.arange(3)),
    ]
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, support, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 6])
def test_degenerate_sets_stay_finite(dtype, rows):
    for x in (torch.zeros(rows, 4), draw(0, rows, 4), torch.full((rows, 4), 100.0)):
        x = x.to(dtype).requires_grad_()
        for labels in (torch.zeros(rows).long(), torch.arange(rows) % 2, torch.arange(rows)):
            prototypes = segment_mean(x, labels, max(rows, 2))
            loss = ICNNLoss()(x, labels) + ICNNLoss()(x, labels, x, labels)
            loss = loss + proto_triplet_loss(x, labels, prototypes)
            (gradient,) = torch.autograd.grad(loss, x)
            assert loss.isfinite()
            assert loss.dtype == torch.float32
            assert gradient.isfinite().all()


def test_one_shot_support_has_no_same_class():
    found = icnn_score(draw(0, 6, 3), torch.arange(6), k=3)
    assert (found.compactness, found.purity) == (1, 0)


def test_nan_is_not_hidden():
    x, labels = draw(0, 6, 3), torch.arange(6) % 2
    x[2, 1] = torch.nan
    assert not ICNNLoss(k=2)(x, labels).isfinite()
    assert not ProtoTripletLoss()(x, labels, draw(1, 2, 3)).isfinite()


@pytest.mark.wording
def test_errors_teach():
    x, labels, prototypes = draw(0, 4, 3), torch.arange(4) % 2, draw(1, 2, 3)
    with pytest.raises(ValueError, match="prototypes: expected at least 2 classes, got 1"):
        proto_triplet_loss(x, labels, prototypes[:1])
    with pytest.raises(IndexError, match="expected 0 to 1, a row of prototypes each, got 0 to 6"):
        proto_triplet_loss(x, labels * 6, prototypes)
    with pytest.raises(ValueError, match=r"ProtoTripletLoss: margin must be >= 0, got -1"):
        ProtoTripletLoss(-1.0)
    with pytest.raises(ValueError, match="ICNNLoss: k must be >= 1, got 0"):
        ICNNLoss(0)
    with pytest.raises(ValueError, match="ICNNLoss: radius must be >= 1, got 0"):
        ICNNLoss(2, 0)
    with pytest.raises(ValueError, match="reference_labels: expected both or neither, got one"):
        icnn_score(x, labels, prototypes)
    with pytest.raises(ValueError, match=r"labels: expected 4 rows, got shape \(3,\)"):
        icnn_score(x, labels[:3])
    with pytest.raises(TypeError, match="labels: expected integers, got torch"):
        icnn_score(x, labels.float())
    with pytest.raises(ValueError, match="prototypes: expected last axis of size 3"):
        prototypical_logits(x, prototypes[:, :2])
