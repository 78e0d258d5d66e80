"""How far rows have collapsed onto one direction."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from embedkit.analysis.graphs import smoothness as module
from embedkit.analysis.graphs.smoothness import smoothness
from embedkit.graph.propagation.limit import propagation_limit

Z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
seeds = st.integers(0, 2**31)


def test_hand_numbers():
    found = smoothness(Z)
    want = torch.tensor([0.544895, 0.544895, 0.382683]).double()
    torch.testing.assert_close(found.node, want, atol=1e-6, rtol=0)
    assert found.graph == pytest.approx(0.490825, abs=1e-6)
    assert found.standard_error == 0.0
    assert found.rows.tolist() == [0, 1, 2]
    assert smoothness(torch.tensor([[2.0, 0.0], [-1.0, 0.0]])).graph == 1.0
    assert smoothness(torch.eye(2)).graph == pytest.approx(0.5**0.5)
    assert smoothness(torch.ones(5, 3)).graph == 0.0


@pytest.mark.parametrize("entries", [1, 40, 2**22])
@given(seed=seeds)
def test_it_is_the_mean_over_scikit_learns_cosines(entries, seed, request):
    torch.manual_seed(seed)
    x = torch.randn(9, 3, dtype=torch.float64)
    distance = torch.from_numpy(((1 - cosine_similarity(x)).clip(0) / 2) ** 0.5)
    distance.fill_diagonal_(0.0)
    before, module._ENTRIES = module._ENTRIES, entries
    try:
        found, squares = smoothness(x), smoothness(x, mode="mean_square")
    finally:
        module._ENTRIES = before
    torch.testing.assert_close(found.node, distance.sum(dim=1) / 8)
    assert found.graph == pytest.approx(float(distance.sum()) / 72)
    torch.testing.assert_close(squares.node, distance.square().sum(dim=1) / 8)
    assert found.graph <= squares.graph**0.5 + 1e-12


@given(seed=seeds)
def test_only_directions_and_their_angles_count(seed):
    torch.manual_seed(seed)
    x = torch.randn(8, 4, dtype=torch.float64)
    scaled = x * torch.logspace(-9, 20, 8, dtype=torch.float64)[:, None]
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    order = torch.randperm(8)
    for mode in ("mean", "mean_square"):
        want = smoothness(x, mode=mode).node
        torch.testing.assert_close(smoothness(scaled, mode=mode).node, want)
        torch.testing.assert_close(smoothness(x @ turn, mode=mode).node, want)
        torch.testing.assert_close(smoothness(x[order], mode=mode).node, want[order])


def test_infinitely_many_hops_leave_one_direction():
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    assert smoothness(propagation_limit(path).propagate(Z)).graph < 1e-6


def test_zero_rows_are_half_way_from_all_others():
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    torch.testing.assert_close(smoothness(x).node, torch.tensor([0.25, 0.25, 0.5]).double())
    squares = smoothness(x, mode="mean_square").node
    torch.testing.assert_close(squares, torch.tensor([0.125, 0.125, 0.25]).double())


def test_a_sample_measures_some_nodes_and_says_how_well():
    torch.manual_seed(0)
    x = torch.randn(300, 4) + torch.arange(300)[:, None] / 100
    whole = smoothness(x)
    generator = torch.Generator().manual_seed(5)
    found = smoothness(x, sample=60, generator=generator)
    assert len(found.rows.unique()) == 60
    torch.testing.assert_close(found.node, whole.node[found.rows])
    assert found.graph == pytest.approx(float(found.node.mean()))
    assert smoothness(x, sample=300).standard_error == 0.0
    misses = [
        (smoothness(x, sample=60, generator=generator).graph - whole.graph) for _ in range(200)
    ]
    truth = torch.tensor(misses).square().mean().sqrt()
    assert found.standard_error == pytest.approx(float(truth), rel=0.3)
    assert smoothness(x, sample=60, mode="mean_square").standard_error > 0


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_compare_is_zero(n):
    found = smoothness(torch.ones(n, 3), sample=2)
    assert (found.graph, found.standard_error, len(found.node)) == (0.0, 0.0, n)


def test_half_precision_is_measured_in_float64():
    x = torch.randn(6, 4).bfloat16()
    torch.testing.assert_close(smoothness(x).node, smoothness(x.double()).node)


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match=r"x: expected 2 axes \(n, d\), got shape \(3,\)"):
        smoothness(torch.ones(3))
    with pytest.raises(TypeError, match="x: expected a floating-point tensor"):
        smoothness(torch.ones(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="smoothness: x must be finite, got NaN or infinity in 1"):
        smoothness(torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ValueError, match="mode must be one of mean, mean_square, got 'max'"):
        smoothness(Z, mode="max")
    with pytest.raises(ValueError, match=r"smoothness: sample must be >= 2, got 1. One node has"):
        smoothness(Z, sample=1)
