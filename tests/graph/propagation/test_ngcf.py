"""NGCF's layer in both forms, and the bi-interaction that it shares with KGAT."""

import pytest
import torch
import torch.nn.functional as F
from graph.cases_propagation import CASES
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import add_identity, bipartite_adjacency, build_adjacency
from embedkit.graph.propagation.bi_interaction import bi_interaction
from embedkit.graph.propagation.combination import LayerCombination
from embedkit.graph.propagation.ngcf import NGCFConv
from embedkit.testing import check_module

USER, ITEM = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
TABLE = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0.5, -1], [-1, 0.5]], dtype=torch.float64)
BOTH = torch.stack([torch.cat([USER, ITEM + 2]), torch.cat([ITEM + 2, USER])])


def hand_made(mode, bias=False):
    """W1 = I, W2 = 0.5 I."""
    conv = NGCFConv(2, 2, bias=bias, mode=mode).double().eval()
    with torch.no_grad():
        conv.weight.copy_(torch.eye(2))
        conv.product_weight.copy_(0.5 * torch.eye(2))
    return conv


def graph(norm):
    return bipartite_adjacency(USER, ITEM, 2, 3, norm=norm, dtype=torch.float64)


def random_graph(seed, nodes=7, edges=16):
    draw = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(nodes, (2, edges), generator=draw)
    return edge_index, torch.rand(edges, generator=draw, dtype=torch.float64)


def test_hand_numbers_of_the_paper():
    out = hand_made("paper")(TABLE, graph("sym"))
    want = [[2.435660, 0.207107], [-0.091421, 0.780330], [2.060660, 1], [1.125, -0.15]]
    torch.testing.assert_close(
        out, torch.tensor([*want, [-0.2, 1.383883]]).double(), atol=1e-6, rtol=0
    )
    vectors = LayerCombination("concat", normalize_layers=True)([TABLE, out])
    scores = [[1.933416, 1.476466, -1.058666], [1.328937, -1.246607, 1.499638]]
    torch.testing.assert_close(
        vectors[:2] @ vectors[2:].T, torch.tensor(scores).double(), atol=1e-6, rtol=0
    )


def test_hand_numbers_of_the_released_code():
    want = torch.tensor([[2.625, 0], [-0.05, 1.125], [3, 1.5], [1.25, 0.15], [0.3, 1.875]])
    for edges in (add_identity(graph("row")), BOTH):
        torch.testing.assert_close(hand_made("split")(TABLE, edges), want.double())


@given(seed=st.integers(0, 2**31), mode=st.sampled_from(["paper", "split"]))
def test_the_matrix_form_is_the_loop_over_edges(seed, mode):
    edge_index, weight = random_graph(seed)
    torch.manual_seed(seed)
    conv, nodes = NGCFConv(3, 4, mode=mode).double().eval(), torch.randn(7, 3).double()
    received, source, target = torch.zeros(7).double(), *edge_index
    for j, w in zip(target, weight, strict=True):
        received[j] += w
    first, second = nodes @ conv.weight.T, torch.zeros(7, 4).double()
    if mode == "split":  # A' holds the node itself, in the product as well
        second = second + (nodes * nodes) @ conv.product_weight.T
    for i, j, w in zip(source, target, weight, strict=True):
        degree = (received[i] * received[j]).sqrt() if mode == "paper" else received[j]
        if degree > 0:
            first[j] = first[j] + w / degree * nodes[i] @ conv.weight.T
            second[j] = second[j] + w / degree * (nodes[i] * nodes[j]) @ conv.product_weight.T
    if mode == "paper":
        want = F.leaky_relu(first + second + conv.bias, 0.2)
    else:
        want = F.leaky_relu(first + conv.bias, 0.2)
        want = want + F.leaky_relu(second + conv.product_bias, 0.2)
    torch.testing.assert_close(conv(nodes, edge_index, weight), want)


@pytest.mark.parametrize("mode", ["paper", "split"])
@given(seed=st.integers(0, 2**31))
def test_both_paths_agree_and_nodes_can_be_renumbered(mode, seed):
    torch.manual_seed(seed)
    edge_index, weight = random_graph(seed)
    conv, nodes = NGCFConv(3, 2, mode=mode).double().eval(), torch.randn(7, 3).double()
    norm = "sym" if mode == "paper" else "row"
    built = build_adjacency(edge_index, weight, 7, norm=norm)
    out = conv(nodes, built if mode == "paper" else add_identity(built))
    torch.testing.assert_close(conv(nodes, edge_index, weight), out, atol=1e-6, rtol=0)
    order = torch.randperm(7)
    renumbered = conv(nodes[order], order.argsort()[edge_index], weight)
    torch.testing.assert_close(renumbered, out[order])


def test_without_products_and_activation_it_is_linear():
    conv = NGCFConv(2, 3, negative_slope=1.0, bias=False).double().eval()
    with torch.no_grad():
        conv.product_weight.zero_()
    dense = torch.zeros(5, 5, dtype=torch.float64)
    dense[BOTH[1], BOTH[0]] = 1
    root = dense.sum(1).rsqrt()
    want = (root[:, None] * dense * root + torch.eye(5)) @ TABLE @ conv.weight.T
    torch.testing.assert_close(conv(TABLE, graph("sym")), want)


@pytest.mark.parametrize("mode", ["paper", "split"])
def test_without_edges_a_node_speaks_for_itself(mode):
    conv, none = NGCFConv(2, 2, mode=mode).double().eval(), torch.zeros(2, 0).long()
    if mode == "paper":
        want = F.leaky_relu(TABLE @ conv.weight.T + conv.bias, 0.2)
        torch.testing.assert_close(conv(TABLE, none), want)
    else:
        torch.testing.assert_close(
            conv(TABLE, none), conv(TABLE, add_identity(build_adjacency(none, num_nodes=5)))
        )


def test_a_rotation_of_the_table_changes_scores():
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]]).double()
    conv = hand_made("paper")
    out, turned = conv(TABLE, graph("sym")), conv(TABLE @ turn, graph("sym"))
    assert not torch.allclose(out @ out.T, turned @ turned.T)


def test_dropout_is_for_training_and_keeps_the_mean():
    conv = NGCFConv(2, 2, dropout=0.5).double()
    edges = graph("sym")
    calm = conv.eval()(TABLE, edges)
    torch.testing.assert_close(conv(TABLE, edges), calm)
    conv.train()
    out = torch.stack([conv(TABLE, edges) for _ in range(2000)])
    assert 0.45 < (out == 0).double().mean() < 0.55
    torch.testing.assert_close(out.mean(0), calm, atol=0.2, rtol=0)


def test_start_of_weights_and_parameters():
    conv = NGCFConv(64, 32, mode="split")
    assert conv.weight.abs().max() <= (6 / 96) ** 0.5 < 1.1 * conv.weight.abs().max()
    assert 0 < conv.bias.abs().max() <= (6 / 33) ** 0.5
    shapes = {name: tuple(p.shape) for name, p in conv.named_parameters()}
    assert shapes.keys() == {"weight", "product_weight", "bias", "product_bias"}
    assert {n for n, _ in NGCFConv(4, 4).named_parameters()} == shapes.keys() - {"product_bias"}
    assert {n for n, _ in NGCFConv(4, 4, bias=False).named_parameters()} == {
        "weight", "product_weight"
    }  # fmt: skip


def test_bi_interaction_with_one_and_two_activations():
    torch.manual_seed(0)
    total, product = torch.randn(2, 6, 3).double()
    first, second = torch.nn.Linear(3, 4).double(), torch.nn.Linear(3, 4).double()
    a, b = first(total), second(product)
    args = (total, product, first.weight, second.weight, first.bias, second.bias)
    leaky = torch.nn.LeakyReLU(0.01)
    torch.testing.assert_close(bi_interaction(*args, negative_slope=0.01), leaky(a) + leaky(b))
    torch.testing.assert_close(bi_interaction(*args, negative_slope=0.01, joint=True), leaky(a + b))


def test_half_precision_and_autocast_give_back_the_dtype():
    conv = NGCFConv(2, 2).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(TABLE.float(), graph("sym").to(dtype=torch.float32)).dtype == torch.float32
    low = conv.bfloat16()(TABLE.bfloat16(), graph("sym"))
    assert low.dtype == torch.bfloat16
    wide = conv.double()(TABLE, graph("sym"))
    torch.testing.assert_close(low.double(), wide, atol=5e-2, rtol=5e-2)


def test_contract():
    check_module(*CASES[NGCFConv], exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("mode", ["paper", "split"])
def test_contract_compiled(mode):
    _, inputs = CASES[NGCFConv]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    exempt = dict.fromkeys(names.split(), "above")
    check_module(lambda: NGCFConv(4, 3, dropout=0.0, mode=mode), inputs, exempt=exempt)


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match="NGCFConv: mode must be one of paper, split, got 'sym'"):
        NGCFConv(2, 2, mode="sym")
    with pytest.raises(ValueError, match=r"NGCFConv: dropout must lie in \[0, 1\), got 1"):
        NGCFConv(2, 2, dropout=1.0)
    with pytest.raises(ValueError, match="NGCFConv: in_features must be >= 1, got 0"):
        NGCFConv(0, 2)
    with pytest.raises(ValueError, match="nodes: expected last axis of size 3"):
        NGCFConv(3, 2)(TABLE.float(), BOTH)
    with pytest.raises(ValueError, match=r"NGCFConv: edge_index must lie in \[0, 3\]"):
        NGCFConv(2, 2)(TABLE[:4].float(), BOTH)
    with pytest.raises(TypeError, match=r"edge_index: expected integers, got torch.float32"):
        NGCFConv(2, 2)(TABLE.float(), BOTH.float())
    with pytest.raises(ValueError, match="nodes: expected 5 rows"):
        NGCFConv(2, 2)(TABLE[:4].float(), graph("sym"))
    with pytest.raises(ValueError, match="NGCFConv: an Adjacency holds its weights already"):
        NGCFConv(2, 2)(TABLE.float(), graph("sym"), torch.ones(8))
    with pytest.raises(ValueError, match="total and product: expected equal shapes"):
        bi_interaction(TABLE, TABLE[:2], torch.eye(2), torch.eye(2))
