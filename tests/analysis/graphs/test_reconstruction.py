"""Reconstruction: the spec's numbers, oracles, ties by brute force, and what must not matter."""

import math
from itertools import pairwise, permutations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from embedkit.analysis.graphs import reconstruction as module
from embedkit.analysis.graphs.hops import hop_distances
from embedkit.analysis.graphs.pairs import best_pairs, pair_precision
from embedkit.analysis.graphs.precision import (
    average_precision,
    chance_precision,
    expected_precision,
    sort_scores,
)
from embedkit.analysis.graphs.reconstruction import reconstruction_metrics
from embedkit.graph import build_adjacency
from embedkit.graph.structure.proximity import hope_embedding

EVERY = ("within", "not_closer", "exact")


def undirected(edges, size=None):
    both = torch.cat([edges, edges.flip(0)], dim=1)
    return build_adjacency(both, num_nodes=size, norm="none", dtype=torch.float64)


def path():
    return undirected(torch.tensor([[0, 1, 2], [1, 2, 3]]))


def karate():
    return undirected(torch.tensor(list(nx.karate_club_graph().edges)).T)


def maps(*args, **settings_):
    return [hop.map for hop in reconstruction_metrics(*args, **settings_).hops]


def test_ap_of_the_spec():
    score, relevant = torch.tensor([[0.9, 0.2, 0.7, 0.4]]), torch.tensor([[1, 1, 0, 0]]).bool()
    assert average_precision(score, relevant).item() == 0.75


@given(seed=st.integers(0, 2**31), n=st.integers(2, 30))
def test_ap_without_ties_is_scikit_learn(seed, n):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randperm(n, generator=generator)[None].double()
    relevant = torch.rand(1, n, generator=generator) < 0.4
    relevant[0, 0] = True
    candidate = relevant | (torch.rand(1, n, generator=generator) < 0.7)
    keep = candidate[0]
    want = average_precision_score(relevant[0, keep].int(), score[0, keep])
    assert average_precision(score, relevant, candidate).item() == pytest.approx(want)


@settings(max_examples=40)
@given(data=st.data(), n=st.integers(1, 6))
def test_ties_count_with_the_mean_over_all_their_orders(data, n):
    draw = lambda values: data.draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    score, relevant, candidate = draw(st.integers(0, 2)), draw(st.booleans()), draw(st.booleans())
    want_ap, want_cut, count = 0.0, 0.0, 0
    for order in permutations(range(n)):
        if any(score[a] < score[b] for a, b in pairwise(order)):
            continue
        hits = [relevant[i] for i in order if candidate[i]]
        ranks = [r + 1 for r, hit in enumerate(hits) if hit]
        want_ap += sum((i + 1) / r for i, r in enumerate(ranks)) / max(len(ranks), 1)
        want_cut += sum(hits[:2]) / 2
        count += 1
    tensors = torch.tensor([score]).double(), torch.tensor([relevant]), torch.tensor([candidate])
    ap, cut, _ = expected_precision(sort_scores(tensors[0]), *tensors[1:], at=[2])
    if any(r and c for r, c in zip(relevant, candidate, strict=True)):
        assert ap.item() == pytest.approx(want_ap / count)
    else:
        assert math.isnan(ap.item())
    assert cut.item() == pytest.approx(want_cut / count)


@given(n=st.integers(1, 20), r=st.integers(1, 20))
def test_a_constant_score_has_chance_level(n, r):
    r = min(n, r)
    relevant = torch.arange(n)[None] < r
    everything = torch.ones_like(relevant)
    got = expected_precision(sort_scores(torch.zeros(1, n)), relevant, everything, [1, 5])
    counts = torch.tensor([float(r)]), torch.tensor([float(n)])
    for a, b in zip(got[:2], chance_precision(*counts, [1, 5]), strict=True):
        torch.testing.assert_close(a, b)
    assert got[2].isnan().item() if n == r else got[2].item() == pytest.approx(0.5)


def test_the_path_of_the_spec():
    source, target = hope_embedding(path(), 4, 0.1)
    got = {c: maps(source, path(), target=target, candidates=c) for c in EVERY}
    assert got["within"] == pytest.approx([1.0, 11 / 12, 1.0])
    assert got["exact"] == pytest.approx([1.0, 1 / 3, 0.5])


def test_perfect_distances_on_karate():
    hops = hop_distances(karate(), torch.arange(34), 20).double()
    for candidates in EVERY:
        got = maps(lambda nodes: -hops[nodes], karate(), candidates=candidates)
        want = [1.0, 0.617, 0.189] if candidates == "exact" else [1.0, 1.0, 1.0]
        assert got == pytest.approx(want, abs=5e-4)
        # Which any other score is told as the best there is.
        report = reconstruction_metrics(torch.eye(34), karate(), candidates=candidates)
        assert [hop.oracle for hop in report.hops] == pytest.approx(want, abs=5e-4)
        reach = [float(((hops > 0) & (hops <= k)).sum()) / (34 * 33) for k in (1, 2, 3)]
        assert [hop.reach for hop in report.hops] == pytest.approx(reach)


def test_hope_on_karate_has_the_values_of_the_spec():
    generator = torch.Generator().manual_seed(0)
    source, target = hope_embedding(karate(), 68)
    assert maps(source, karate(), target=target) == pytest.approx([1.0, 0.999, 0.996], abs=5e-4)
    source, target = hope_embedding(karate(), 16, generator=generator)
    got = maps(source, karate(), target=target)
    assert got == pytest.approx([0.966, 0.937, 0.912], abs=4e-3)


@pytest.mark.parametrize("candidates", EVERY)
@pytest.mark.parametrize("score", ["dot", "cosine", "neg_sqeuclidean"])
def test_equals_scikit_learn_on_networkx_distances(score, candidates):
    graph = nx.gnp_random_graph(15, 0.15, seed=3)
    y = torch.randn(15, 4, generator=torch.Generator().manual_seed(0)).double()
    if score == "neg_sqeuclidean":
        scores = -torch.cdist(y, y).square()
    else:
        unit = y / y.norm(dim=1, keepdim=True)
        scores = y @ y.T if score == "dot" else unit @ unit.T
    lengths = dict(nx.all_pairs_shortest_path_length(graph))
    edges = torch.tensor(list(graph.edges)).T
    report = reconstruction_metrics(
        y, undirected(edges, 15), score=score, candidates=candidates, hops=[2]
    )
    for i in range(15):
        hop = torch.tensor([lengths[i].get(j, 99) for j in range(15)])
        inside = {"within": hop > 0, "exact": hop > 0, "not_closer": hop >= 2}[candidates]
        found = (hop > 0) & (hop <= 2) if candidates == "within" else hop == 2
        if found.any():
            want = average_precision_score(found[inside].int(), scores[i, inside])
            assert report.hops[0].ap[i].item() == pytest.approx(want)
        else:
            assert report.hops[0].ap[i].isnan()
    real = ~report.hops[0].ap.isnan()
    assert report.hops[0].nodes == int(real.sum())


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_monotone_scores_renumbering_and_blocks_change_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    edges = (torch.rand(20, 20, generator=generator) < 0.1).nonzero().T  # directed
    graph = build_adjacency(edges, num_nodes=20, norm="none")
    scores = torch.randn(20, 20, generator=generator).double()
    first = reconstruction_metrics(lambda i: scores[i], graph, hops=[1, 2])
    again = reconstruction_metrics(lambda i: (3 * scores[i]).exp(), graph, hops=[1, 2])
    order = torch.randperm(20, generator=generator)
    back = order.argsort()
    moved = build_adjacency(order[edges], num_nodes=20, norm="none")
    other = reconstruction_metrics(lambda i: scores[back[i]][:, back], moved, hops=[1, 2])
    for a, b, c in zip(first.hops, again.hops, other.hops, strict=True):
        assert a.map == b.map == pytest.approx(c.map)
        torch.testing.assert_close(c.ap[order], a.ap, equal_nan=True)


def test_blocks_change_nothing(monkeypatch):
    y = torch.randn(34, 8, generator=torch.Generator().manual_seed(0))
    want = maps(y, karate(), precision_at=[3])
    monkeypatch.setattr(module, "_ENTRIES", 100)
    assert maps(y, karate(), precision_at=[3]) == pytest.approx(want)


def test_random_scores_stay_within_three_errors_of_chance():
    graph = undirected(torch.tensor(list(nx.gnp_random_graph(150, 0.03, seed=1).edges)).T, 150)
    generator = torch.Generator().manual_seed(0)
    report = reconstruction_metrics(
        lambda nodes: torch.rand(len(nodes), 150, generator=generator), graph, precision_at=[10]
    )
    for hop in report.hops:
        error = float(hop.ap[~hop.ap.isnan()].std()) / hop.nodes**0.5
        assert abs(hop.map - hop.chance) < 3 * error
        assert abs(hop.normalized) < 3 * error / (1 - hop.chance)
        assert hop.precision[10][0] == pytest.approx(hop.precision[10][1], abs=0.05)
        assert hop.standard_error == 0.0


def test_a_sample_tells_its_error():
    y = torch.randn(34, 8, generator=torch.Generator().manual_seed(0))
    every = reconstruction_metrics(y, karate(), hops=[1]).hops[0]
    part = reconstruction_metrics(y, karate(), hops=[1], query=torch.arange(0, 34, 2)).hops[0]
    torch.testing.assert_close(part.ap, every.ap[::2])
    want = float(part.ap.std()) / 17**0.5 * 0.5**0.5
    assert part.standard_error == pytest.approx(want)


def test_large_graphs_are_sampled():
    size = 50_001
    nodes = torch.arange(size)
    ring = undirected(torch.stack([nodes, (nodes + 1) % size]))
    angle = 2 * math.pi * nodes.double() / size
    y = torch.stack([angle.cos(), angle.sin()], dim=1)
    report = reconstruction_metrics(
        y, ring, hops=[1], max_queries=3, generator=torch.Generator().manual_seed(0)
    )
    assert len(report.query) == 3
    assert report.hops[0].map > 0.99


def test_beyond_the_diameter_there_is_a_warning_and_no_number():
    with pytest.warns(UserWarning, match="no node asked has another at 4 hops, so mAP is NaN"):
        report = reconstruction_metrics(torch.eye(4), path(), hops=[1, 4])
    assert math.isnan(report.hops[1].map)
    assert report.hops[1].nodes == 0
    assert str(report).splitlines()[0] == "score dot, candidates not_closer, 4 queries"
    assert len(str(report).splitlines()) == 4
    assert math.isnan(report.hops[1].oracle)
    assert math.isnan(report.hops[1].auc)
    assert report.hops[1].reach == 1.0


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embedding": torch.eye(3)}, r"embedding: expected 4 rows.*One vector per node"),
        ({"target": torch.ones(4, 2)}, r"target: expected last axis of size 4.*need one width"),
        ({"embedding": torch.full((4, 2), torch.nan)}, "embedding must be finite, got NaN"),
        ({"score": "euclidean"}, "score must be one of dot, cosine, neg_sqeuclidean, got 'eu"),
        ({"candidates": "all"}, "candidates must be one of not_closer, exact, within, got 'all'"),
        ({"hops": []}, "hops must name a distance, got none"),
        ({"hops": [0]}, "each of hops must be >= 1, got 0"),
        ({"precision_at": [0]}, "precision_at: k must be >= 1, got 0"),
        (
            {"score": "cosine", "embedding": lambda i: torch.ones(len(i), 4)},
            "score and target must",
        ),
        (
            {"target": torch.eye(4), "embedding": lambda i: torch.ones(4, 4)},
            "score and target must",
        ),
        ({"query": torch.tensor([4])}, r"nodes must lie in \[0, 3\]"),
        ({"embedding": lambda i: torch.full((len(i), 4), torch.nan)}, "must not be NaN, got 16"),
        ({"embedding": lambda i: torch.ones(3)}, r"one score per node of the graph, \(4, 4\), go"),
    ],
)
def test_bad_arguments_are_explained(change, words):
    given_ = {"embedding": torch.eye(4), "adjacency": path()} | change
    with pytest.raises(ValueError, match=words):
        reconstruction_metrics(**given_)


@pytest.mark.wording
def test_wrong_types_are_explained():
    with pytest.raises(TypeError, match=r"reconstruction_metrics: expected an Adjacency, got Tens"):
        reconstruction_metrics(torch.eye(4), torch.tensor([[0, 1], [1, 0]]))
    with pytest.raises(TypeError, match=r"query: expected integers, got torch\.bool"):
        reconstruction_metrics(torch.eye(4), path(), query=torch.ones(4, dtype=torch.bool))


@pytest.mark.wording
def test_bad_masks_are_explained():
    with pytest.raises(TypeError, match=r"relevant: expected bool, got torch\.int64"):
        average_precision(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.long))


@pytest.mark.parametrize("candidates", EVERY)
def test_a_constant_embedding_has_the_chance_of_its_convention(candidates):
    y = torch.ones(34, 2)
    for hop in reconstruction_metrics(y, karate(), candidates=candidates, precision_at=[5]).hops:
        assert hop.map == pytest.approx(hop.chance)
        assert hop.precision[5][0] == pytest.approx(hop.precision[5][1])
        assert hop.normalized == pytest.approx(0.0)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), values=st.sampled_from([3, 10**6]), rows=st.integers(1, 5))
def test_auc_and_the_best_pairs_are_scikit_learn_and_counting(seed, values, rows):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(values, (rows, 12), generator=generator).double()
    relevant, candidate = torch.rand(2, rows, 12, generator=generator) < 0.6
    auc = expected_precision(sort_scores(score), relevant, candidate)[2]
    for i in range(rows):
        keep = candidate[i]
        if relevant[i, keep].unique().numel() == 2:
            want = roc_auc_score(relevant[i, keep].int(), score[i, keep])
            assert auc[i].item() == pytest.approx(want)
        else:
            assert auc[i].isnan()
    at, best = [1, 4, 100], None
    for i in range(rows):
        part = slice(i, i + 1)
        best = best_pairs(score[part], relevant[part], candidate[part], max(at), best)
    flat = score[candidate][None], relevant[candidate][None], candidate[candidate][None]
    want = expected_precision(sort_scores(flat[0]), *flat[1:], at)[1][0]
    assert pair_precision(best, at) == pytest.approx(want.tolist())
    few = best_pairs(score, relevant, candidate, 4)
    assert pair_precision(few, at[:2]) == pytest.approx(want[:2].tolist())


def test_pairs_of_all_nodes_are_in_the_report(monkeypatch):
    y = torch.randn(34, 8, generator=torch.Generator().manual_seed(0)).double()
    want = reconstruction_metrics(y, karate(), precision_at=[10, 2000]).hops
    monkeypatch.setattr(module, "_ENTRIES", 100)
    got = reconstruction_metrics(y, karate(), precision_at=[10, 2000]).hops
    hops = hop_distances(karate(), torch.arange(34), 4)
    for k, one, other in zip((1, 2, 3), want, got, strict=True):
        assert one.pair_precision == other.pair_precision
        assert one.auc == pytest.approx(other.auc)
        score = (y @ y.T).masked_fill(hops < max(k, 1), -torch.inf).flatten()
        best = score.topk(10).indices
        share = float((hops.flatten()[best] == k).double().mean())
        chance = float((hops == k).sum() / (hops >= k).sum())
        assert one.pair_precision[10] == pytest.approx((share, chance))
        assert one.pair_precision[2000][0] == pytest.approx(float((hops == k).sum()) / 2000)
