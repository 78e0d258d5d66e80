"""DAGNN: an encoder before, a propagation behind."""

import pytest
import torch
from graph.cases_depth import CASES, ring

from embedkit.graph.propagation.dagnn import DAGNN
from embedkit.testing import check_module


def test_it_is_its_parts():
    model = DAGNN(5, 6, 4, num_hops=3, dropout=0.8).eval()
    nodes, adjacency = torch.randn(7, 5), ring(7)
    first, second = model.encoder[1], model.encoder[4]
    hidden = second(first(nodes).relu())
    torch.testing.assert_close(model(nodes, adjacency), model.propagation(hidden, adjacency))
    assert sum(p.numel() for p in model.parameters()) == 5 * 6 + 6 + 6 * 4 + 4 + 4 + 1


def test_dropout_stands_before_both_matrices_and_in_training_only():
    model = DAGNN(5, 6, 4, dropout=0.5)
    assert [type(layer).__name__ for layer in model.encoder][::3] == ["Dropout", "Dropout"]
    nodes, adjacency = torch.randn(7, 5), ring(7)
    assert not torch.equal(model(nodes, adjacency), model(nodes, adjacency))
    model.eval()
    torch.testing.assert_close(model(nodes, adjacency), model(nodes, adjacency))


def test_reset_draws_all_parameters_again():
    model = DAGNN(5, 6, 4)
    torch.manual_seed(3)
    model.reset_parameters()
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.reset_parameters()
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())
    torch.manual_seed(3)
    model.reset_parameters()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_one_node_one_class_no_hop():
    nothing = torch.empty(2, 0, dtype=torch.long)
    assert DAGNN(3, 4, 1, num_hops=0)(torch.randn(1, 3), nothing).shape == (1, 1)


@pytest.mark.parametrize("case", CASES.values(), ids=[c.__name__ for c in CASES])
def test_contract(case):
    check_module(*case, exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("case", CASES.values(), ids=[c.__name__ for c in CASES])
def test_contract_compiled(case):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*case, exempt=dict.fromkeys(names.split(), "above"))


def test_errors_teach():
    with pytest.raises(ValueError, match="DAGNN: hidden must be >= 1, got 0"):
        DAGNN(5, 0, 4)
    with pytest.raises(ValueError, match="DAGNN: out_features must be >= 1, got 0"):
        DAGNN(5, 6, 0)
    with pytest.raises(ValueError, match=r"nodes: expected last axis of size 5, got shape \(3, 4"):
        DAGNN(5, 6, 4)(torch.randn(3, 4), ring(3))
