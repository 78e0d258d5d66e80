"""Attention over triples: hand numbers, the softmax of others, groups against a loop."""

import pytest
import torch
from graph.cases_knowledge import CASES
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import propagate
from embedkit.graph.knowledge.collaborative import knowledge_graph
from embedkit.graph.knowledge.relational_attention import RelationalAttention, relational_attention
from embedkit.heads.relation import TransR
from embedkit.testing import check_module


def sample(seed, nodes=6, relations=4, d=3, k=5, count=18):
    torch.manual_seed(seed)
    make = {"dtype": torch.float64}
    ends, relation = torch.randint(0, nodes, (count, 2)), torch.randint(0, relations, (count,))
    triples = torch.stack([ends[:, 0], relation, ends[:, 1]], dim=1)
    graph = knowledge_graph(triples, nodes + 1, relations)  # the last node is in no triple
    translation = torch.randn(2 * relations, k, **make)
    return (
        torch.randn(nodes + 1, d, **make),
        translation,
        torch.randn(2 * relations, k, d, **make),
        graph,
    )


def one_by_one(nodes, translation, projection, graph):
    logits = []
    for h, r, t in zip(*(x.tolist() for x in graph[:3]), strict=True):
        start = torch.tanh(projection[r] @ nodes[h] + translation[r])
        logits.append((projection[r] @ nodes[t]) @ start)
    return torch.stack(logits) if logits else nodes.new_zeros(0)


def test_hand_numbers():
    graph = knowledge_graph(torch.tensor([[0, 0, 1], [0, 0, 2]]), 3, 1, inverse=False)
    nodes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    translation, projection = torch.tensor([[0.5, -0.5]]), torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
    weight = relational_attention(nodes, translation, projection, graph)
    torch.testing.assert_close(weight, torch.tensor([0.287994, 0.712006]), rtol=0, atol=1e-6)
    received = propagate(nodes, RelationalAttention()(nodes, translation, projection, graph))[0]
    torch.testing.assert_close(received, torch.tensor([0.712006, 1.0]), rtol=0, atol=1e-6)


@given(seed=st.integers(0, 2**31), count=st.integers(0, 25))
def test_groups_equal_a_loop_over_triples(seed, count):
    from torch_geometric.utils import softmax

    *tensors, graph = sample(seed, count=count)
    got = relational_attention(*tensors, graph)
    want = softmax(one_by_one(*tensors, graph), graph.head, num_nodes=graph.num_nodes)
    torch.testing.assert_close(got, want)
    total = torch.zeros(graph.num_nodes, dtype=torch.float64).index_add(0, graph.head, got)
    there = torch.bincount(graph.head, minlength=graph.num_nodes) > 0
    torch.testing.assert_close(total, there.double())
    low = relational_attention(*(t.float() for t in tensors), graph)
    torch.testing.assert_close(low, want.float(), rtol=1e-4, atol=1e-5)


def test_maps_of_zero_weigh_alike_and_one_triple_has_weight_one():
    nodes, translation, projection, graph = sample(0)
    weight = relational_attention(nodes, translation, torch.zeros_like(projection), graph)
    torch.testing.assert_close(graph.weighted(weight).value.float(), graph.adjacency.value)
    single = knowledge_graph(torch.tensor([[0, 1, 3]]), 7, 4)
    assert relational_attention(nodes, translation, projection, single).tolist() == [1, 1]


def test_relabelled_nodes_have_the_same_attention():
    nodes, translation, projection, graph = sample(1)
    new = torch.randperm(7)
    triples = torch.stack([new[graph.head], graph.relation, new[graph.tail]], dim=1)
    other = knowledge_graph(triples, 7, 8, inverse=False)
    moved = torch.empty_like(nodes)
    moved[new] = nodes
    got = propagate(
        moved, other.weighted(relational_attention(moved, translation, projection, other))
    )
    want = propagate(
        nodes, graph.weighted(relational_attention(nodes, translation, projection, graph))
    )
    torch.testing.assert_close(got[new], want)


def test_the_gradient_stops_unless_asked_for():
    nodes, translation, projection, graph = sample(2)
    model = TransR(8, 3, 5).double()
    nodes.requires_grad_()
    fixed = RelationalAttention()(nodes, model.translation, model.projection, graph)
    propagate(nodes, fixed).square().sum().backward()
    assert nodes.grad is not None
    assert model.translation.grad is None
    assert model.projection.grad is None
    free = RelationalAttention(differentiable=True)
    propagate(
        nodes, free(nodes, model.translation, model.projection, graph)
    ).square().sum().backward()
    assert (model.projection.grad != 0).any()
    assert (model.translation.grad != 0).any()
    tensors = [t.detach().requires_grad_() for t in (nodes, translation, projection)]
    assert torch.autograd.gradcheck(
        lambda *t: propagate(t[0], free(*t, graph)), tensors, fast_mode=True
    )


def test_large_and_low_precision_vectors_stay_finite():
    nodes, translation, projection, graph = sample(3)
    for dtype in (torch.float16, torch.bfloat16):
        tensors = [(300 * t).to(dtype) for t in (nodes, translation, projection)]
        weight = relational_attention(*tensors, graph)
        assert weight.dtype == dtype
        assert weight.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        low = relational_attention(nodes.float(), translation.float(), projection.float(), graph)
    want = relational_attention(nodes.float(), translation.float(), projection.float(), graph)
    torch.testing.assert_close(low, want)


def test_nothing_is_made_for_every_edge():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.entries = max(self.entries, out.numel())
            return out

    torch.manual_seed(0)
    triples = torch.stack(
        [
            torch.randint(0, 40, (20000,)),
            torch.randint(0, 30, (20000,)),
            torch.randint(0, 40, (20000,)),
        ]
    ).T
    graph = knowledge_graph(triples, 40, 30)
    nodes, translation, projection = torch.rand(40, 16), torch.rand(60, 16), torch.rand(60, 16, 16)
    with torch.no_grad(), Largest() as largest:
        relational_attention(nodes, translation, projection, graph)
    assert len(graph.head) > 25000
    assert largest.entries <= len(graph.head)


def test_contract():
    check_module(*CASES[RelationalAttention], exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[RelationalAttention], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    nodes, translation, projection, graph = sample(4)
    with pytest.raises(TypeError, match=r"expected a KnowledgeGraph, got Adjacency. Build it once"):
        relational_attention(nodes, translation, projection, graph.adjacency)
    with pytest.raises(
        ValueError, match=r"nodes: expected 7 rows, got shape \(6, 3\). One per node"
    ):
        relational_attention(nodes[:6], translation, projection, graph)
    with pytest.raises(ValueError, match=r"translation: expected 8 rows.*inverse ones included"):
        relational_attention(nodes, translation[:4], projection, graph)
    with pytest.raises(ValueError, match="projection: expected 8 rows"):
        relational_attention(nodes, translation, projection[:4], graph)
    with pytest.raises(ValueError, match="projection: expected last axis of size 3"):
        relational_attention(nodes, translation, projection[..., :2], graph)
    with pytest.raises(ValueError, match="translation: expected last axis of size 5"):
        relational_attention(nodes, translation[:, :2], projection, graph)
    with pytest.raises(TypeError, match="nodes: expected a floating-point tensor"):
        relational_attention(nodes.long(), translation, projection, graph)
