"""Edges and nodes left out at random."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import bipartite_adjacency, build_adjacency, propagate, reweight
from embedkit.graph.dropout import edge_dropout, node_dropout


def dense(adjacency):
    out = torch.zeros(adjacency.num_rows, adjacency.num_cols, dtype=adjacency.value.dtype)
    return out.index_put((adjacency.row, adjacency.col), adjacency.value, accumulate=True)


def clicks(seed=0, users=12, items=15, **settings):
    draw = torch.Generator().manual_seed(seed)
    user = torch.randint(users, (60,), generator=draw)
    item = torch.randint(items, (60,), generator=draw)
    return bipartite_adjacency(user, item, users, items, dtype=torch.float64, **settings)


@given(seed=st.integers(0, 2**31), p=st.sampled_from([0.1, 0.5, 0.9]))
def test_a_symmetric_matrix_stays_symmetric(seed, p):
    adjacency = clicks(seed)
    assert adjacency.transpose is None
    dropped = edge_dropout(adjacency, p, generator=torch.Generator().manual_seed(seed))
    assert dropped.transpose is None
    assert torch.equal(dense(dropped), dense(dropped).T)
    kept = dropped.value != 0
    torch.testing.assert_close(dropped.value[kept], adjacency.value[kept] / (1 - p))
    assert dropped.crow is adjacency.crow
    assert dropped.col is adjacency.col


@pytest.mark.parametrize("drop", [edge_dropout, node_dropout])
@pytest.mark.parametrize("norm", ["sym", "row"])
@given(seed=st.integers(0, 2**31))
def test_forward_and_backward_are_those_of_the_dense_matrix(drop, norm, seed):
    dropped = drop(clicks(seed, norm=norm), 0.4, generator=torch.Generator().manual_seed(seed))
    x = torch.randn(27, 3, dtype=torch.float64, requires_grad=True)
    g = torch.randn(27, 3, dtype=torch.float64)
    torch.testing.assert_close(propagate(x, dropped), dense(dropped) @ x)
    (got,) = torch.autograd.grad(propagate(x, dropped), x, g)
    torch.testing.assert_close(got, dense(dropped).T @ g)


@pytest.mark.parametrize("drop", [edge_dropout, node_dropout])
@pytest.mark.parametrize("norm", ["sym", "row"])
def test_the_expected_matrix_is_the_matrix(drop, norm):
    adjacency, generator = clicks(norm=norm), torch.Generator().manual_seed(0)
    ready = reweight(adjacency, adjacency.value) if drop is node_dropout else adjacency
    drawn = torch.stack([drop(ready, 0.3, generator=generator).value for _ in range(4000)])
    assert 0.28 < (drawn == 0).double().mean() < 0.32
    torch.testing.assert_close(drawn.mean(0), adjacency.value, rtol=0.06, atol=0)


def test_directions_of_a_matrix_that_has_some_fall_alone():
    dropped = edge_dropout(clicks(norm="row"), 0.5, generator=torch.Generator().manual_seed(0))
    zero = dense(dropped) == 0
    assert not torch.equal(zero, zero.T)


def test_a_silent_node_is_silent_everywhere():
    adjacency = clicks()
    dropped = node_dropout(adjacency, 0.5, generator=torch.Generator().manual_seed(3))
    silent = (dense(dropped) == 0).all(dim=0) & (dense(adjacency) != 0).any(dim=0)
    assert 0 < silent.sum() < 27
    rest = dense(dropped)[:, ~silent]
    torch.testing.assert_close(rest, 2 * dense(adjacency)[:, ~silent])


@pytest.mark.parametrize("drop", [edge_dropout, node_dropout])
def test_nothing_happens_outside_of_training(drop):
    adjacency = clicks()
    assert drop(adjacency, 0.5, training=False) is adjacency
    assert drop(adjacency, 0.0) is adjacency


@pytest.mark.parametrize("drop", [edge_dropout, node_dropout])
def test_seeds_decide(drop):
    adjacency = clicks()
    one, two, other = (
        drop(adjacency, 0.5, generator=torch.Generator().manual_seed(seed)).value
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    torch.manual_seed(5)
    one = drop(adjacency, 0.5).value
    assert not torch.equal(one, drop(adjacency, 0.5).value)
    torch.manual_seed(5)
    assert torch.equal(one, drop(adjacency, 0.5).value)


@pytest.mark.parametrize("drop", [edge_dropout, node_dropout])
def test_weights_get_a_gradient_where_they_stayed(drop):
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    weight = torch.ones(4, requires_grad=True)
    adjacency = build_adjacency(edge_index, weight, norm="none")
    dropped = drop(adjacency, 0.5, generator=torch.Generator().manual_seed(1))
    dropped.value.sum().backward()
    assert sorted(weight.grad.tolist()) == sorted(dropped.value.tolist())


@pytest.mark.parametrize("drop", [edge_dropout, node_dropout])
def test_an_empty_graph_stays_empty(drop):
    empty = build_adjacency(torch.zeros(2, 0).long(), num_nodes=3)
    assert drop(empty, 0.5).value.shape == (0,)
    assert drop(build_adjacency(torch.zeros(2, 0).long()), 0.5).num_rows == 0


@pytest.mark.compile
@pytest.mark.parametrize("norm", ["sym", "row"])
def test_compiles_in_one_graph(norm):
    adjacency, x = clicks(norm=norm), torch.randn(27, 3, dtype=torch.float64)
    torch.compiler.reset()

    def step(x, adjacency):
        return propagate(x, edge_dropout(adjacency, 0.5)), propagate(x, node_dropout(adjacency))

    for out in torch.compile(step, fullgraph=True, backend="aot_eager")(x, adjacency):
        assert out.shape == x.shape


@pytest.mark.parametrize("drop", [edge_dropout, node_dropout])
@pytest.mark.parametrize("p", [1.0, -0.1, float("nan")])
def test_errors_teach(drop, p):
    with pytest.raises(ValueError, match=rf"{drop.__name__}: p must lie in \[0, 1\), got"):
        drop(clicks(), p)
