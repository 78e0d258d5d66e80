"""The graph convolution encoder against PyG's layers."""

import pytest
import torch
import torch.nn.functional as F
from graph.cases_compactness import CASES, ring
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from embedkit.graph import adjacency_from_entries, build_adjacency
from embedkit.graph.propagation.encoder import GCNEncoder
from embedkit.testing import check_module


@pytest.mark.parametrize("slope", [0.0, 0.25])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_pyg(slope, weighted):
    gcn = pytest.importorskip("torch_geometric.nn").GCNConv
    edges = torch.randint(7, (2, 20)).unique(dim=1)
    weight = torch.rand(edges.shape[1], dtype=torch.float64) if weighted else None
    x = torch.randn(7, 5, dtype=torch.float64)
    ours = GCNEncoder([5, 4, 3, 2], slope).double()
    want = x
    for w, b in ours.weights:
        torch.nn.init.normal_(b)
        conv = gcn(w.shape[1], w.shape[0]).double()
        conv = functional_call(conv, {"lin.weight": w, "bias": b}, (want, edges, weight))
        want = F.leaky_relu(conv, slope)
    torch.testing.assert_close(ours(x, edges, weight), want)
    built = build_adjacency(edges, weight, 7, norm="gcn", dtype=torch.float64)
    torch.testing.assert_close(ours(x, built), want)
    grads = [
        torch.autograd.grad(z.square().sum(), ours.parameters())
        for z in (ours(x, edges, weight), ours(x, built), want)
    ]
    torch.testing.assert_close(grads[0], grads[2])
    torch.testing.assert_close(grads[1], grads[2])


@given(seed=st.integers(0, 2**31))
def test_sparse_features_are_features(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    x = torch.where(torch.rand(6, 9, generator=generator) < 0.2, x, 0.0)
    row, col = x.nonzero(as_tuple=True)
    words = adjacency_from_entries(row, col, x[row, col], 6, 9)
    made = GCNEncoder([9, 4, 2]).double()
    torch.testing.assert_close(made(words, ring(6)), made(x, ring(6)))
    grads = [torch.autograd.grad(made(z, ring(6)).sum(), made.parameters()) for z in (words, x)]
    torch.testing.assert_close(*grads)


def learned():
    made = GCNEncoder([3, 4, 2], 0.25, learn_slope=True)
    for weight in made.parameters():
        torch.nn.init.normal_(weight)
    return made


def test_one_slope_is_learned_as_a_prelu():
    made = GCNEncoder([5, 4, 2], 0.25, learn_slope=True).double()
    plain = GCNEncoder([5, 4, 2], 0.25).double()
    plain.load_state_dict({k: v for k, v in made.state_dict().items() if k != "slope_logit"})
    x = torch.randn(6, 5, dtype=torch.float64)
    torch.testing.assert_close(made(x, ring(6)), plain(x, ring(6)))
    torch.nn.init.constant_(made.slope_logit, 1.5)
    want, slope = x, made.slope.detach().clone().requires_grad_()
    dense = torch.zeros(6, 6, dtype=torch.float64)
    graph = build_adjacency(ring(6), num_nodes=6, norm="gcn", dtype=torch.float64)
    dense[graph.row, graph.col] = graph.value
    for weight, bias in made.weights:
        want = F.prelu(dense @ want @ weight.T + bias, slope[None])
    torch.testing.assert_close(made(x, ring(6)), want)
    (theirs,) = torch.autograd.grad(want.sum(), slope)
    (ours,) = torch.autograd.grad(made(x, ring(6)).sum(), made.slope_logit)
    torch.testing.assert_close(ours, theirs * slope.detach() * (1 - slope.detach()))
    made.reset_parameters()
    assert float(made.slope.detach()) == pytest.approx(0.25)
    assert "learn_slope=True" in repr(made)
    with pytest.raises(ValueError, match="learn_slope needs a negative_slope above 0"):
        GCNEncoder([4, 2], learn_slope=True)


@pytest.mark.compile
def test_contract_of_a_learned_slope():
    check_module(learned, CASES[GCNEncoder][1])


def test_contract():
    build, inputs = CASES[GCNEncoder]
    check_module(build, inputs, exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    build, inputs = CASES[GCNEncoder]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(TypeError, match=r"GCNEncoder: dims must list widths, got 4\. Two layers"):
        GCNEncoder(4, 4)
    with pytest.raises(
        ValueError, match=r"the number of dims must be >= 2, got 1\. Input and output"
    ):
        GCNEncoder([4])
    with pytest.raises(ValueError, match="each width of dims must be >= 1, got 0"):
        GCNEncoder([4, 0, 2])
    for slope in (-0.5, 1.0):
        with pytest.raises(ValueError, match=f"must be >= 0 and < 1, got {slope:g}. 0 is ReLU"):
            GCNEncoder([4, 2], slope)
    made = GCNEncoder([4, 2])
    with pytest.raises(ValueError, match="nodes: expected last axis of size 4, got shape"):
        made(torch.randn(3, 5), ring(3))
    with pytest.raises(ValueError, match="nodes: expected 4 columns of sparse features, got 3"):
        made(build_adjacency(ring(3)), ring(3))
    with pytest.raises(TypeError, match="nodes: expected a floating-point tensor"):
        made(torch.ones(3, 4, dtype=torch.long), ring(3))
    with pytest.raises(ValueError, match=r"GCNEncoder: edge_index must lie in \[0, 2\]"):
        made(torch.randn(3, 4), ring(4))
    with pytest.raises(ValueError, match="GCNEncoder: an Adjacency holds its weights already"):
        made(torch.randn(3, 4), build_adjacency(ring(3)), torch.ones(6))
