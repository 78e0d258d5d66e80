"""Orbit adjacencies against an enumeration of all subgraphs, networkx and closed forms."""

import itertools

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.graph.structure import _orbit_counts, _orbit_matrices, _wiring
from embedkit.graph.structure._orbit_matrices import ORBIT_KEYS
from embedkit.graph.structure.factorize import ppmi_factorize
from embedkit.graph.structure.graphlet_degrees import (
    edge_graphlet_degree_vectors,
    graphlet_degree_vectors,
)
from embedkit.graph.structure.orbits import graphlet_adjacency, orbit_adjacencies, orbit_adjacency

# sorted degrees of a subgraph -> {degree: orbit}
ORBITS = {
    (1, 1): {1: 0},
    (1, 1, 2): {1: 1, 2: 2},
    (2, 2, 2): {2: 3},
    (1, 1, 2, 2): {1: 4, 2: 5},
    (1, 1, 1, 3): {1: 6, 3: 7},
    (2, 2, 2, 2): {2: 8},
    (1, 2, 2, 3): {1: 9, 2: 10, 3: 11},
    (2, 2, 3, 3): {2: 12, 3: 13},
    (3, 3, 3, 3): {3: 14},
}


def edges_of(graph):
    edges = torch.tensor(list(graph.edges), dtype=torch.long).reshape(-1, 2).T
    return torch.cat([edges, edges.flip(0)], dim=1)


def dense(adjacency):
    out = torch.zeros(adjacency.num_rows, adjacency.num_cols, dtype=torch.float64)
    out[adjacency.row, adjacency.col] = adjacency.value
    return out


def brute_force(graph):
    """Every connected induced subgraph of 2 to 4 nodes; its orbits by degree."""
    n = graph.number_of_nodes()
    found = {key: torch.zeros(n, n, dtype=torch.float64) for key in ORBIT_KEYS}
    degrees = torch.zeros(n, 15, dtype=torch.long)
    for size in (2, 3, 4):
        for nodes in itertools.combinations(range(n), size):
            part = graph.subgraph(nodes)
            if not networkx.is_connected(part):
                continue
            orbit = ORBITS[tuple(sorted(d for _, d in part.degree))]
            hops = dict(networkx.all_pairs_shortest_path_length(part))
            for u in nodes:
                degrees[u, orbit[part.degree[u]]] += 1
                for v in set(nodes) - {u}:
                    key = hops[u][v], orbit[part.degree[u]], orbit[part.degree[v]]
                    found[key][u, v] += 1
    return found, degrees


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), n=st.integers(0, 9), density=st.floats(0.15, 0.95))
def test_all_28_equal_brute_force(seed, n, density):
    graph = networkx.gnp_random_graph(n, density, seed=seed)
    want, degrees = brute_force(graph)
    edges = edges_of(graph)
    for key, adjacency in orbit_adjacencies(edges, n).items():
        assert torch.equal(dense(adjacency), want[key]), key
        assert (adjacency.value > 0).all()
        assert (adjacency.transpose is None) == (key[1] == key[2])
    assert torch.equal(graphlet_degree_vectors(edges, n), degrees)


def test_all_28_occur_and_small_blocks_change_nothing(monkeypatch):
    edges = edges_of(networkx.gnp_random_graph(25, 0.3, seed=1))
    whole = orbit_adjacencies(edges)
    assert set(whole) == set(ORBIT_KEYS)
    assert all(len(a.value) for a in whole.values())
    monkeypatch.setattr(_orbit_matrices, "_BLOCK", 30)
    for module in (_wiring, _orbit_counts):
        monkeypatch.setattr(module, "_WEDGES", 20)
    for key, adjacency in orbit_adjacencies(edges).items():
        assert torch.equal(adjacency.crow, whole[key].crow)
        assert torch.equal(adjacency.col, whole[key].col)
        assert torch.equal(adjacency.value, whole[key].value)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.95])
def test_what_is_expanded_at_once_is_bounded_in_dense_graphs(monkeypatch, density):
    nodes, sizes = 60, []

    def expand(crow, rows):
        found = _wiring_expand(crow, rows)
        sizes.append(len(found[0]))
        return found

    _wiring_expand = _wiring.expand
    for module in (_wiring, _orbit_counts):
        monkeypatch.setattr(module, "expand", expand)
        monkeypatch.setattr(module, "_WEDGES", 300)
    monkeypatch.setattr(_orbit_matrices, "_BLOCK", 300)
    edges = edges_of(networkx.gnp_random_graph(nodes, density, seed=0))
    degree = int(torch.bincount(edges[0]).max())
    graphlet_degree_vectors(edges, nodes)
    # A block is full before its last row, whose neighbours may be joined by degree^2 / 2 edges.
    assert max(sizes) <= 300 + max(nodes, degree**2 // 2)


def test_triangles_are_listed_where_they_are_needed_and_counted_before(monkeypatch):
    edges = edges_of(networkx.complete_graph(12))
    with pytest.raises(
        MemoryError, match=r"orbit_adjacencies: 220 triangles, 3 entries each .* than 500 entries"
    ):
        orbit_adjacency(edges, 12, 1, 14, 14, max_entries=500)
    assert len(orbit_adjacency(edges, 12, 1, 14, 14, max_entries=660).value) == 132
    monkeypatch.setattr(_orbit_matrices, "_CORNERS", 500)
    with pytest.raises(MemoryError, match="graphlet_degree_vectors: 220 triangles"):
        graphlet_degree_vectors(edges)
    assert orbit_adjacency(edges, 12, 1, 3, 3, max_entries=500).value.eq(10).all()


def test_the_graph_by_hand():
    edges = torch.tensor([[0, 1, 1, 2, 2, 0, 2, 3, 3, 4], [1, 0, 2, 1, 0, 2, 3, 2, 4, 3]])
    want = {
        (1, 1, 2): {(0, 2): 1, (1, 2): 1, (2, 3): 1, (3, 2): 2, (4, 3): 1},
        (1, 4, 5): {(0, 2): 1, (1, 2): 1, (4, 3): 2},
        (2, 4, 5): {(0, 3): 1, (1, 3): 1, (4, 2): 2},
        (1, 5, 5): {(2, 3): 2, (3, 2): 2},
        (3, 4, 4): {(0, 4): 1, (1, 4): 1, (4, 0): 1, (4, 1): 1},
        (1, 9, 11): {(3, 2): 1},
        (1, 11, 9): {(2, 3): 1},
        (2, 9, 10): {(3, 0): 1, (3, 1): 1},
        (1, 6, 7): {},
        (1, 14, 14): {},
    }
    found = orbit_adjacencies(edges, keys=want)
    for key, entries in want.items():
        a = found[key]
        got = zip(a.row.tolist(), a.col.tolist(), a.value.tolist(), strict=True)
        assert {(row, col): value for row, col, value in got} == entries
    degrees = graphlet_degree_vectors(edges)
    assert degrees[0].tolist() == [2, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert degrees[3].tolist() == [2, 2, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_karate_sums():
    edges = edges_of(networkx.karate_club_graph())
    found = orbit_adjacencies(edges)
    want = {
        (1, 0, 0): 156, (1, 1, 2): 786, (2, 1, 1): 786, (1, 3, 3): 270, (1, 4, 5): 1362,
        (2, 4, 5): 1362, (1, 5, 5): 1362, (3, 4, 4): 1362, (1, 6, 7): 3294, (2, 6, 6): 6588,
        (1, 8, 8): 288, (2, 8, 8): 144, (1, 9, 11): 452, (2, 9, 10): 904, (1, 10, 10): 904,
        (1, 10, 11): 904, (1, 12, 13): 340, (2, 12, 12): 170, (1, 13, 13): 170, (1, 14, 14): 132,
    }  # fmt: skip
    assert {key: int(found[key].value.sum()) for key in want} == want
    degrees = graphlet_degree_vectors(edges)
    columns = [156, 786, 393, 135, 1362, 1362, 3294, 1098, 144, 452, 904, 452, 170, 170, 44]
    assert degrees.sum(0).tolist() == columns
    assert degrees[0].tolist() == [16, 17, 102, 18, 81, 197, 13, 352, 10, 6, 34, 171, 2, 30, 7]


def test_triangles_equal_networkx():
    graph = networkx.barabasi_albert_graph(300, 4, seed=0)
    triangles = networkx.triangles(graph)
    got = graphlet_degree_vectors(edges_of(graph))[:, 3]
    assert got.tolist() == [triangles[node] for node in range(300)]


def test_closed_forms():
    clique = orbit_adjacencies(edges_of(networkx.complete_graph(7)))
    off = 1 - torch.eye(7).double()
    for key, adjacency in clique.items():
        count = {(1, 0, 0): 1, (1, 3, 3): 5, (1, 14, 14): 10}.get(key, 0)
        assert torch.equal(dense(adjacency), count * off), key
    star = orbit_adjacencies(edges_of(networkx.star_graph(5)))  # node 0 is the centre
    assert dense(star[1, 6, 7])[1:, 0].tolist() == [6.0] * 5
    assert dense(star[2, 6, 6])[1, 2] == 3
    assert dense(star[1, 1, 2])[1, 0] == 4
    square = orbit_adjacencies(edges_of(networkx.cycle_graph(4)))
    assert square[1, 8, 8].value.tolist() == [1.0] * 8
    assert square[2, 8, 8].value.tolist() == [1.0] * 4
    assert square[2, 1, 1].value.tolist() == [2.0] * 4


def test_walks_of_three_steps_see_a_fixed_mixture():
    edges = edges_of(networkx.gnp_random_graph(20, 0.3, seed=4))
    found = {key: dense(value) for key, value in orbit_adjacencies(edges).items()}
    a = found[1, 0, 0]
    degree = a.sum(1)
    walks = a @ a @ a - a * (degree[:, None] + degree - 1)
    mixture = sum(
        found[key]
        for key in [(3, 4, 4), (1, 8, 8), (2, 9, 10), (2, 10, 9), (1, 12, 13), (1, 13, 12)]
    )
    mixture = mixture + 2 * found[2, 12, 12] + 2 * found[1, 14, 14]
    off = 1 - torch.eye(20).double()
    assert torch.equal(walks * off, mixture * off)
    torch.testing.assert_close((a @ a) * off, found[2, 1, 1] + found[1, 3, 3])


@given(seed=st.integers(0, 2**31))
def test_names_of_nodes_do_not_matter(seed):
    torch.manual_seed(seed)
    edges, order = edges_of(networkx.gnp_random_graph(12, 0.35, seed=seed)), torch.randperm(12)
    renamed = orbit_adjacencies(order[edges], 12)
    for key, adjacency in orbit_adjacencies(edges, 12).items():
        assert torch.equal(dense(renamed[key])[order][:, order], dense(adjacency))


def test_transposes_share_storage():
    found = orbit_adjacencies(edges_of(networkx.karate_club_graph()))
    for one, other in (((1, 1, 2), (1, 2, 1)), ((2, 4, 5), (2, 5, 4))):
        assert torch.equal(dense(found[one]).T, dense(found[other]))
        assert found[other].transpose.col.data_ptr() == found[one].col.data_ptr()


def test_one_matrix_and_one_graphlet():
    edges = edges_of(networkx.gnp_random_graph(15, 0.35, seed=2))
    found = {key: dense(value) for key, value in orbit_adjacencies(edges).items()}
    assert torch.equal(dense(orbit_adjacency(edges, 15, 2, 5, 4)), found[2, 5, 4])
    paw = [key for key in found if key[1] in (9, 10, 11)]
    got = graphlet_adjacency(edges, 15, 6)
    assert got.transpose is None
    assert torch.equal(dense(got), sum(found[key] for key in paw))


def test_edge_vectors_follow_the_columns_of_the_edges():
    edges = edges_of(networkx.gnp_random_graph(12, 0.4, seed=5))
    found = {key: dense(value) for key, value in orbit_adjacencies(edges).items()}
    vectors = edge_graphlet_degree_vectors(edges)
    assert vectors.shape == (edges.shape[1], 12)
    u, v = edges
    star = found[1, 6, 7][u, v] + found[1, 7, 6][u, v]
    assert vectors[:, 4].tolist() == star.tolist()
    assert vectors[:, 11].tolist() == found[1, 14, 14][u, v].tolist()


def test_coerce_makes_the_graph_simple():
    messy = torch.tensor([[0, 1, 2, 2, 0], [1, 2, 0, 2, 1]])
    clean = torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]])
    assert torch.equal(graphlet_degree_vectors(messy, coerce=True), graphlet_degree_vectors(clean))
    assert edge_graphlet_degree_vectors(messy, coerce=True)[:, 1].tolist() == [1, 1, 1, 0, 1]


def test_progress_wraps_the_blocks():
    seen = []
    edges = edges_of(networkx.cycle_graph(6))
    orbit_adjacencies(edges, progress=lambda blocks: seen.extend(blocks) or blocks)
    assert torch.cat(seen).tolist() == list(range(6))


def test_embedding_of_one_orbit_covers_its_nodes_only():
    edges = edges_of(networkx.star_graph(4))
    source = ppmi_factorize(orbit_adjacency(edges, 5, 2, 6, 6), 3).source
    assert source.dtype == torch.float64
    assert source.any(1).tolist() == [False, True, True, True, True]


def test_errors_teach():
    edges = torch.tensor([[0, 1, 1, 1, 2], [1, 0, 1, 0, 0]])
    words = "1 self loops, 1 duplicates and 1 edges without their reverse"
    for call in (orbit_adjacencies, graphlet_degree_vectors, edge_graphlet_degree_vectors):
        with pytest.raises(ValueError, match=f"{call.__name__}: expected an undirected.*{words}"):
            call(edges)
    fine = edges_of(networkx.karate_club_graph())
    with pytest.raises(ValueError, match=r"no graphlet of up to 4 nodes has \(2, 1, 2\)"):
        orbit_adjacency(fine, 34, 2, 1, 2)
    with pytest.raises(ValueError, match="graphlet must be 0 to 8, for G0 to G8, got 9"):
        graphlet_adjacency(fine, 34, 9)
    with pytest.raises(ValueError, match=r"must lie in \[0, 9\] for num_nodes=10, got .* 33"):
        orbit_adjacencies(fine, 10)
    with pytest.raises(MemoryError, match=r"of them in \(2, 1, 1\), are more than max_entries=200"):
        orbit_adjacencies(fine, max_entries=200)


@pytest.mark.wording
def test_edges_are_two_rows_of_integers():
    with pytest.raises(TypeError, match="edge_index: expected integers"):
        orbit_adjacencies(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="It looks transposed"):
        orbit_adjacencies(torch.zeros(5, 2, dtype=torch.long))
