"""Node compactness: below the margin of every view that the bounds are for."""

import pytest
import torch
import torch.nn.functional as F
from graph.cases_compactness import CASES, compared, encoder, features, ring, view
from graph.contrast.test_bounds import PATH, SLACK, W1, W2, X, dense, graph, inside, seeds, weights
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import adjacency_from_entries, build_adjacency
from embedkit.graph.contrast.bounds import AdjacencyBounds, edge_drop_bounds
from embedkit.graph.contrast.compactness import (
    MODES,
    NodeCompactness,
    node_compactness,
    node_margin,
)
from embedkit.graph.propagation.encoder import GCNEncoder
from embedkit.testing import check_module

OTHER = torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=torch.float64)
TWO = [(W1, None), (W2, None)]


def close(got, want):
    torch.testing.assert_close(got, torch.tensor(want, dtype=got.dtype), rtol=0, atol=1e-6)


def operator(matrix):
    """A dense matrix as an adjacency that stores all places, also those that are 0."""
    size = matrix.shape[0]
    place = torch.arange(size * size)
    row, col = place // size, place % size
    return adjacency_from_entries(row, col, matrix[row, col], size, size)


def drawn(seed, layers=1, nodes=6):
    """A box, features, weights with biases, and embeddings of another view."""
    generator = torch.Generator().manual_seed(seed)
    bounds = edge_drop_bounds(graph(generator, nodes), nodes, 0.5, dtype=torch.float64)
    pairs = [
        (weights(generator, 4, 3), weights(generator, 4)),
        (weights(generator, 2, 4), weights(generator, 2)),
    ]
    return generator, bounds, weights(generator, nodes, 3), pairs, weights(generator, nodes, 2)


def embed(a, x, pairs, slope):
    for weight, bias in pairs:
        x = F.leaky_relu(a @ x @ weight.T + bias, slope)
    return x


def test_hand_numbers():
    bounds = edge_drop_bounds(PATH, 3, 0.5, dtype=torch.float64)
    whole = build_adjacency(PATH, norm="gcn", dtype=torch.float64)
    a = dense(whole)
    z = (a @ (a @ X @ W1.T).relu() @ W2.T).relu()
    close(node_margin(z, OTHER), [0.339468, 0.112313, 0.032478])
    for edges in (whole, PATH):
        close(node_compactness(X, edges, OTHER, bounds, TWO), [0.323904, 0.104309, -0.221633])
        certified = node_compactness(X, edges, OTHER, bounds, TWO, mode="certified")
        close(certified, [0.242417, 0.0, -0.561453])


def test_the_released_score_by_its_definition():
    """One node at a time, dense, as the spec of the released code has it."""
    generator, bounds, x, pairs, other = drawn(3)
    (w1, b1), (w2, b2) = pairs
    slope, low, high = 0.25, dense(bounds.lower), dense(bounds.upper)
    a = inside(generator, bounds, corner=False)

    def relaxed(h, w, b):
        q = h @ w.T
        top = high @ q.relu() - low @ (-q).relu() + b
        bottom = low @ q.relu() - high @ (-q).relu() + b
        m, shift = torch.ones_like(top), torch.zeros_like(top)
        m[top <= 0] = slope
        both = (bottom < 0) & (top > 0)
        u, v = top[both], bottom[both]
        m[both] = (u - slope * v) / (u - v)
        shift[both] = (slope - 1) * u * v / (u - slope * v)
        return m, shift

    h1 = F.leaky_relu(a @ x @ w1.T + b1, slope)
    (m1, s1), (m2, s2) = relaxed(x, w1, b1), relaxed(h1, w2, b2)
    unit = F.normalize(other)
    t, beta, gamma = torch.zeros(3, 6, dtype=torch.float64)
    for i in range(6):
        c = unit[i] - (unit.sum(0) - unit[i]) / 5
        back = m2[i] * c
        gamma[i] = back @ (torch.where(c >= 0, 0.0, s2[i]) + b2)
        omega = w2.T @ back
        line = m1[i] * omega
        beta[i] = line @ (torch.where(omega >= 0, 0.0, s1[i]) + b1)
        t[i] = (x[i] @ w1.T) @ line
    got = node_compactness(
        x, operator(a), other, bounds, pairs, negative_slope=slope, mode="source_weights"
    )
    torch.testing.assert_close(got, a @ (a @ t + beta) + gamma)


@given(seed=seeds, slope=st.sampled_from([0.0, 0.25]), corner=st.booleans())
def test_no_augmentation_in_the_box_escapes(seed, slope, corner):
    generator, bounds, x, pairs, other = drawn(seed)
    for _ in range(3):
        a = inside(generator, bounds, corner)
        margin = node_margin(embed(a, x, pairs, slope), other)
        bound = {
            mode: node_compactness(
                x, operator(a), other, bounds, pairs, negative_slope=slope, mode=mode
            )
            for mode in ("sampled", "certified")
        }
        assert bool((bound["sampled"] <= margin + SLACK).all())
        assert bool((bound["certified"] <= margin + SLACK).all())


@given(seed=seeds, slope=st.sampled_from([0.0, 0.25]))
def test_certified_does_not_depend_on_the_view(seed, slope):
    generator, bounds, x, pairs, other = drawn(seed)
    first, second = (
        node_compactness(
            x,
            operator(inside(generator, bounds, corner)),
            other,
            bounds,
            pairs,
            negative_slope=slope,
            mode="certified",
        )
        for corner in (False, True)
    )
    torch.testing.assert_close(first, second)


@given(seed=seeds, slope=st.sampled_from([0.0, 0.25]))
def test_in_a_box_of_one_adjacency_bounds_are_the_margin(seed, slope):
    _, bounds, x, pairs, other = drawn(seed)
    box = AdjacencyBounds(bounds.upper, bounds.upper)
    margin = node_margin(embed(dense(bounds.upper), x, pairs, slope), other)
    for mode in ("sampled", "certified"):
        bound = node_compactness(
            x, bounds.upper, other, box, pairs, negative_slope=slope, mode=mode
        )
        torch.testing.assert_close(bound, margin)


@given(seed=seeds)
def test_the_directions_add_up_to_nothing(seed):
    _, _, _, _, other = drawn(seed)
    unit = F.normalize(other)
    size = len(unit)
    c = torch.stack([node_margin(e.expand(size, 2), other) for e in torch.eye(2).double()], dim=1)
    torch.testing.assert_close(c.sum(0), torch.zeros(2).double())
    want = size / (size - 1) - unit @ unit.sum(0) / (size - 1)
    torch.testing.assert_close(node_margin(unit, other), want)


@given(seed=seeds, mode=st.sampled_from(MODES))
def test_numbering_the_nodes_otherwise_changes_nothing(seed, mode):
    generator, bounds, x, pairs, other = drawn(seed)
    a, order = inside(generator, bounds, corner=False), torch.randperm(6, generator=generator)
    moved = AdjacencyBounds(*(operator(dense(m)[order][:, order]) for m in bounds))
    got = node_compactness(
        x[order], operator(a[order][:, order]), other[order], moved, pairs, mode=mode
    )
    want = node_compactness(x, operator(a), other, bounds, pairs, mode=mode)
    torch.testing.assert_close(got, want[order])


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_compiles(mode):
    check_module(
        lambda: NodeCompactness(encoder(), mode), compared, exempt={"compile": "in the contract"}
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_learned_slope_counts_as_it_is_and_gets_no_gradient(mode):
    learned = GCNEncoder([3, 4, 2], 0.25, learn_slope=True)
    torch.nn.init.constant_(learned.slope_logit, 0.7)
    plain = GCNEncoder([3, 4, 2], float(learned.slope.detach()))
    plain.load_state_dict({k: v for k, v in learned.state_dict().items() if k != "slope_logit"})
    scores = [NodeCompactness(made, mode)(*compared(5)) for made in (learned, plain)]
    torch.testing.assert_close(*scores)
    scores[0].sum().backward()
    assert learned.slope_logit.grad is None
    assert all(w.grad.isfinite().all() for w, _ in learned.weights)


@pytest.mark.parametrize("mode", MODES)
def test_dead_units_and_constant_embeddings_stay_finite(mode):
    made = encoder(0.0)
    with torch.no_grad():
        made.layers[0].weight.zero_()
        made.layers[0].bias.copy_(torch.tensor([0.0, -1.0, 1.0, 0.0]))
    x, edges, _, bounds = compared(4)
    score = NodeCompactness(made, mode)(x, edges, torch.zeros(4, 2), bounds)
    score.sum().backward()
    assert score.isfinite().all()
    assert all(p.grad.isfinite().all() for p in made.parameters())
    assert (
        not NodeCompactness(made, mode)(x * torch.nan, edges, torch.full((4, 2), torch.nan), bounds)
        .isfinite()
        .any()
    )


@pytest.mark.parametrize("mode", MODES)
def test_sparse_features_and_half_precision(mode):
    x, edges, other, bounds = compared(5)
    row, col = x.nonzero(as_tuple=True)
    made = NodeCompactness(encoder(), mode)
    want = made(x, edges, other, bounds)
    words = adjacency_from_entries(row, col, x[row, col], 5, 3)
    torch.testing.assert_close(made(words, edges, other, bounds), want)
    with torch.autocast("cpu", torch.bfloat16):  # would void a bound, so it is not heeded
        assert torch.equal(made(x, edges, other, bounds), want)
    low = made(x.bfloat16(), edges, other.bfloat16(), bounds)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, want, rtol=5e-2, atol=5e-2)


def test_nothing_of_the_size_of_the_matrix_is_allocated():
    size, width = 300, 4
    edges = ring(size)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else [out]
            sizes.extend(t.numel() for t in tensors if isinstance(t, torch.Tensor))
            return out

    bounds, x, made = edge_drop_bounds(edges, size, 0.4), features(size), encoder()
    with Sizes():
        for mode in MODES:
            NodeCompactness(made, mode)(x, view(size), features(size, 2), bounds).sum().backward()
    assert 0 < max(sizes) <= size * width < edges.shape[1] * width


def test_weights_of_pyg_encoders():
    gcn = pytest.importorskip("torch_geometric.nn").GCNConv
    first, second = gcn(3, 4), gcn(4, 2)
    x, _, other, bounds = compared(6)
    edges = ring(6)[:, 2:]
    pairs = [(conv.lin.weight, conv.bias) for conv in (first, second)]
    ours = GCNEncoder([3, 4, 2])
    ours.load_state_dict(
        {
            f"layers.{i}.{n}": t
            for i, p in enumerate(pairs)
            for n, t in zip(("weight", "bias"), p, strict=True)
        }
    )
    got = node_compactness(x, edges, other, bounds, pairs)
    torch.testing.assert_close(got, NodeCompactness(ours)(x, edges, other, bounds))


@pytest.mark.compile
@pytest.mark.parametrize("mode", MODES)
def test_contract_compiled(mode):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    _, inputs = CASES[NodeCompactness]
    check_module(
        lambda: NodeCompactness(encoder(), mode), inputs, exempt=dict.fromkeys(names.split(), "x")
    )


class Deeper(GCNEncoder):
    """An encoder that is more than its weights."""


@pytest.mark.wording
def test_errors_teach():
    x, edges, other, bounds = compared(4)
    made = encoder()
    for strange in (torch.nn.Linear(3, 2), Deeper([3, 4, 2])):
        with pytest.raises(
            TypeError, match=r"must be a GCNEncoder, got .*not for other depths, batch"
        ):
            NodeCompactness(strange)
    with pytest.raises(
        ValueError, match=r"encoder must have 2 layers, got 3\. The bounds hold for two"
    ):
        NodeCompactness(GCNEncoder([3, 4, 4, 2]))
    with pytest.raises(ValueError, match="mode must be one of sampled, certified, source_weights"):
        NodeCompactness(made, "exact")
    with pytest.raises(ValueError, match="node_compactness: expected 2 layers, got 1"):
        node_compactness(x, edges, other, bounds, made.weights[:1])
    for slope in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match="negative_slope must be >= 0 and < 1"):
            node_compactness(x, edges, other, bounds, made.weights, negative_slope=slope)
    with pytest.raises(ValueError, match=r"other: expected two nodes or more, got 1\. A margin"):
        NodeCompactness(made)(*compared(1))
    with pytest.raises(ValueError, match="other: expected two nodes or more, got 1"):
        node_margin(torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(
        ValueError, match=r"got nodes \(4, 3\), other \(4, 2\). Row i of both is one"
    ):
        node_margin(x, other)
    with pytest.raises(ValueError, match="weight of layer 2: expected last axis of size 4"):
        node_compactness(x, edges, other, bounds, [made.weights[0], made.weights[0]])
    with pytest.raises(ValueError, match="other: expected last axis of size 2"):
        node_compactness(x, edges, x, bounds, made.weights)
    with pytest.raises(
        ValueError, match=r"other: expected 4 rows, got shape \(3, 2\). Row i of both"
    ):
        node_compactness(x, edges, other[:3], bounds, made.weights)
    with pytest.raises(
        ValueError, match=r"got \(4, 4\), \(5, 5\) and \(5, 5\). Bounds belong to one"
    ):
        node_compactness(x, edges, other, compared(5)[3], made.weights)
    with pytest.raises(TypeError, match="nodes: expected a floating-point tensor"):
        node_compactness(x.long(), edges, other, bounds, made.weights)
    with pytest.raises(ValueError, match=r"edge_index must lie in \[0, 3\] for num_nodes=4"):
        node_compactness(x, ring(5), other, bounds, made.weights)
