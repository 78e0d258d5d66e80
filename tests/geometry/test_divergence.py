"""Distances of samples against scikit-learn, SciPy and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from sklearn.metrics.pairwise import rbf_kernel

from embedkit.geometry import _kernel_sum
from embedkit.geometry.divergence import coral_distance, mmd, sliced_wasserstein

DISTANCES = {
    "mmd": mmd,
    "mmd, unbiased": lambda x, y: mmd(x, y, unbiased=True),
    "coral": coral_distance,
    "wasserstein": lambda x, y: sliced_wasserstein(x, y, directions=torch.eye(3, dtype=x.dtype)),
    "wasserstein 1": lambda x, y: sliced_wasserstein(
        x, y, directions=torch.eye(3, dtype=x.dtype), order=1
    ),
}
every_distance = pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)


def samples(n=7, m=5, d=3):
    return torch.randn(n, d).double() + 10, 2 * torch.randn(m, d).double() + 10


@pytest.mark.parametrize("entries", [1, 12, 2**20])
@pytest.mark.parametrize("unbiased", [False, True])
def test_mmd_is_sklearns_kernels(entries, unbiased, monkeypatch):
    monkeypatch.setattr(_kernel_sum, "_ENTRIES", entries)
    x, y = samples()
    rates = [0.5, 0.05]

    def mean(a, b, same):
        kernel = sum(rbf_kernel(a, b, gamma=rate) for rate in rates) / 2
        if same and unbiased:
            return (kernel.sum() - len(a)) / (len(a) * (len(a) - 1))
        return kernel.mean()

    want = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    got = mmd(x, y, bandwidth=[(0.5 / rate) ** 0.5 for rate in rates], unbiased=unbiased)
    assert got.item() == pytest.approx(want, rel=1e-9)


def test_mmds_own_bandwidths():
    x, y = samples()
    rows = torch.cat([x, y])
    squared = torch.cdist(rows, rows).square()
    mean = squared.sum() / (12 * 11)
    bandwidths = [(mean * factor / 2).sqrt().item() for factor in (0.25, 0.5, 1, 2, 4)]
    torch.testing.assert_close(mmd(x, y), mmd(x, y, bandwidth=bandwidths))
    torch.testing.assert_close(mmd(1e3 * x, 1e3 * y), mmd(x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mmd_at_both_ends_of_the_numbers(dtype):
    x, y = (t.to(dtype) for t in samples())
    want = mmd(x, y)
    ends = torch.finfo(dtype)
    for scale in (ends.tiny / ends.eps, ends.tiny**0.5, ends.max**0.5, ends.max / 1e3):
        small, other = ((scale * t).requires_grad_() for t in (x, y))
        got = mmd(small, other)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        got.backward()
        assert small.grad.isfinite().all()
        assert small.grad.any()
    for bandwidth, limit in ((1e-200, 1 / 7 + 1 / 5), (1e-20, 1 / 7 + 1 / 5), (1e200, 0.0)):
        x.grad = None
        got = mmd(x.requires_grad_(), y, bandwidth=bandwidth)
        assert got.item() == pytest.approx(limit, abs=1e-6)
        got.backward()
        assert x.grad.isfinite().all()
    tiny = torch.full((3, 2), ends.tiny, dtype=dtype, requires_grad=True)
    mmd(tiny, -tiny.detach()).backward()
    assert not tiny.grad.any()


@given(seed=st.integers(0, 2**31), power=st.integers(-3, 3))
def test_copies_of_one_row_have_no_gradient(seed, power):
    torch.manual_seed(seed)
    row = 10.0**power * torch.randn(1, 64)
    x = row.repeat(64, 1).requires_grad_()
    value = mmd(x, row.repeat(50, 1))
    value.backward()
    assert value == 0
    assert not x.grad.any()


def test_bandwidths_come_as_numbers_or_tensors():
    x, y = samples()
    want = mmd(x, y, bandwidth=0.5)
    for one in (torch.tensor(0.5, requires_grad=True), torch.tensor([0.5]), np.float64(0.5), [0.5]):
        assert mmd(x, y, bandwidth=one) == want
    several = mmd(x, y, bandwidth=torch.tensor([0.5, 2.0]))
    assert several == mmd(x, y, bandwidth=[0.5, 2.0])


@pytest.mark.compile
def test_a_bandwidth_that_changes_makes_two_graphs():
    torch.compiler.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    x, y = samples()
    compiled = torch.compile(mmd, fullgraph=True, backend=count)
    for bandwidth in (1.0, 0.5, 0.25, 2.0):
        torch.testing.assert_close(
            compiled(x, y, bandwidth=bandwidth), mmd(x, y, bandwidth=bandwidth)
        )
    assert len(graphs) <= 2


@pytest.mark.wording
def test_numpys_numbers_are_bandwidths():
    x, y = samples()
    for one in (np.float32(0.5), np.array([0.5])):
        assert mmd(x, y, bandwidth=one) == mmd(x, y, bandwidth=0.5)


def test_unbiased_is_zero_on_average():
    values = torch.stack([mmd(*torch.randn(2, 8, 2), unbiased=True) for _ in range(200)])
    assert values.mean().abs() < 3 * values.std() / 200**0.5
    assert values.min() < 0


def test_coral_is_numpys_covariance():
    x, y = samples()
    want = np.square(np.cov(x.T) - np.cov(y.T)).sum() / (4 * 9)
    assert coral_distance(x, y).item() == pytest.approx(want)


@given(n=st.integers(1, 9), m=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_slices_are_scipys_transport(n, m, seed):
    torch.manual_seed(seed)
    x, y, directions = *samples(n, m), torch.randn(4, 3).double()
    unit = directions / directions.norm(dim=1, keepdim=True)
    want = np.mean([wasserstein_distance((x @ u).numpy(), (y @ u).numpy()) for u in unit])
    got = sliced_wasserstein(x, y, directions=directions, order=1)
    assert got.item() == pytest.approx(want)
    repeated = sliced_wasserstein(x.repeat(m, 1), y.repeat(n, 1), directions=directions)
    torch.testing.assert_close(sliced_wasserstein(x, y, directions=directions), repeated)


def test_slices_of_a_shift():
    x = torch.randn(50, 4).double()
    shift = torch.tensor([3.0, 0, 0, 4.0]).double()
    generator = torch.Generator().manual_seed(0)
    got = sliced_wasserstein(x, x + shift, num_projections=20_000, generator=generator)
    assert got.item() == pytest.approx(25 / 4, rel=0.03)


@every_distance
@given(seed=st.integers(0, 2**31))
def test_symmetric_and_blind_to_order_and_origin(distance, seed):
    torch.manual_seed(seed)
    x, y = samples()
    want = distance(x, y)
    torch.testing.assert_close(distance(y, x), want)
    torch.testing.assert_close(distance(x.flip(0), y.roll(2, 0)), want)
    torch.testing.assert_close(distance(x + 100, y + 100), want)
    if distance is not DISTANCES["mmd, unbiased"]:
        torch.testing.assert_close(distance(x, x), torch.zeros_like(want))


@every_distance
def test_gradients_match_finite_differences(distance):
    if "mmd" in {name for name, f in DISTANCES.items() if f is distance}.pop():
        x, y = (t.requires_grad_() for t in samples())
        for unbiased in (False, True):
            torch.autograd.gradcheck(
                lambda a, b, u=unbiased: mmd(a, b, bandwidth=[1.0, 3.0], unbiased=u), (x, y)
            )
        return
    torch.autograd.gradcheck(distance, tuple(t.requires_grad_() for t in samples()))


@every_distance
@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_few_rows_and_equal_rows_stay_finite(distance, sizes, dtype):
    x, y = (torch.ones(rows, 3, dtype=dtype, requires_grad=True) for rows in sizes)
    value = distance(x, y)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert x.grad.isfinite().all()
    assert y.grad.isfinite().all()


def test_an_empty_sample_counts_nothing():
    x = torch.randn(3, 3)
    for distance in (mmd, coral_distance, sliced_wasserstein):
        assert distance(x, x[:0]).item() == 0


def test_bad_rows_are_not_silent():
    x = torch.randn(4, 3)
    for distance in (mmd, coral_distance, sliced_wasserstein):
        assert not distance(x * torch.nan, x).isfinite()


def test_nothing_of_all_pairs_is_kept():
    kept = []
    x, y = torch.randn(300, 4, requires_grad=True), torch.randn(200, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        mmd(x, y)
    assert max(kept) <= 500 * 4


def test_a_row_is_at_zero_from_itself_whatever_rounding_says():
    x, y = 100 * torch.randn(2, 200, 8)
    want = mmd(x.double(), y.double(), bandwidth=0.1, unbiased=True)
    got = mmd(x, y, bandwidth=0.1, unbiased=True)
    torch.testing.assert_close(got.double(), want, atol=1e-6, rtol=0)


def test_gradients_are_made_where_one_is_asked_for(monkeypatch):
    monkeypatch.setattr(_kernel_sum, "_ENTRIES", 20)
    x, y = samples()
    wanted = []
    made = _kernel_sum._gradients

    def watch(x, y, want):
        wanted.append(want)
        return made(x, y, want)

    monkeypatch.setattr(_kernel_sum, "_gradients", watch)
    plain = mmd(x, y)
    assert wanted == [False] * 3
    with torch.no_grad():
        assert mmd(x.requires_grad_(), y) == plain
    assert wanted == [False] * 6
    mmd(x, y).backward()
    assert wanted[6:] == [True, False, True]


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(2, 3)
    for distance in (mmd, coral_distance, sliced_wasserstein):
        with pytest.raises(ValueError, match=r"y: expected last axis of size 3.* one space"):
            distance(x, x[:, :2])
        with pytest.raises(TypeError, match=r"one dtype, got torch.float32 and torch.float64"):
            distance(x, x.double())
        with pytest.raises(TypeError, match=r"x: expected a floating-point tensor"):
            distance(x.long(), x)
        with pytest.raises(TypeError, match=r"y: expected a tensor, got NoneType"):
            distance(x, None)
    with pytest.raises(
        ValueError, match=r"mmd: bandwidth must be > 0, got -1. In units of distance"
    ):
        mmd(x, x, bandwidth=-1)
    with pytest.raises(ValueError, match=r"mmd: bandwidth must be > 0, got nan"):
        mmd(x, x, bandwidth=[1.0, np.nan])
    with pytest.raises(ValueError, match=r"bandwidth must not be an empty list"):
        mmd(x, x, bandwidth=[])
    with pytest.raises(ValueError, match=r"bandwidth must not be an empty list"):
        mmd(x, x, bandwidth=torch.ones(0))
    with pytest.raises(ValueError, match=r"sliced_wasserstein: order must be 1 or 2, got 3"):
        sliced_wasserstein(x, x, order=3)
    with pytest.raises(ValueError, match=r"num_projections must be >= 1, got 0"):
        sliced_wasserstein(x, x, num_projections=0)
    with pytest.raises(ValueError, match=r"directions: expected last axis of size 3"):
        sliced_wasserstein(x, x, directions=torch.rand(2, 2))
