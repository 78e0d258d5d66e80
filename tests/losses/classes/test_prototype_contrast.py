"""ProtoNCE and the concentration of clusters."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_prototype_contrast import CASES
from torch.testing import assert_close

from embedkit.losses.classes.prototype_contrast import (
    ProtoNCELoss,
    cluster_concentration,
    proto_nce,
)
from embedkit.testing import check_module

POINTS = torch.tensor([[0, 0], [1, 0], [0, 2], [5, 5], [5, 6]], dtype=torch.float64)
CENTRES = torch.tensor([[1 / 3, 2 / 3], [5, 5.5]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 1, 1])


def close(got, want):
    assert_close(got, torch.tensor(want, dtype=got.dtype), rtol=0, atol=1e-6)


def test_concentration_hand_numbers():
    got = cluster_concentration(POINTS, LABELS, CENTRES, temperature=0.5, clip=0.0)
    close(got, [0.656426, 0.343574])
    raw = torch.tensor([0.490922, 0.256949], dtype=torch.float64)
    assert_close(got / got.sum(), raw / raw.sum(), rtol=0, atol=1e-6)


@given(seed=st.integers(0, 2**31), k=st.integers(2, 9))
def test_concentration_is_that_of_the_released_code_of_pcl(seed, k):
    torch.manual_seed(seed)
    x, centre = torch.randn(60, 3).double(), torch.randn(k, 3).double()
    label = torch.randint(k, (60,))
    want = np.zeros(k)
    for c in range(k):
        far = ((x[label == c] - centre[c]) ** 2).sum(1).numpy() ** 0.5
        if len(far) > 1:
            want[c] = far.mean() / np.log(len(far) + 10)
    alone = [c for c in range(k) if (label == c).sum() <= 1]
    want[alone] = want.max()
    want = want.clip(np.percentile(want, 10), np.percentile(want, 90))
    want = 0.2 * want / want.mean()
    got = cluster_concentration(x, label, centre, temperature=0.2, alpha=10.0)
    assert_close(got, torch.as_tensor(want))


def test_concentration_at_the_edge():
    alone = cluster_concentration(POINTS[:2], torch.tensor([0, 1]), CENTRES, temperature=0.3)
    close(alone, [0.3, 0.3])
    same = POINTS[:1].expand(4, 2)
    close(cluster_concentration(same, torch.tensor([0, 0, 1, 1]), same[:2]), [0.5, 0.5])
    assert cluster_concentration(POINTS[:0], LABELS[:0], CENTRES).isfinite().all()
    assert cluster_concentration(POINTS[:0], LABELS[:0], CENTRES[:0]).shape == (0,)
    half = cluster_concentration(POINTS.half().requires_grad_(), LABELS, CENTRES.half())
    assert half.dtype == torch.float32
    assert not half.requires_grad


def test_loss_hand_numbers():
    z = torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    prototypes = torch.tensor([[1, 0.2], [0, 1]], dtype=torch.float64)
    spread, labels = torch.tensor([0.4, 0.6], dtype=torch.float64), torch.tensor([0, 0, 1])
    close(
        proto_nce(z, prototypes, labels, spread, reduction="none"), [0.082656, 0.340687, 0.268801]
    )
    close(ProtoNCELoss()(z, prototypes, labels, spread), 0.230715)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 6), k=st.integers(1, 5))
def test_agrees_with_cross_entropy(seed, n, k):
    torch.manual_seed(seed)
    z = torch.randn(n, 3, dtype=torch.float64, requires_grad=True)
    centre, spread = torch.randn(k, 3).double(), torch.rand(k).double() + 0.1
    label = torch.randint(k, (n,))
    logits = F.normalize(z, dim=1) @ F.normalize(centre, dim=1).T / spread
    want, got = F.cross_entropy(logits, label), proto_nce(z, centre, label, spread)
    assert_close(got, want)
    assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (got, want)))
    name = torch.randperm(k)  # other names of the clusters
    assert_close(proto_nce(z, centre[name], name.argsort()[label], spread[name]), want)
    number = proto_nce(z, centre, label, 0.3)
    assert_close(number, F.cross_entropy(logits * spread / 0.3, label))


def test_clusters_are_constants_and_rows_can_be_left_out():
    z, centre = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    spread = torch.full((2,), 0.5, requires_grad=True)
    labels = torch.tensor([0, 1, -100, -100])
    loss = proto_nce(z, centre, labels, spread)
    loss.backward()
    assert centre.grad is None
    assert spread.grad is None
    assert (z.grad[2:] == 0).all()
    assert (z.grad[:2] != 0).any()
    assert_close(loss, proto_nce(z[:2], centre, labels[:2], spread))
    assert proto_nce(z, centre, torch.full((4,), -100), spread) == 0
    assert proto_nce(torch.zeros(1, 3), centre, labels[:1], torch.full((2,), 1e-30)).isfinite()


def test_contract():
    build, inputs, exempt = CASES[ProtoNCELoss]
    check_module(build, inputs, exempt=exempt | {"compile": "below"})
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    other = [
        x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs(4)[1:]
    ]
    assert torch.autograd.gradcheck(lambda z: build()(z, *other), rows)


@pytest.mark.compile
def test_contract_compiled():
    build, inputs, _ = CASES[ProtoNCELoss]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match=r"concentration must be > 0, got 0. It divides"):
        proto_nce(POINTS, CENTRES, LABELS, 0.0)
    with pytest.raises(
        ValueError, match=r"concentration: expected 2 rows.*One number per prototype"
    ):
        proto_nce(POINTS, CENTRES, LABELS, torch.ones(3))
    with pytest.raises(
        ValueError, match=r"proto_nce: labels must be in 0 to 1, one number per class, or -100"
    ):
        proto_nce(POINTS, CENTRES, LABELS + 1, 0.5)
    with pytest.raises(ValueError, match="weight: expected shape"):
        proto_nce(POINTS, CENTRES, LABELS, 0.5, weight=torch.ones(2))
    with pytest.raises(ValueError, match="number of prototypes must be >= 1, got 0"):
        proto_nce(POINTS[:0], CENTRES[:0], LABELS[:0], 0.5)
    for low in (0.0, -1.0):
        with pytest.raises(
            ValueError, match=rf"must be > 0, got 1 that are not, first {low:g} of prototype 1"
        ):
            proto_nce(POINTS, CENTRES, LABELS, torch.tensor([0.5, low]))
    assert proto_nce(POINTS, CENTRES, LABELS, torch.tensor([0.5, torch.nan])).isnan()
    for labels in (LABELS + 1, torch.where(LABELS == 1, -100, 0)):
        with pytest.raises(
            ValueError, match=r"cluster_concentration: labels must be in 0 to 1, one num.* class; g"
        ):
            cluster_concentration(POINTS, labels, CENTRES)
    with pytest.raises(ValueError, match="alpha must be > 1, got 1; log"):
        cluster_concentration(POINTS, LABELS, CENTRES, alpha=1.0)
    with pytest.raises(ValueError, match=r"clip must be in \[0, 0.5\], got 0.6"):
        cluster_concentration(POINTS, LABELS, CENTRES, clip=0.6)
    with pytest.raises(ValueError, match="centroids: expected last axis of size 2"):
        cluster_concentration(POINTS, LABELS, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"labels: expected 5 rows.*one cluster per row"):
        proto_nce(POINTS, CENTRES, LABELS[:2], 0.5)
    with pytest.raises(TypeError, match="labels: expected integers"):
        proto_nce(POINTS, CENTRES, LABELS.double(), 0.5)
