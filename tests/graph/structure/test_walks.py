"""Walks: along edges, as likely as they should be, and windows on them."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.graph import build_adjacency
from embedkit.graph.structure import walks as module
from embedkit.graph.structure.walks import random_walks, walk_pairs

# A kite: 0-1-2 is a triangle, 3 hangs on 0, 4 on 3.
KITE = torch.tensor([[0, 0, 1, 0, 3], [1, 2, 2, 3, 4]])


def kite():
    return build_adjacency(torch.cat([KITE, KITE.flip(0)], 1), num_nodes=6, norm="none")


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), p=st.sampled_from([0.2, 1.0, 5.0]), q=st.floats(0.1, 9))
def test_walks_follow_edges_and_stop_at_dead_ends(seed, p, q):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(7, 7, generator=generator) < 0.25
    graph = build_adjacency(dense.nonzero().T, num_nodes=7, norm="none")
    paths = random_walks(graph, torch.arange(7), 6, p=p, q=q, generator=generator)
    assert torch.equal(paths[:, 0], torch.arange(7))
    for path in paths.tolist():
        for a, b in pairwise(path):
            assert (a == -1 and b == -1) or (b == -1 and not dense[a].any()) or dense[a, b]


@pytest.mark.parametrize("rounds", [0, 16])
@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.25, 4.0), (4.0, 0.5), (1.0, 0.05)])
def test_steps_are_as_likely_as_their_weights(p, q, rounds, monkeypatch):
    monkeypatch.setattr(module, "_ROUNDS", rounds)
    monkeypatch.setattr(module, "_ENTRIES", 4096)
    generator = torch.Generator().manual_seed(1)
    paths = random_walks(kite(), torch.full((30_000,), 1), 2, p=p, q=q, generator=generator)
    back = paths[paths[:, 1] == 0][:, 2]  # 1 -> 0, then: back to 1, to 2 (a triangle), or to 3
    got = torch.bincount(back, minlength=6)[[1, 2, 3]].double() / len(back)
    want = torch.tensor([1 / p, 1.0, 1 / q]).double()
    torch.testing.assert_close(got, want / want.sum(), atol=0.015, rtol=0)


def test_weights_and_directions_count():
    edges, weight = torch.tensor([[0, 0, 0, 1], [1, 2, 3, 0]]), torch.tensor([1.0, 3.0, 0.0, 2.0])
    graph = build_adjacency(edges, weight, num_nodes=4, norm="none")
    start = torch.zeros(20_000, dtype=torch.long)
    paths = random_walks(graph, start, 2, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(paths[:, 1], minlength=4).double() / len(start)
    torch.testing.assert_close(share, torch.tensor([0, 0.25, 0.75, 0]).double(), atol=0.01, rtol=0)
    assert (paths[paths[:, 1] == 2, 2] == -1).all()
    assert (paths[paths[:, 1] == 1, 2] == 0).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-17, 1.0, 1e300])
@pytest.mark.parametrize("q", [1.0, 0.999])
def test_weights_of_one_node_do_not_drown_in_those_of_others(scale, q, monkeypatch):
    monkeypatch.setattr(module, "_ROUNDS", 0)
    edges = torch.tensor([[0, 1, 2, 2, 2], [2, 0, 0, 1, 3]])
    weight = torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0]).double()
    weight[2:] *= scale
    graph = build_adjacency(edges, weight, num_nodes=4, norm="none")
    start = torch.zeros(20_000, dtype=torch.long)
    paths = random_walks(graph, start, 2, q=q, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(paths[:, 2], minlength=4).double() / len(start)
    torch.testing.assert_close(share, torch.tensor([1, 2, 0, 1]).double() / 4, atol=0.01, rtol=0)


def test_an_edge_of_weight_0_is_none():
    edges = torch.tensor([[0, 1, 0, 1], [1, 2, 2, 0]])
    graph = build_adjacency(edges, torch.tensor([1.0, 0, 0, 0]), num_nodes=3, norm="none")
    for p in (1.0, 2.0):
        assert random_walks(graph, torch.arange(2), 2, p=p).tolist() == [[0, 1, -1], [1, -1, -1]]


def test_one_seed_one_set_of_walks_and_empty_graphs():
    a, b = (
        random_walks(kite(), torch.arange(6), 9, q=2.0, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(a, b)
    nothing = build_adjacency(torch.empty(2, 0, dtype=torch.long), num_nodes=2, norm="none")
    assert random_walks(nothing, torch.arange(2), 2, p=2.0).tolist() == [[0, -1, -1], [1, -1, -1]]
    assert random_walks(kite(), torch.arange(0), 3, q=3.0).shape == (0, 4)


def test_visits_agree_with_networkx_stationary_share():
    nx = pytest.importorskip("networkx")
    graph = nx.karate_club_graph()
    edges = torch.tensor(list(graph.edges)).T
    built = build_adjacency(torch.cat([edges, edges.flip(0)], 1), norm="none")
    start = torch.arange(34).repeat(60)
    paths = random_walks(built, start, 60, generator=torch.Generator().manual_seed(0))[:, 20:]
    got = torch.bincount(paths.flatten(), minlength=34).double() / paths.numel()
    want = nx.pagerank(graph, alpha=1.0, weight=None, tol=1e-10, max_iter=1000)
    want = torch.tensor([want[i] for i in graph]).double()
    torch.testing.assert_close(got, want, atol=4e-3, rtol=0)


@given(seed=st.integers(0, 2**31), window=st.integers(1, 5))
def test_pairs_are_those_of_the_double_loop(seed, window):
    generator = torch.Generator().manual_seed(seed)
    paths = torch.randint(-1, 5, (3, 4), generator=generator)
    want = sorted(
        (a, b)
        for path in paths.tolist()
        for i, a in enumerate(path)
        for j, b in enumerate(path)
        if i != j and abs(i - j) <= window and a >= 0 and b >= 0
    )
    center, context = walk_pairs(paths, window)
    assert sorted(zip(center.tolist(), context.tolist(), strict=True)) == want


@pytest.mark.wording
def test_bad_arguments_are_explained():
    start = torch.arange(3)
    with pytest.raises(ValueError, match="random_walks: p must be > 0, got 0"):
        random_walks(kite(), start, 2, p=0.0)
    with pytest.raises(ValueError, match="random_walks: length must be >= 0, got -1"):
        random_walks(kite(), start, -1)
    with pytest.raises(ValueError, match=r"start must lie in \[0, 5\] for num_nodes=6, got val"):
        random_walks(kite(), start + 4, 2)
    with pytest.raises(TypeError, match=r"start: expected integers, got torch\.float32"):
        random_walks(kite(), start.float(), 2)
    negative = build_adjacency(KITE, -torch.ones(5), norm="none")
    with pytest.raises(ValueError, match="weights are chances, so they must be >= 0, got -1"):
        random_walks(negative, start, 2)
    with pytest.raises(TypeError, match="random_walks: expected an Adjacency, got Tensor"):
        random_walks(KITE, start, 2)
    with pytest.raises(ValueError, match="walk_pairs: window must be >= 1, got 0"):
        walk_pairs(start[None], 0)
