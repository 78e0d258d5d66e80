"""Context encoder, shared graph convolution, and masks."""

import pytest
import torch
from graph.cases_metapath import CASES
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import elu, prelu
from torch.testing import assert_close

from embedkit.graph import adjacency_from_entries, build_adjacency, reweight
from embedkit.graph.contrast.context import ContextGCN, MetaPathContext, mask_edges, mask_entries
from embedkit.testing import check_module


def dense(adjacency):
    out = torch.zeros(adjacency.num_rows, adjacency.num_cols, dtype=adjacency.value.dtype)
    out[adjacency.row, adjacency.col] = adjacency.value
    return out


def graph(seed=0, n=7):
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, 20), generator=generator).unique(dim=1)
    return edge_index, torch.rand(edge_index.shape[1], generator=generator).double()


def test_context_is_its_formula():
    layer = MetaPathContext(3, [2, 4]).double()
    h, one, two = (torch.randn(5, w, dtype=torch.float64) for w in (3, 2, 4))
    v, w = (linear.weight for linear in layer.positions)
    assert_close(layer(h, [one, two]), elu(h + one @ v.T + two @ w.T))
    nothing = [torch.zeros_like(one), torch.zeros_like(two)]
    assert_close(layer(h, nothing), elu(h))


@pytest.mark.parametrize("standardize", ["matrix", "row", "none"])
def test_encoder_is_its_formula(standardize):
    edge_index, weight = graph()
    layer = ContextGCN(3, 4, standardize=standardize).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    adjacency = build_adjacency(edge_index, weight, 7)
    a = dense(adjacency)
    want = a @ prelu(a @ x @ layer.first.weight.T, layer.activation.weight) @ layer.second.weight.T
    if standardize == "matrix":
        want = (want - want.mean()) / (want.var(correction=0) + 1e-5).sqrt()
    if standardize == "row":
        spread = (want.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        want = (want - want.mean(1, keepdim=True)) / spread
    assert_close(layer(x, adjacency), want)
    assert_close(layer(x, edge_index, weight), want)


@given(seed=st.integers(0, 2**31))
def test_renumbered_nodes_give_renumbered_vectors(seed):
    edge_index, weight = graph(seed)
    layer, x, order = ContextGCN(3, 4).double(), torch.randn(7, 3).double(), torch.randperm(7)
    assert_close(
        layer(x[order], order.argsort()[edge_index], weight), layer(x, edge_index, weight)[order]
    )


def test_matrix_standardisation_couples_nodes_and_row_does_not():
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])  # two pairs that never meet
    x = torch.randn(4, 3)
    moved = torch.cat([x[:2], 5 * torch.randn(2, 3)])
    for standardize, same in (("row", True), ("matrix", False)):
        layer = ContextGCN(3, 4, standardize=standardize)
        first, second = layer(x, edge_index)[:2], layer(moved, edge_index)[:2]
        assert torch.allclose(first, second) is same


def test_dropout_is_for_training():
    edge_index, x = torch.tensor([[0, 1], [1, 0]]), torch.randn(2, 3)
    layer, context = ContextGCN(3, 4, dropout=1.0), MetaPathContext(3, [3], dropout=1.0)
    assert (layer(x, edge_index) == 0).all()
    assert torch.equal(context(x, [x]), elu(x))
    assert (layer.eval()(x, edge_index) != 0).any()
    assert not torch.equal(context.eval()(x, [x]), elu(x))


def test_masked_entries():
    x = torch.randn(200, 50) + 9
    masked = mask_entries(x, 0.3, generator=torch.Generator().manual_seed(0))
    gone = masked == 0
    assert abs(gone.float().mean() - 0.3) < 0.02
    assert torch.equal(masked[~gone], x[~gone])
    assert torch.equal(masked, mask_entries(x, 0.3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(mask_entries(x, 0.0), x)
    assert (mask_entries(x, 1.0) == 0).all()


@given(seed=st.integers(0, 2**31), rate=st.sampled_from([0.0, 0.5, 1.0]))
def test_masked_edges_are_a_normalised_part_of_the_graph(seed, rate):
    edge_index, weight = graph(seed)
    before = build_adjacency(edge_index, weight, 7, norm="none")
    after = dense(mask_edges(before, rate, generator=torch.Generator().manual_seed(seed)))
    kept = (after > 0).double()
    assert (kept.diagonal() == 1).all()
    allowed = (dense(before) > 0) | torch.eye(7, dtype=torch.bool)
    assert not (kept.bool() & ~allowed).any()
    if rate == 0:
        assert torch.equal(kept.bool(), allowed)
    if rate == 1:
        assert torch.equal(after, torch.eye(7, dtype=after.dtype))
    root = kept.sum(1).rsqrt()
    assert_close(after, root[:, None] * kept * root)


def test_edges_fall_at_the_rate():
    n = 60
    full = build_adjacency(torch.cartesian_prod(torch.arange(n), torch.arange(n)).T, num_nodes=n)
    kept = mask_edges(full, 0.3, generator=torch.Generator().manual_seed(0))
    assert abs((len(kept.col) - n) / (n * n - n) - 0.7) < 0.02


@pytest.mark.parametrize("layer", CASES, ids=lambda c: c.__name__)
def test_contract(layer):
    check_module(*CASES[layer], exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("layer", CASES, ids=lambda c: c.__name__)
def test_contract_compiled(layer):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[layer], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    x, pair = torch.rand(3, 2), torch.tensor([[0], [1]])
    with pytest.raises(
        ValueError, match=r"nodes: expected last axis of size 4, got shape \(3, 2\)"
    ):
        ContextGCN(4)(x, pair)
    with pytest.raises(ValueError, match=r"ContextGCN: edge_index must lie in \[0, 2\]"):
        ContextGCN(2)(x, pair + 2)
    with pytest.raises(ValueError, match="standardize must be one of matrix, row, none, got 'all'"):
        ContextGCN(2, standardize="all")
    with pytest.raises(ValueError, match=r"ContextGCN: dropout must be in \[0, 1\], got 2"):
        ContextGCN(2, dropout=2)
    with pytest.raises(ValueError, match="contexts: expected 2, one per position of the path, got"):
        MetaPathContext(2, [2, 2])(x, [x])
    with pytest.raises(ValueError, match=r"nodes \(3, 2\), part 0 \(1, 2\). One mean per target"):
        MetaPathContext(2, [2])(x, [x[:1]])
    with pytest.raises(ValueError, match="MetaPathContext: the number of positions must be >= 1"):
        MetaPathContext(2, [])
    wide = adjacency_from_entries(pair[0], pair[1], torch.ones(1), 2, 3)
    with pytest.raises(ValueError, match="mask_edges: expected a square adjacency, got 2 x 3"):
        mask_edges(wide, 0.5)
    with pytest.raises(TypeError, match="mask_edges: expected an Adjacency, got Tensor"):
        mask_edges(pair, 0.5)
    with pytest.raises(ValueError, match=r"mask_entries: rate must be in \[0, 1\], got -1"):
        mask_entries(x, -1)
    with pytest.raises(TypeError, match="features: expected a floating-point tensor"):
        mask_entries(pair, 0.1)
    assert reweight(wide, mask_entries(wide.value, 1.0)).value.tolist() == [0]
