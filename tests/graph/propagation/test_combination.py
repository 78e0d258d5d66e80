"""The combination of layers, and tables that are passed along a graph."""

import numpy as np
import pytest
import torch
from graph.cases_propagation import CASES
from torch import nn

from embedkit.graph import bipartite_adjacency
from embedkit.graph.propagation.combination import (
    LayerCombination,
    PropagatedEmbedding,
    combine_layers,
)
from embedkit.graph.propagation.lightgcn import LightGCNConv
from embedkit.graph.propagation.ngcf import NGCFConv
from embedkit.testing import check_module

USER, ITEM = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
BOTH = torch.stack([torch.cat([USER, ITEM + 2]), torch.cat([ITEM + 2, USER])])
GRAPH = bipartite_adjacency(USER, ITEM, 2, 3)


def test_sums_are_those_of_a_stack():
    layers = list(torch.randn(4, 5, 3).double())
    torch.testing.assert_close(combine_layers(layers), torch.stack(layers).mean(0))
    weights = torch.tensor([0.5, -1.0, 0.0, 2.0]).double()
    want = torch.einsum("k,knd->nd", weights, torch.stack(layers))
    torch.testing.assert_close(combine_layers(layers, weights.tolist()), want)


@pytest.mark.wording
def test_weights_may_be_an_array():
    layers = list(torch.randn(2, 5, 3).double())
    for weights in (np.array([0.5, 2.0]), torch.tensor([0.5, 2.0])):
        torch.testing.assert_close(combine_layers(layers, weights), 0.5 * layers[0] + 2 * layers[1])


def test_concatenated_scores_are_sums_of_scores():
    layers = [torch.randn(5, width).double() for width in (3, 4, 2)]
    together = combine_layers(layers, "concat")
    assert together.shape == (5, 9)
    torch.testing.assert_close(together @ together.T, sum(x @ x.T for x in layers))


@pytest.mark.parametrize("how", ["mean", "concat", [1.0, 1.0]])
def test_all_layers_but_the_first_are_normalised(how):
    first, second = torch.tensor([[3.0, 4.0], [1, 0]]), torch.tensor([[3.0, 4.0], [0, 0]])
    unit = torch.tensor([[0.6, 0.8], [0, 0]])
    want = combine_layers([first, unit], how)
    torch.testing.assert_close(combine_layers([first, second], how, normalize_layers=True), want)


def test_half_precision_is_added_up_in_float32():
    layers = [torch.full((1, 1), x, dtype=torch.float16) for x in (40000.0, 40000.0, -40000.0)]
    got = combine_layers(layers, [2.0, 1.0, 2.0])
    assert got.dtype == torch.float16
    assert got.item() == 40000


def test_a_model_without_layers_is_its_table():
    table = nn.Embedding(5, 4)
    assert torch.equal(PropagatedEmbedding(table, [])(GRAPH), table.weight)


def test_lightgcn_and_ngcf_are_their_loops():
    table, light = nn.Embedding(5, 4), LightGCNConv()
    layers = [table.weight]
    for _ in range(3):
        layers.append(light(layers[-1], GRAPH))
    model = PropagatedEmbedding(table, [light] * 3)
    torch.testing.assert_close(model(GRAPH), torch.stack(layers).mean(0))
    assert [name for name, _ in model.named_parameters()] == ["table.weight"]
    first, second = NGCFConv(4, 3), NGCFConv(3, 2)
    combination = LayerCombination("concat", normalize_layers=True)
    model = PropagatedEmbedding(table, [first, second], combination).eval()
    one = first(table.weight, GRAPH)
    layers = [table.weight, *map(nn.functional.normalize, (one, second(one, GRAPH)))]
    torch.testing.assert_close(model(GRAPH), torch.cat(layers, 1))
    assert torch.equal(model(GRAPH), model(GRAPH))


def test_edge_index_with_weights_and_layers_of_pyg():
    model = PropagatedEmbedding(nn.Embedding(5, 4), [LightGCNConv()] * 2)
    torch.testing.assert_close(model(BOTH), model(GRAPH))
    from torch_geometric.nn import LGConv

    weight, one = torch.rand(4).repeat(2), model.table.weight
    two = LGConv()(one, BOTH, weight)
    want = (one + two + LGConv()(two, BOTH, weight)) / 3
    torch.testing.assert_close(model(BOTH, weight), want)
    theirs = PropagatedEmbedding(model.table, [LGConv()] * 2)
    torch.testing.assert_close(theirs(BOTH, weight), want)


class Doubled(nn.Module):
    """A table of a user's own, that takes any id."""

    def forward(self, ids):
        return torch.stack([ids, 2 * ids], 1).float()


@pytest.mark.parametrize("settings", [{"padding_idx": 1}, {"max_norm": 0.1}])
def test_tables_are_asked_for_all_ids(settings):
    assert PropagatedEmbedding(Doubled(), [], num_nodes=3)(GRAPH).tolist() == [
        [0, 0], [1, 2], [2, 4]
    ]  # fmt: skip
    table = nn.Embedding(5, 4, **settings)
    out = PropagatedEmbedding(table, [])(GRAPH)
    out.sum().backward()
    if "max_norm" in settings:
        assert out.norm(dim=1).max() <= 0.1001
    else:
        assert table.weight.grad[1].abs().sum() == 0


@pytest.mark.parametrize("module", [LayerCombination, PropagatedEmbedding])
def test_contract(module):
    check_module(*CASES[module], exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("module", [LayerCombination, PropagatedEmbedding])
def test_contract_compiled(module):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[module], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match="combine_layers: expected at least one layer"):
        combine_layers([])
    with pytest.raises(ValueError, match=r'how must be "mean", "concat" or one weight .* \'sum\''):
        LayerCombination("sum")
    with pytest.raises(ValueError, match=r"one weight for each of 2 layers .the table counts as"):
        combine_layers([x, x], [1.0])
    with pytest.raises(ValueError, match=r"one weight for each of 2 layers .* got 0"):
        combine_layers([x, x], [])
    with pytest.raises(ValueError, match=r"layers\[1\]: expected 2 rows"):
        combine_layers([x, x[:1]])
    with pytest.raises(
        ValueError, match=r'got layers\[0\] \(2, 3\), layers\[1\] \(2, 2\).*"concat"'
    ):
        combine_layers([x, x[:, :2]])
    with pytest.raises(ValueError, match="PropagatedEmbedding: Doubled has no num_embeddings"):
        PropagatedEmbedding(Doubled(), [])
    with pytest.raises(ValueError, match="table: expected 6 rows"):
        PropagatedEmbedding(nn.Embedding(5, 4), [], num_nodes=6)(GRAPH)
    with pytest.raises(ValueError, match="nodes: expected 5 rows"):
        PropagatedEmbedding(nn.Embedding(6, 4), [LightGCNConv()])(GRAPH)
