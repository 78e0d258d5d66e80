"""Hops, their gate, and the streamed sum."""

import pytest
import torch
from graph.cases_depth import ring
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from embedkit.graph import add_identity, bipartite_adjacency, build_adjacency, reweight
from embedkit.graph.propagation.adaptive_depth import (
    AdaptiveHopGate,
    DAGNNPropagation,
    adaptive_propagation,
    hop_stack,
)

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
Z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
S = torch.tensor([1.0, -1.0], dtype=torch.float64)
seeds = st.integers(0, 2**31)


def path(dtype=torch.float64):
    return build_adjacency(PATH, norm="gcn", dtype=dtype)


def graph(n, edges, undirected):
    """A random graph, with loops and duplicates, its last node isolated."""
    index = torch.randint(n - 1, (2, edges))
    if undirected:
        index = torch.cat([index, index.flip(0)], dim=1)
    return index, build_adjacency(index, num_nodes=n, norm="gcn", dtype=torch.float64)


def test_hand_numbers():
    hops = hop_stack(Z, path(), num_hops=2)
    assert hops.shape == (3, 3, 2)
    want = [[[0.5, 0.408248], [0.816497, 0.741582], [0.5, 0.908248]]]
    want += [[[0.583333, 0.506874], [0.680414, 0.784651], [0.583333, 0.756874]]]
    want = torch.stack([Z, *torch.tensor(want).double()], dim=1)
    torch.testing.assert_close(hops, want, atol=1e-6, rtol=0)
    gate = AdaptiveHopGate(2).double()
    gate.load_state_dict({"weight": S, "bias": torch.tensor(0.0)})
    want = [[0.731059, 0.522922, 0.519106], [0.268941, 0.518720, 0.473964]]
    want = torch.tensor([*want, [0.5, 0.399332, 0.456723]]).double()
    torch.testing.assert_close(gate.scores(hops), want, atol=1e-6, rtol=0)
    want = [[1.295331, 0.476603], [0.746025, 1.025511], [0.966088, 1.208375]]
    want = torch.tensor(want).double()
    torch.testing.assert_close(gate(hops), want, atol=1e-6, rtol=0)
    got = adaptive_propagation(Z, path(), S, num_hops=2)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


@settings(max_examples=25)
@given(seed=seeds, hops=st.integers(0, 6), undirected=st.booleans(), checkpoint=st.booleans())
def test_streaming_equals_the_stack(seed, hops, undirected, checkpoint):
    torch.manual_seed(seed)
    index, adjacency = graph(7, 9, undirected)
    layer = DAGNNPropagation(3, hops, checkpoint=checkpoint).double()
    nodes = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    leaves = [nodes, *layer.parameters()]
    want = layer.gate(hop_stack(nodes, adjacency, num_hops=hops))
    of_want = torch.autograd.grad(want.square().sum(), leaves)
    for edges in (adjacency, index):
        got = layer(nodes, edges)
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-6)
        of_got = torch.autograd.grad(got.square().sum(), leaves)
        torch.testing.assert_close(of_got, of_want, atol=1e-10, rtol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("undirected", [False, True])
def test_recomputed_gradients_match_finite_differences(bias, undirected):
    _, adjacency = graph(6, 8, undirected)
    layer = DAGNNPropagation(3, 4, bias=bias, checkpoint=True).double()
    nodes = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def run(nodes, *values):
        return adaptive_propagation(nodes, adjacency, *values, num_hops=4, checkpoint=True)

    assert torch.autograd.gradcheck(run, (nodes, *values))
    assert torch.autograd.gradgradcheck(run, (nodes, *values), fast_mode=True)


def saved(layer, nodes, adjacency):
    """Numbers kept for the backward pass, storages counted once."""
    kept = {}

    def note(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        out = layer(nodes, adjacency)
    assert out.grad_fn is not None
    return sum(kept.values())


def test_a_checkpoint_keeps_no_hops():
    nodes = torch.randn(500, 64, requires_grad=True)
    sizes = {
        (k, checkpoint): saved(DAGNNPropagation(64, k, checkpoint=checkpoint), nodes, ring(500))
        for k in (5, 20)
        for checkpoint in (False, True)
    }
    assert sizes[20, False] - sizes[5, False] >= 15 * nodes.numel()
    assert sizes[20, True] == sizes[5, True] < 2 * nodes.numel()


def test_weights_of_edges_get_their_gradient_under_a_checkpoint_too():
    _, adjacency = graph(6, 8, True)
    nodes, weight = torch.randn(6, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    value = adjacency.value.clone().requires_grad_()

    def run(value):
        edges = reweight(adjacency, value)
        return adaptive_propagation(nodes, edges, weight, num_hops=3, checkpoint=True)

    assert torch.autograd.gradcheck(run, (value,))


@pytest.mark.compile
@pytest.mark.parametrize("undirected", [False, True])
def test_a_checkpoint_compiles(undirected):
    torch.compiler.reset()
    _, adjacency = graph(6, 8, undirected)
    layer = DAGNNPropagation(3, 4, checkpoint=True).double()
    nodes = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    leaves = [nodes, *layer.parameters()]
    results = []
    for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        out = call(nodes, adjacency)
        results.append((out, torch.autograd.grad(out.square().sum(), leaves)))
    torch.testing.assert_close(results[1], results[0])


@given(seed=seeds)
def test_numbering_of_nodes_does_not_matter(seed):
    torch.manual_seed(seed)
    index, _ = graph(7, 9, False)
    order = torch.randperm(7)
    layer, nodes = DAGNNPropagation(3, 4).double(), torch.randn(7, 3).double()
    renamed = order.argsort()[index]
    torch.testing.assert_close(layer(nodes[order], renamed), layer(nodes, index)[order])


def test_gates_at_their_limits():
    _, adjacency = graph(7, 9, True)
    nodes, off = torch.randn(7, 3).double(), torch.zeros(3).double()
    total = hop_stack(nodes, adjacency, num_hops=5).sum(dim=1)
    for bias, share in ((0.0, 0.5), (40.0, 1.0), (-40.0, 0.0)):
        bias = torch.tensor(bias).double()
        got = adaptive_propagation(nodes, adjacency, off, bias, num_hops=5)
        torch.testing.assert_close(got, share * total, atol=1e-12, rtol=0)
    weight = torch.randn(3).double()
    want = torch.sigmoid(nodes @ weight)[:, None] * nodes
    torch.testing.assert_close(adaptive_propagation(nodes, adjacency, weight, num_hops=0), want)


def test_an_isolated_node_keeps_its_vector_at_every_hop():
    _, adjacency = graph(7, 9, True)
    nodes = torch.randn(7, 3).double()
    hops = hop_stack(nodes, adjacency, num_hops=4)
    torch.testing.assert_close(hops[6], nodes[6].expand(5, 3))
    none = torch.empty(2, 0, dtype=torch.long)
    torch.testing.assert_close(hop_stack(nodes[:1], none, num_hops=2)[0], nodes[:1].expand(3, 3))


def test_hops_are_those_of_torch_geometric():
    from torch_geometric.nn import SGConv

    index, _ = graph(7, 9, False)
    nodes, weight = torch.randn(7, 3).double(), torch.rand(9).double()
    for k in (1, 3):
        conv = SGConv(3, 3, K=k, bias=False).double()
        torch.nn.init.eye_(conv.lin.weight)
        hops = hop_stack(nodes, index, weight, num_hops=k)
        torch.testing.assert_close(hops[:, k], conv(nodes, index, weight))


def test_a_uniform_gate_is_the_mean_of_torch_geometrics_light_gcn():
    from torch_geometric.nn import LightGCN

    index = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
    plain = build_adjacency(index, num_nodes=5, norm="sym")
    model = LightGCN(5, embedding_dim=3, num_layers=4)
    want = model.get_embedding(index)
    got = hop_stack(model.embedding.weight, plain, num_hops=4).mean(dim=1)
    torch.testing.assert_close(got, want)


def test_it_runs_inside_torch_geometrics_sequential():
    from torch_geometric.nn import Sequential

    layers = [(torch.nn.Linear(4, 3), "x -> x"), (DAGNNPropagation(3, 5), "x, edge_index -> x")]
    model = Sequential("x, edge_index", layers)
    nodes = torch.randn(3, 4)
    torch.testing.assert_close(model(nodes, PATH), layers[1][0](layers[0][0](nodes), PATH))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_hops_of_half_precision_are_added_up_in_float32(dtype, checkpoint):
    adjacency = ring(9)
    layer = DAGNNPropagation(4, 50, checkpoint=checkpoint)
    nodes = torch.randn(9, 4).to(dtype).requires_grad_()
    got = layer(nodes, adjacency)
    assert got.dtype == dtype
    torch.testing.assert_close(got, layer(nodes.float(), adjacency).to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(nodes, adjacency), got)
    got.sum().backward()
    assert nodes.grad.isfinite().all()


def test_large_scores_stay_finite():
    nodes = torch.tensor([[1e30, -1e30], [0.0, 0.0], [-1e30, 1e30]], requires_grad=True)
    for checkpoint in (False, True):
        layer = DAGNNPropagation(2, 3, checkpoint=checkpoint)
        out = layer(nodes, path(torch.float32))
        (grad,) = torch.autograd.grad(out.sum(), nodes)
        assert out.isfinite().all()
        assert grad.isfinite().all()


def test_the_gate_starts_as_a_linear_layer_of_one_output():
    torch.manual_seed(1)
    gate = AdaptiveHopGate(400)
    assert gate.weight.abs().max() <= 1 / 20
    assert gate.weight.abs().max() > 0.9 / 20
    assert AdaptiveHopGate(4, bias=False).bias is None
    hops = torch.randn(5, 3, 4)
    bare = AdaptiveHopGate(4, bias=False)
    want = torch.sigmoid(F.linear(hops, bare.weight[None]))
    torch.testing.assert_close(bare(hops), (want * hops).sum(dim=1))
    assert repr(DAGNNPropagation(4, 7)).count("num_hops=7") == 1


@pytest.mark.wording
def test_errors_teach():
    nodes = torch.randn(3, 4)
    with pytest.raises(ValueError, match="DAGNNPropagation: num_hops must be >= 0, got -1"):
        DAGNNPropagation(4, num_hops=-1)
    with pytest.raises(ValueError, match="AdaptiveHopGate: dim must be >= 1, got 0"):
        DAGNNPropagation(0)
    with pytest.raises(ValueError, match=r"nodes: expected last axis of size 5, got shape \(3, 4"):
        DAGNNPropagation(5)(nodes, PATH)
    with pytest.raises(
        ValueError, match=r"edge_index must lie in \[0, 1\] for num_nodes=2, got va"
    ):
        DAGNNPropagation(4)(nodes[:2], PATH)
    with pytest.raises(TypeError, match=r"edge_index: expected integers, got torch.float32"):
        DAGNNPropagation(4)(nodes, PATH.float())
    with pytest.raises(TypeError, match="nodes: expected a floating-point tensor"):
        hop_stack(nodes.long(), PATH)
    with pytest.raises(ValueError, match="hop_stack: num_hops must be >= 0, got -2"):
        hop_stack(nodes, PATH, num_hops=-2)
    with pytest.raises(ValueError, match="an Adjacency holds its weights already"):
        DAGNNPropagation(4)(nodes, path(), torch.ones(4))
    user, item = torch.tensor([0, 1]), torch.tensor([0, 0])
    square = bipartite_adjacency(user, item, 2, 1)
    assert DAGNNPropagation(4)(nodes, add_identity(square)).shape == (3, 4)
    from embedkit.graph import adjacency_from_entries

    wide = adjacency_from_entries(user, item, torch.ones(2), 2, 3)
    with pytest.raises(ValueError, match=r"hops need a square matrix, got 2 x 3. bipartite_adj"):
        DAGNNPropagation(4)(nodes, wide)
    with pytest.raises(ValueError, match=r"hops: expected 3 axes \(n, k, d\), got shape \(4,\)"):
        AdaptiveHopGate(4)(torch.randn(4))
    with pytest.raises(TypeError, match="hops: expected a floating-point tensor"):
        AdaptiveHopGate(4)(torch.ones(3, 4, dtype=torch.long))
