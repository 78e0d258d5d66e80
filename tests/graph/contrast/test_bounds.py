"""Bounds of graph convolutions: no adjacency of the box escapes, whatever its entries."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import Adjacency, adjacency_from_entries, build_adjacency, propagate, reweight
from embedkit.graph.contrast.bounds import (
    AdjacencyBounds,
    Interval,
    clip_to_range,
    edge_drop_bounds,
    interval_gcn,
    relu_relaxation,
)

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
X = torch.tensor([[1, -1], [0.5, 0.5], [-1, 1]], dtype=torch.float64)
W1 = torch.tensor([[1, -0.5], [0.5, 1]], dtype=torch.float64)
W2 = torch.tensor([[1, 0.5], [-1, 1]], dtype=torch.float64)
seeds = st.integers(0, 2**31)
SLACK = 1e-12  # rounding of float64


def dense(matrix):
    out = matrix.value.new_zeros(matrix.num_rows, matrix.num_cols)
    return out.index_put((matrix.row, matrix.col), matrix.value, accumulate=True)


def graph(generator, nodes, both=True):
    """A random graph, undirected or not, without loops."""
    there = torch.rand(nodes, nodes, generator=generator) < 0.4
    there = (there | there.T if both else there) & ~torch.eye(nodes, dtype=torch.bool)
    return there.nonzero().T


def inside(generator, bounds, corner):
    """A dense matrix of the box: drawn entry by entry, or one of its corners."""
    low, high = dense(bounds.lower), dense(bounds.upper)
    share = torch.rand(low.shape, dtype=low.dtype, generator=generator)
    return low + (high - low) * (share.round() if corner else share)


def weights(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_hand_numbers():
    bounds = edge_drop_bounds(PATH, 3, 0.5, dtype=torch.float64)
    want = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(dense(bounds.upper), want)
    torch.testing.assert_close(
        dense(bounds.lower).diag(), torch.tensor([1 / 2, 1 / 3, 1 / 2]).double()
    )
    low, high = interval_gcn(X, bounds, W1)
    want = (
        [[0.75, -0.25], [-2 / 3, 0], [-0.75, 0.25]],
        [[0.875, 0.125], [0.875, 0.625], [-0.625, 0.625]],
    )
    torch.testing.assert_close(torch.stack([low, high]), torch.tensor(want).double())
    low, high = interval_gcn(Interval(low.relu(), high.relu()), bounds, W2)
    want = (
        [[0.375, -0.875], [0, -0.875], [0.0625, -0.3125]],
        [[1.0625, 0], [1.21875, 0.625], [0.75, 0.625]],
    )
    torch.testing.assert_close(torch.stack([low, high]), torch.tensor(want).double())


@given(seed=seeds, p=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]), both=st.booleans())
def test_dropping_as_many_edges_as_allowed_stays_in_the_box(seed, p, both):
    generator = torch.Generator().manual_seed(seed)
    edges = graph(generator, 7, both)
    if both:
        edges = edges[:, edges[0] < edges[1]]
    kept, degree = torch.ones(edges.shape[1], dtype=torch.bool), torch.zeros(7)
    ends = (0, 1) if both else (1,)
    for end in ends:
        degree += edges[end].bincount(minlength=7)
    left = torch.minimum((degree - 1).clamp(min=0), (p * degree).round())
    for edge in torch.randperm(edges.shape[1], generator=generator):
        if all(left[edges[end, edge]] > 0 for end in ends):
            kept[edge] = False
            for end in ends:
                left[edges[end, edge]] -= 1

    def listed(some):
        return torch.cat([some, some.flip(0)], dim=1) if both else some

    bounds = edge_drop_bounds(listed(edges), 7, p)
    view = build_adjacency(listed(edges[:, kept]), num_nodes=7, norm="gcn")
    got = dense(view)
    assert bool((dense(bounds.lower) <= got).all())
    assert bool((got <= dense(bounds.upper)).all())
    clipped, outside = clip_to_range(view, bounds)
    assert not outside.any()
    assert torch.equal(dense(clipped), got)


@given(seed=seeds, slope=st.sampled_from([0.0, 0.25]), corner=st.booleans())
def test_no_adjacency_escapes_two_layers(seed, slope, corner):
    generator = torch.Generator().manual_seed(seed)
    bounds = edge_drop_bounds(graph(generator, 6), 6, 0.5, dtype=torch.float64)
    x, b = weights(generator, 6, 3), weights(generator, 4)
    first, second = weights(generator, 4, 3), weights(generator, 2, 4)
    hidden = interval_gcn(x, bounds, first, b)
    hidden = Interval(*(F.leaky_relu(end, slope) for end in hidden))
    low, high = interval_gcn(hidden, bounds, second)
    for _ in range(10):
        a = inside(generator, bounds, corner)
        h = F.leaky_relu(a @ x @ first.T + b, slope)
        assert bool((hidden.lower - SLACK <= h).all())
        assert bool((h <= hidden.upper + SLACK).all())
        out = a @ h @ second.T
        assert bool((low - SLACK <= out).all())
        assert bool((out <= high + SLACK).all())


@given(seed=seeds)
def test_bounds_of_exact_features_are_reached(seed):
    generator = torch.Generator().manual_seed(seed)
    bounds = edge_drop_bounds(graph(generator, 5), 5, 0.6, dtype=torch.float64)
    x, first = weights(generator, 5, 3), weights(generator, 2, 3)
    low, high = interval_gcn(x, bounds, first)
    sent, ends = x @ first.T, (dense(bounds.lower), dense(bounds.upper))
    for unit in range(2):
        least = torch.where(sent[:, unit] > 0, *ends) @ sent[:, unit]
        most = torch.where(sent[:, unit] > 0, *reversed(ends)) @ sent[:, unit]
        torch.testing.assert_close((low[:, unit], high[:, unit]), (least, most))


@given(seed=seeds)
def test_a_box_of_one_adjacency_has_no_width(seed):
    generator = torch.Generator().manual_seed(seed)
    whole = build_adjacency(graph(generator, 6), num_nodes=6, norm="gcn", dtype=torch.float64)
    x, first = weights(generator, 6, 3), weights(generator, 4, 3)
    want = dense(whole) @ x @ first.T
    low, high = interval_gcn(Interval(x, x), AdjacencyBounds(whole, whole), first)
    torch.testing.assert_close(low, want)
    torch.testing.assert_close(high, want)


@given(seed=seeds, slope=st.sampled_from([0.0, 0.25, 0.9]))
def test_the_lines_enclose_the_activation(seed, slope):
    generator = torch.Generator().manual_seed(seed)
    low, high = weights(generator, 2, 50, 4).sort(dim=0).values
    m, offset = relu_relaxation(low, high, slope)
    assert bool((offset >= 0).all())
    for share in torch.linspace(0, 1, 11):
        t = low + share * (high - low)
        out = F.leaky_relu(t, slope)
        assert bool((m * t <= out + SLACK).all())
        assert bool((out <= m * (t + offset) + SLACK).all())
    for end in (low, high):  # the upper line touches at both ends
        torch.testing.assert_close(m * (end + offset), F.leaky_relu(end, slope))


def test_the_lines_by_hand_and_at_the_kink():
    line = relu_relaxation(torch.tensor([[-1.0]]), torch.tensor([[2.0]]))
    assert [t.item() for t in line] == pytest.approx([2 / 3, 1.0])
    line = relu_relaxation(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), 0.25)
    assert [t.item() for t in line] == pytest.approx([0.75, 2 / 3])
    low = torch.tensor([[0.0, -1.0, 0.0, 1.0, -1e30, -1e-30]], requires_grad=True)
    high = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1e30, 1e-30]], requires_grad=True)
    m, offset = relu_relaxation(low, high)
    assert m.tolist()[0] == [1.0, 0.0, 1.0, 1.0, 0.5, 0.5]
    assert offset.tolist()[0] == pytest.approx([0, 0, 0, 0, 1e30, 1e-30])
    (m.sum() + offset.sum()).backward()
    assert low.grad.isfinite().all()
    assert high.grad.isfinite().all()
    unknown = torch.tensor([[torch.nan]])
    assert relu_relaxation(unknown, unknown).slope.isnan().all()


def test_sparse_features_and_loops():
    x = torch.where(torch.rand(3, 5) < 0.5, torch.randn(3, 5), 0.0).double()
    row, col = x.nonzero(as_tuple=True)
    first = torch.randn(4, 5).double()
    loops = torch.cat([PATH, torch.tensor([[2], [2]])], dim=1)
    bounds = edge_drop_bounds(loops, 3, 0.5, dtype=torch.float64)
    got = interval_gcn(adjacency_from_entries(row, col, x[row, col], 3, 5), bounds, first)
    plain = edge_drop_bounds(PATH, 3, 0.5, dtype=torch.float64)
    torch.testing.assert_close(got, interval_gcn(x, plain, first))


@given(seed=seeds, rate=st.sampled_from([0.2, 0.6]))
def test_clipping_goes_to_the_nearest_point_and_names_who_was_outside(seed, rate):
    generator = torch.Generator().manual_seed(seed)
    edges = graph(generator, 7)
    bounds = edge_drop_bounds(edges, 7, 0.3)
    kept = torch.rand(edges.shape[1], generator=generator) >= rate
    view = build_adjacency(edges[:, kept], num_nodes=7, norm="gcn")
    low, high, was = dense(bounds.lower), dense(bounds.upper), dense(view)
    clipped, outside = clip_to_range(view, bounds)
    torch.testing.assert_close(dense(clipped), was.clamp(low, high))
    far = (was > high * 1.0001) | (was < low * 0.9999)
    assert torch.equal(outside, far.any(dim=1))
    nodes = torch.randn(7, 2, requires_grad=True)
    propagate(nodes, clipped).square().sum().backward()
    want = 2 * was.clamp(low, high).T @ was.clamp(low, high) @ nodes
    torch.testing.assert_close(nodes.grad, want.detach())


def test_an_edge_that_the_graph_has_not_is_outside():
    bounds = edge_drop_bounds(PATH, 3, 0.5)
    faint = torch.tensor([1, 1, 1, 1, 1e-6])
    strange = torch.cat([PATH, torch.tensor([[0], [2]])], dim=1)
    view = build_adjacency(strange, faint, norm="gcn")
    clipped, outside = clip_to_range(view, bounds)
    assert outside.tolist() == [False, False, True]  # 2 receives from a stranger
    assert dense(view)[2, 0] > 0 == dense(clipped)[2, 0]


def test_too_small_is_outside_too():
    bounds = edge_drop_bounds(PATH, 3, 0.5)
    whole = build_adjacency(PATH, norm="gcn")
    clipped, outside = clip_to_range(reweight(whole, whole.value * 0.9), bounds)
    assert outside.all()
    torch.testing.assert_close(dense(clipped).diag(), dense(bounds.lower).diag())


@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_a_graph_without_edges(nodes):
    none = torch.zeros(2, 0, dtype=torch.long)
    bounds = edge_drop_bounds(none, nodes, 0.5)
    torch.testing.assert_close(dense(bounds.lower), torch.eye(nodes))
    torch.testing.assert_close(dense(bounds.upper), torch.eye(nodes))
    view = build_adjacency(none, num_nodes=nodes, norm="gcn")
    clipped, outside = clip_to_range(view, bounds)
    assert isinstance(clipped, Adjacency)
    assert not outside.any()
    assert interval_gcn(torch.ones(nodes, 2), bounds, torch.ones(3, 2)).lower.shape == (nodes, 3)


@pytest.mark.wording
@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: edge_drop_bounds(PATH, 3, 1.5), ValueError, r"p must be in \[0, 1\], got 1.5. It"),
        (
            lambda: edge_drop_bounds(PATH, 2, 0.5),
            ValueError,
            r"edge_index must lie in \[0, 1\] for",
        ),
        (
            lambda: edge_drop_bounds(PATH.t(), 3, 0.5),
            ValueError,
            r"It looks transposed: edge_index",
        ),
        (
            lambda: edge_drop_bounds(PATH.float(), 3, 0.5),
            TypeError,
            "expected integers, got torch.f",
        ),
        (
            lambda: edge_drop_bounds(torch.cat([PATH, PATH], 1), 3, 0.5),
            ValueError,
            "every edge must be listed once, got 4 repeated. torch_geometric.utils.coalesce",
        ),
        (
            lambda: clip_to_range(
                build_adjacency(PATH, num_nodes=4), edge_drop_bounds(PATH, 3, 0.5)
            ),
            ValueError,
            r"must have one shape, got \(4, 4\), \(3, 3\) and \(3, 3\). Bounds belong to one graph",
        ),
        (
            lambda: clip_to_range(PATH, edge_drop_bounds(PATH, 3, 0.5)),
            TypeError,
            "clip_to_range: expected an Adjacency, got Tensor",
        ),
        (
            lambda: interval_gcn(X, edge_drop_bounds(PATH, 3, 0.5), torch.ones(2, 3)),
            ValueError,
            r"nodes: expected last axis of size 3, got shape \(3, 2\)",
        ),
        (
            lambda: interval_gcn(
                build_adjacency(PATH), edge_drop_bounds(PATH, 3, 0.5), torch.ones(2, 4)
            ),
            ValueError,
            "nodes: expected 4 columns of sparse features, got 3",
        ),
        (
            lambda: interval_gcn(Interval(X, X[:, :1]), edge_drop_bounds(PATH, 3, 0.5), W1),
            ValueError,
            "An interval has two ends",
        ),
        (
            lambda: relu_relaxation(X, X, 1.0),
            ValueError,
            "relu_relaxation: negative_slope must be >= 0 and < 1, got 1. 0 is ReLU",
        ),
        (lambda: relu_relaxation(X, X[:1]), ValueError, "Two ends of each unit's interval"),
        (
            lambda: relu_relaxation(X, X.long()),
            TypeError,
            "upper: expected a floating-point tensor",
        ),
    ],
)
def test_errors_teach(call, error, words):
    with pytest.raises(error, match=words):
        call()
