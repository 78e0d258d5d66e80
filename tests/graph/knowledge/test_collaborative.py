"""Knowledge graphs: order, groups, the operator of triples, and clicks and knowledge in one."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import propagate
from embedkit.graph.knowledge.collaborative import (
    KnowledgeGraph,
    collaborative_knowledge_graph,
    knowledge_graph,
)


def drawn(seed, count=15, nodes=5, relations=3):
    torch.manual_seed(seed)
    ends, relation = torch.randint(0, nodes, (count, 2)), torch.randint(0, relations, (count,))
    return torch.stack([ends[:, 0], relation, ends[:, 1]], dim=1)


def rows(graph):
    return list(zip(*(t.tolist() for t in graph[:3]), strict=True))


@given(seed=st.integers(0, 2**31), count=st.integers(0, 20), inverse=st.booleans())
def test_different_triples_in_order(seed, count, inverse):
    triples = drawn(seed, count)
    graph = knowledge_graph(triples, 5, 3, inverse=inverse)
    want = {tuple(t) for t in triples.tolist()}
    if inverse:
        want |= {(t, r + 3, h) for h, r, t in want}
    assert rows(graph) == sorted(want, key=lambda t: (t[1], t[0], t[2]))
    assert (graph.num_nodes, graph.num_relations) == (5, 6 if inverse else 3)


@given(seed=st.integers(0, 2**31))
def test_neither_order_nor_repeats_matter(seed):
    triples = drawn(seed)
    again = torch.cat([triples, triples[:7]])[torch.randperm(22)]
    one, other = knowledge_graph(triples, 5, 3), knowledge_graph(again, 5, 3)
    torch.testing.assert_close(other, one, rtol=0, atol=0)


@given(seed=st.integers(0, 2**31), count=st.integers(0, 20))
def test_groups_hold_their_triples(seed, count):
    graph = knowledge_graph(drawn(seed, count), 5, 3)
    found = []
    for relation, group in enumerate(graph.groups):
        assert torch.equal(group.heads, group.heads.unique())
        assert torch.equal(group.tails, group.tails.unique())
        head = group.heads.repeat_interleave(group.crow.diff())
        tails = group.tails[group.col]
        found += [(h, relation, t) for h, t in zip(head.tolist(), tails.tolist(), strict=True)]
    assert found == rows(graph)


@given(seed=st.integers(0, 2**31), count=st.integers(0, 20))
def test_the_operator_sums_over_triples(seed, count):
    graph = knowledge_graph(drawn(seed, count), 5, 3)
    nodes, weight = torch.randn(5, 4).double(), torch.randn(len(graph.head)).double()
    nodes.requires_grad_()
    weight.requires_grad_()
    got = propagate(nodes, graph.weighted(weight))
    want = 0 * nodes + 0 * weight.sum()
    for (h, _, t), w in zip(rows(graph), weight, strict=True):  # two of one pair add up
        want = want.index_add(0, torch.tensor([h]), w * nodes[t : t + 1])
    torch.testing.assert_close(got, want)
    probe = torch.randn(5, 4).double()
    ours = torch.autograd.grad((got * probe).sum(), (nodes, weight))
    theirs = torch.autograd.grad((want * probe).sum(), (nodes, weight))
    torch.testing.assert_close(ours, theirs)


def test_before_any_attention_a_node_hears_the_mean_over_its_triples():
    graph = knowledge_graph(drawn(3), 6, 3, dtype=torch.float64)  # node 5 is in no triple
    nodes = torch.randn(6, 2).double()
    mean = [nodes[graph.tail[graph.head == node]].mean(0) for node in range(5)]
    got = propagate(nodes, graph.adjacency)
    torch.testing.assert_close(got, torch.stack([*mean, torch.zeros(2).double()]))


def test_clicks_come_before_knowledge():
    clicks, facts = torch.tensor([[1, 0], [0, 2]]), torch.tensor([[2, 1, 3], [0, 0, 3]])
    graph = collaborative_knowledge_graph(
        *clicks.T, facts, num_users=2, num_items=3, num_entities=4, num_relations=2
    )
    there = [(0, 0, 4), (1, 0, 2), (2, 1, 5), (4, 2, 5)]
    back = [(t, r + 3, h) for h, r, t in there]
    assert rows(graph) == sorted(there + back, key=lambda t: (t[1], t[0], t[2]))
    assert (graph.num_nodes, graph.num_relations) == (6, 6)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_short_integers_do_not_overflow(dtype):
    user, item, facts = torch.tensor([0]), torch.tensor([100]), torch.tensor([[0, 0, 99]])
    sizes = {"num_users": 300, "num_items": 101, "num_entities": 101, "num_relations": 1}
    want = collaborative_knowledge_graph(user, item, facts, **sizes)
    got = collaborative_knowledge_graph(*(t.to(dtype) for t in (user, item, facts)), **sizes)
    assert rows(got) == rows(want)


def test_a_relation_without_triples_is_an_empty_group():
    graph = knowledge_graph(torch.tensor([[0, 2, 1]]), 2, 4)
    assert [len(group.col) for group in graph.groups] == [0, 0, 1, 0, 0, 0, 1, 0]
    bare = knowledge_graph(torch.zeros(0, 3, dtype=torch.long), 0, 1)
    assert propagate(torch.rand(0, 3), bare.adjacency).shape == (0, 3)


def test_it_copies_pickles_and_moves():
    graph = knowledge_graph(drawn(0).int(), 5, 3)
    for twin in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.to("cpu")):
        assert isinstance(twin, KnowledgeGraph)
        torch.testing.assert_close(twin, graph, rtol=0, atol=0)
    assert graph.to(dtype=torch.float64).adjacency.value.dtype == torch.float64
    assert graph.to("meta").groups[0].col.is_meta


@pytest.mark.wording
def test_errors_teach():
    facts, clicks = torch.tensor([[0, 0, 3]]), torch.tensor([[0, 1]])
    sizes = {"num_users": 2, "num_items": 2, "num_entities": 4, "num_relations": 1}

    def build(user=0, item=1, fact=(0, 0, 3), **other):
        collaborative_knowledge_graph(
            torch.tensor([user]), torch.tensor([item]), torch.tensor([fact]), **{**sizes, **other}
        )

    with pytest.raises(ValueError, match=r"user must lie in \[0, 1\] for num_users=2, got"):
        build(user=2)
    with pytest.raises(
        ValueError, match=r"item must lie in \[0, 1\] for num_items=2.*\[3, 3\]. It"
    ):
        build(item=3)
    with pytest.raises(ValueError, match="so that item i is entity i"):
        build(item=2)
    with pytest.raises(
        ValueError, match="num_items must be <= num_entities, got 5 items and 4 ent"
    ):
        build(num_items=5)
    with pytest.raises(
        ValueError, match=r"entities of triples must lie in \[0, 3\] for num_entiti"
    ):
        build(fact=(0, 0, 4))
    with pytest.raises(
        ValueError, match=r"relations of triples must lie in \[0, 0\] for num_relat"
    ):
        build(fact=(0, 1, 3))
    with pytest.raises(ValueError, match=r"user \(2,\), item \(1,\). One item per user"):
        collaborative_knowledge_graph(torch.zeros(2).long(), clicks[0, :1], facts, **sizes)
    with pytest.raises(TypeError, match=r"item: expected integers, got torch\.float32"):
        collaborative_knowledge_graph(clicks[0], clicks[0].float(), facts, **sizes)
    with pytest.raises(ValueError, match=r"\(t, 3\).*got \(3, 2\). It looks transposed"):
        knowledge_graph(torch.zeros(3, 2).long(), 4, 1)
    with pytest.raises(TypeError, match=r"triples: expected integers, got torch\.float32"):
        knowledge_graph(facts.float(), 4, 1)
    with pytest.raises(ValueError, match=r"heads of triples must lie in \[0, 3\] for num_nodes=4"):
        knowledge_graph(torch.tensor([[-1, 0, 0]]), 4, 1)
    with pytest.raises(
        ValueError, match=r"tails of triples .* got values in \[9, 9\]. Number nodes"
    ):
        knowledge_graph(torch.tensor([[0, 0, 9]]), 4, 1)
    with pytest.raises(ValueError, match="knowledge_graph: num_relations must be >= 1, got 0"):
        knowledge_graph(facts, 4, 0)
    with pytest.raises(ValueError, match="num_relations must be >= 0, got -1"):
        build(num_relations=-1)
    for name in sizes:
        with pytest.raises(TypeError, match=rf"{name} must be an integer, got None\. PyG's num_no"):
            build(**{name: None})
    with pytest.raises(TypeError, match=r"knowledge_graph: num_relations must be an integer, got"):
        knowledge_graph(facts, 4, 1.0)
    with pytest.raises(ValueError, match="don't fit into one 64-bit key"):
        knowledge_graph(facts, 2**31, 2)
    with pytest.raises(ValueError, match="weight: expected 2 rows"):
        knowledge_graph(facts, 4, 1).weighted(torch.ones(3))
