"""Pair features and heads, and scoring all pairs."""

import pytest
import torch
from heads.cases_pair import CASES
from hypothesis import given
from hypothesis import strategies as st

from embedkit.heads import pair
from embedkit.heads.pair import TERMS, PairHead, pair_features, score_all_pairs
from embedkit.testing import check_module

U, V = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])


def test_hand_numbers():
    assert pair_features(U, V).tolist() == [1, -2, 0.5, 3, 0.5, -6, 0.5, 5]
    assert pair_features(V, U).tolist() == [0.5, 3, 1, -2, 0.5, -6, 0.5, 5]
    assert pair_features(U, V, ("absdiff", "u")).tolist() == [0.5, 5, 1, -2]


def test_a_linear_head_is_its_formula():
    torch.manual_seed(0)
    head = PairHead(2, hidden=()).double()
    u, v = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    w = head.layers[0].weight[0].split(2)
    want = u @ w[0] + v @ w[1] + (u * v) @ w[2] + (u - v).abs() @ w[3] + head.layers[0].bias
    torch.testing.assert_close(head(u, v), want[..., None])


def test_a_deep_head_is_a_sequence_of_layers():
    head = PairHead(2, hidden=[7, 5], out_features=3)
    first, second, third = head.layers
    u, v = torch.randn(2, 6, 2)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU(), third)
    torch.testing.assert_close(head(u, v), network(torch.cat([u, v, u * v, (u - v).abs()], 1)))
    assert [layer.out_features for layer in PairHead(4).layers] == [512, 1]


@pytest.mark.parametrize("settings", [{"symmetric": True}, {"terms": ("mul", "absdiff")}])
def test_symmetric_heads_ignore_the_order(settings):
    head = PairHead(3, hidden=[6], **settings)
    u, v = torch.randn(2, 5, 3)
    torch.testing.assert_close(head(u, v), head(v, u))
    assert not torch.allclose(PairHead(3, hidden=[6])(u, v), PairHead(3, hidden=[6])(v, u))


def test_the_mean_of_both_orders():
    head, twin = PairHead(3, hidden=[6], symmetric=True), PairHead(3, hidden=[6])
    twin.load_state_dict(head.state_dict())
    u, v = torch.randn(2, 5, 3)
    torch.testing.assert_close(head(u, v), (twin(u, v) + twin(v, u)) / 2)


@pytest.mark.parametrize("entries", [1, 50, 2**22])
@given(data=st.data())
def test_all_pairs_equal_the_loop_for_every_block_size(entries, data):
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    terms = data.draw(st.lists(st.sampled_from(TERMS), min_size=1, unique=True))
    symmetric, hidden = data.draw(st.booleans()), data.draw(st.sampled_from([(), (7,), (5, 4)]))
    head = PairHead(3, hidden, 2, terms, symmetric).double()
    query, key = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    before, pair._ENTRIES = pair._ENTRIES, entries
    try:
        got = score_all_pairs(head, query, key)
    finally:
        pair._ENTRIES = before
    want = head(query[:, None].expand(4, 5, 3), key[None].expand(4, 5, 3))
    torch.testing.assert_close(got, want)


def test_all_pairs_of_nothing():
    head = PairHead(3)
    assert score_all_pairs(head, torch.rand(0, 3), torch.rand(2, 3)).shape == (0, 2, 1)
    assert score_all_pairs(head, torch.rand(2, 3), torch.rand(0, 3)).shape == (2, 0, 1)


def test_long_half_precision_embeddings_stay_finite():
    u = torch.full((2, 4), 250.0, dtype=torch.float16)
    head = PairHead(4, hidden=[8])
    with torch.no_grad():
        for layer in head.layers:
            layer.weight.mul_(0.01)
    with torch.autocast("cpu", torch.bfloat16):
        low = head(u, u * 2)
    assert low.dtype == torch.float16
    torch.testing.assert_close(low.float(), head(u.float(), 2 * u.float()), rtol=2e-3, atol=2e-3)
    assert low.isfinite().all()


def test_contract():
    build, inputs = CASES[PairHead]
    check_module(build, inputs, exempt={"compile": "below"})


@pytest.mark.compile
def test_contract_compiled():
    build, inputs = CASES[PairHead]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(2, 3)
    with pytest.raises(ValueError, match=r"u: expected last axis of size 4, got shape \(2, 3\)"):
        PairHead(4)(x, x)
    with pytest.raises(ValueError, match=r"got u \(2, 3\), v \(1, 3\). Row i of u and row i of v"):
        PairHead(3)(x, x[:1])
    with pytest.raises(TypeError, match="v: expected a floating-point tensor"):
        pair_features(x, x.long())
    for terms in ((), ("u", "w"), "u"):
        with pytest.raises(ValueError, match="PairHead: terms must be some of u, v, mul, absdiff"):
            PairHead(3, terms=terms)
    with pytest.raises(ValueError, match=r"pair_features: terms must differ, got \('u', 'u'\)"):
        pair_features(x, x, ("u", "u"))
    with pytest.raises(ValueError, match="PairHead: each width of hidden must be >= 1, got 0"):
        PairHead(3, hidden=[0])
    with pytest.raises(ValueError, match="key: expected last axis of size 3"):
        score_all_pairs(PairHead(3), x, x[:, :2])
