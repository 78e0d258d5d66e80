"""TransR: distances, maps and their gradients."""

import pytest
import torch
from heads.cases_relation import CASES
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import softplus

from embedkit.heads._grouped import grouped_linear, grouped_outer
from embedkit.heads.relation import TransR, relation_project, transr_distance
from embedkit.losses import bpr_loss
from embedkit.mining import UniformNegativeSampler
from embedkit.testing import check_module

HEAD, TAILS = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
RELATION, ZERO = torch.tensor([[0.5, -0.5]]), torch.tensor([0])
MAP = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])


def sample(seed, rows=7, relations=4, d=3, k=5):
    torch.manual_seed(seed)
    make = {"dtype": torch.float64}
    ids = torch.randint(0, relations, (rows,))
    translation, projection = (
        torch.randn(relations, k, **make),
        torch.randn(relations, k, d, **make),
    )
    return (
        torch.randn(rows, d, **make),
        ids,
        torch.randn(rows, 2, d, **make),
        translation,
        projection,
    )


def test_hand_numbers():
    distance = transr_distance(HEAD, ZERO, TAILS, RELATION, MAP)
    torch.testing.assert_close(distance, torch.tensor([[2.5, 4.5]]))
    loss = bpr_loss(-distance[:, 0], -distance[:, 1])
    torch.testing.assert_close(loss, torch.tensor(0.126928), rtol=0, atol=1e-6)
    torch.testing.assert_close(loss, softplus(torch.tensor(-2.0)))
    assert relation_project(TAILS, ZERO, MAP).tolist() == [[[2, 1], [3, 1]]]
    assert relation_project(HEAD, ZERO, MAP).tolist() == [[1, 0]]


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 9))
def test_groups_equal_a_map_for_each_row(seed, rows):
    head, ids, tails, translation, projection = sample(seed, rows)
    got = transr_distance(head, ids, tails, translation, projection)
    maps = projection[ids]
    start = torch.einsum("bkd,bd->bk", maps, head) + translation[ids]
    want = (start[:, None] - torch.einsum("bkd,bnd->bnk", maps, tails)).square().sum(2)
    torch.testing.assert_close(got, want)
    one = transr_distance(head, ids, tails[:, 1], translation, projection)
    torch.testing.assert_close(one, want[:, 1])
    order = torch.randperm(rows)
    torch.testing.assert_close(
        transr_distance(head[order], ids[order], tails[order], translation, projection), want[order]
    )


def test_special_maps():
    head, ids, tails, translation, _ = sample(0, k=3)
    identity = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    want = (head + translation[ids] - tails[:, 0]).norm(dim=1) ** 2  # TransE's distance, squared
    torch.testing.assert_close(transr_distance(head, ids, tails[:, 0], translation, identity), want)
    zero = transr_distance(head, ids, head, torch.zeros_like(translation), identity)
    assert zero.tolist() == [0] * len(head)


def test_agrees_with_the_translations_of_torch_geometric():
    from torch_geometric.nn.kge import TransE

    torch.manual_seed(0)
    rival = TransE(num_nodes=6, num_relations=3, hidden_channels=4, p_norm=2.0)
    head, relation, tail = torch.tensor([0, 1, 5]), torch.tensor([2, 0, 1]), torch.tensor([3, 4, 0])
    table = torch.nn.functional.normalize(rival.node_emb.weight)  # which it does to its nodes
    ours = TransR(3, 4, init="identity")
    with torch.no_grad():
        ours.translation.copy_(rival.rel_emb.weight)
    distance = ours(table[head], relation, table[tail])
    torch.testing.assert_close(-distance.sqrt(), rival(head, relation, tail))


def test_gradients_of_gradients_of_the_grouped_product():
    _, ids, tails, _, projection = sample(1)
    x = tails[:, 0].clone().requires_grad_()
    projection.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda a, w: grouped_linear(a, w, ids), (x, projection))


@pytest.mark.compile
def test_the_grouped_products_are_sound_operators():
    _, ids, tails, _, projection = sample(1)
    x = tails[:, 0].clone().requires_grad_()
    torch.library.opcheck(grouped_linear, (x, projection.requires_grad_(), ids))
    torch.library.opcheck(grouped_outer, (x, tails[:, 1], ids, 4))


def test_a_start_for_every_map_by_itself():
    torch.manual_seed(0)
    few, many = TransR(2, 64).projection, TransR(200, 64).projection
    bound = (6 / 128) ** 0.5
    for maps in (few, many):
        assert 0.9 * bound < maps.abs().amax(dim=(1, 2)).min() <= maps.abs().max() <= bound
    narrow = TransR(2, 4, 3, init="identity")
    assert torch.equal(narrow.projection[1], torch.eye(3, 4))
    assert narrow.project(torch.arange(4.0)[None], ZERO).tolist() == [[0, 1, 2]]


def test_half_precision_does_not_overflow():
    head = torch.full((1, 4), 40000.0, dtype=torch.float16)
    model = TransR(1, 4, init="identity")
    distance = model(head, ZERO, -head)
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, model(head.float(), ZERO, -head.float()))
    assert model.project(head, ZERO).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(head, ZERO, -head), distance)


@given(seed=st.integers(0, 2**31))
def test_corrupt_tails_are_never_true(seed):
    generator = torch.Generator().manual_seed(seed)
    nodes, relations = 6, 3
    head, relation, tail = (
        torch.randint(0, n, (20,), generator=generator) for n in (nodes, relations, nodes)
    )
    known = set(zip(head.tolist(), relation.tolist(), tail.tolist(), strict=True))
    pair = head * relations + relation
    full = torch.bincount(torch.tensor([h * relations + r for h, r, _ in known])) == nodes
    rows = ~full[pair]
    wrong = UniformNegativeSampler(pair, tail, nodes)(pair[rows], 20, generator=generator)
    for h, r, tails in zip(
        head[rows].tolist(), relation[rows].tolist(), wrong.tolist(), strict=True
    ):
        assert not any((h, r, t) in known for t in tails)


def test_a_head_of_every_tail_has_no_corrupt_one():
    sampler = UniformNegativeSampler(torch.tensor([4, 4, 4, 5]), torch.tensor([0, 1, 2, 0]), 3)
    with pytest.raises(ValueError, match="user 4 has clicked every item that could be drawn"):
        sampler(torch.tensor([5, 4]))


def test_contract():
    check_module(*CASES[TransR], exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[TransR], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    model, x = TransR(3, 4), torch.rand(2, 4)
    ids = torch.tensor([0, 2])
    with pytest.raises(
        IndexError, match="relation: must be 0 to 2, one of 3 relations, got 0 to 3"
    ):
        model(x, torch.tensor([0, 3]), x)
    with pytest.raises(IndexError, match=r"got -1 to 2\. Count inverse relations too"):
        model(x, torch.tensor([-1, 2]), x)
    with pytest.raises(TypeError, match=r"relation: expected integers, got torch\.float32"):
        model(x, ids.float(), x)
    with pytest.raises(ValueError, match="x: expected 2 rows, got shape"):
        model.project(torch.rand(3, 4), ids)
    with pytest.raises(ValueError, match="x: expected last axis of size 4"):
        model.project(torch.rand(2, 5), ids)
    with pytest.raises(ValueError, match="tail: expected last axis of size 4"):
        model(x, ids, torch.rand(2, 5))
    with pytest.raises(ValueError, match=r"one tail per head, \(b, d\), or several, \(b, n, d\)"):
        model(x, ids, torch.rand(2, 1, 1, 4))
    with pytest.raises(ValueError, match=r"got translation \(3, 2\), projection \(3, 4\)"):
        transr_distance(x, ids, x, torch.rand(3, 2), model.projection)
    with pytest.raises(ValueError, match="TransR: num_relations must be >= 1, got 0"):
        TransR(0, 4)
    with pytest.raises(
        ValueError, match="TransR: init must be one of xavier, identity, got 'zero'"
    ):
        TransR(1, 4, init="zero")
