"""InfoNCE: the specification's numbers, other people's libraries, and what must not matter."""

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses import (
    InfoNCELoss,
    LearnableTemperature,
    info_nce,
    info_nce_from_similarity,
)
from embedkit.ops.gram import _problem

Q = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
K = torch.tensor([[0.8, 0.6], [0, 1], [-0.6, 0.8]], dtype=torch.float64)
HARD = torch.tensor([[0, -1], [0.8, 0.6], [0.6, 0.8]], dtype=torch.float64)


def close(got, want, tolerance=1e-6):
    want = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=tolerance)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_hand_numbers_of_both_directions():
    for t, forward, backward, both in [
        (1.0, 0.886089, 0.896249, 0.891169),
        (0.5, 0.796341, 0.817279, 0.806810),
    ]:
        close(info_nce(Q, K, temperature=t), forward)
        close(info_nce(K, Q, temperature=t), backward)
        close(info_nce(Q, K, temperature=t, symmetric=True), both)
    rows = info_nce(Q, K, temperature=0.5, reduction="none")
    close(rows, [0.233257, 1.004515, 1.151251])


def test_hand_numbers_of_hard_negatives_and_same_tower():
    close(info_nce(Q, torch.cat([K, HARD]), temperature=0.5), 1.484512)
    close(info_nce(Q, K, negative=HARD[:, None], temperature=0.5), 1.073494)
    ids = torch.arange(3)
    same_tower = info_nce(
        Q, torch.cat([K, Q]), temperature=0.5, query_ids=ids, key_ids=ids.repeat(2),
        same_id="ignore",
    )  # fmt: skip
    close(same_tower, 1.237880)


def test_hand_numbers_of_nv_embed():
    query = torch.tensor([[1.0, 0], [0, 1]]).double()
    key = torch.tensor([[1.0, 1], [0, 2]]).double()
    own = torch.tensor([[[1.0, -1], [-1, 0]], [[1, 0], [1, 2]]]).double()
    ids = torch.zeros(2, dtype=torch.long)
    only_own = info_nce(
        query, key, negative=own, temperature=0.5, query_ids=ids, same_id="ignore", reduction="none"
    )
    close(only_own, [0.709464, 0.665258])
    both = info_nce(query, key, negative=own, temperature=0.5, reduction="none")
    close(both, [0.822428, 0.916954])
    shared = info_nce(query, torch.cat([key, own.flatten(0, 1)]), temperature=0.5, reduction="none")
    close(shared, [1.540531, 0.982040])


def test_hand_numbers_of_the_similarity_form():
    similarity, positive = Q @ K.T, torch.eye(3, dtype=torch.bool)
    close(info_nce_from_similarity(similarity, positive, temperature=0.5), 0.796341)
    keep = torch.ones(3, 3, dtype=torch.bool)
    keep[0, 1] = False
    close(info_nce_from_similarity(similarity, positive, temperature=0.5, candidate=keep), 0.738266)
    weights = torch.tensor([[1, 2, 0.5], [1, 1, 3], [0, 1, 1]]).double()
    rows = info_nce_from_similarity(
        similarity, positive, temperature=0.5, candidate=weights, reduction="none"
    )
    close(rows, [0.360606, 1.234742, 0.913015])


def test_agrees_with_cross_entropy_on_the_full_matrix():
    query, key = randn(9, 5).requires_grad_(), randn(13, 5, seed=1).requires_grad_()
    logits = F.normalize(query) @ F.normalize(key).T / 0.05
    want = F.cross_entropy(logits, torch.arange(9))
    got = info_nce(query, key)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(got, (query, key)), torch.autograd.grad(want, (query, key)),
        rtol=1e-10, atol=1e-10,
    )  # fmt: skip


def test_agrees_with_sentence_transformers():
    losses = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    loss = losses.MultipleNegativesRankingLoss(None, scale=20.0)
    query, key, hard = randn(6, 5), randn(6, 5, seed=1), randn(6, 5, seed=2)
    want = loss.compute_loss_from_embeddings([query, key, hard], None)
    torch.testing.assert_close(info_nce(query, torch.cat([key, hard])), want)


def leaves_and_value(call, *tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = call(*leaves)
    return value, torch.autograd.grad(value.sum(), leaves)


@given(
    seed=st.integers(0, 2**31), rows=st.integers(1, 7), extra=st.integers(0, 4),
    same_id=st.sampled_from(["positive", "ignore"]), symmetric=st.booleans(),
    temperature=st.sampled_from([1e-3, 0.05, 1.0, 1e4]),
)  # fmt: skip
def test_ids_say_who_matches_whom(seed, rows, extra, same_id, symmetric, temperature):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, 4, dtype=torch.float64, generator=generator)
    key = torch.randn(rows + extra, 4, dtype=torch.float64, generator=generator)
    key_ids = torch.randint(0, 4, (rows + extra,), generator=generator)
    query_ids = key_ids[:rows]
    same = query_ids[:, None] == key_ids
    own = torch.eye(rows, rows + extra, dtype=torch.bool)
    positive, candidate = (same, None) if same_id == "positive" else (own, ~same | own)

    def dense(query, key):
        similarity = F.normalize(query) @ F.normalize(key).T
        value = info_nce_from_similarity(
            similarity, positive, temperature=temperature, candidate=candidate
        )
        if not symmetric:
            return value
        turned = info_nce_from_similarity(
            similarity.T, positive.T, temperature=temperature,
            candidate=None if candidate is None else candidate.T,
        )  # fmt: skip
        return (value + turned) / 2

    def ours(query, key):
        return info_nce(
            query, key, temperature=temperature, key_ids=key_ids, same_id=same_id,
            symmetric=symmetric,
        )  # fmt: skip

    torch.testing.assert_close(
        leaves_and_value(ours, query, key), leaves_and_value(dense, query, key),
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip


@given(seed=st.integers(0, 2**31))
def test_what_must_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(6, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    loss = info_nce(query, key)
    order = torch.randperm(6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator)).Q
    close(info_nce(query[order], key[order]), loss, 1e-12)
    close(info_nce(query @ rotation, key @ rotation), loss, 1e-12)
    close(info_nce(query * 7, key / 3), loss, 1e-12)
    close(info_nce(query, key, weight=torch.ones(6).double()), loss, 1e-12)
    close(info_nce(query, key, symmetric=True), info_nce(key, query, symmetric=True), 1e-12)
    assert 0 <= loss <= math.log(6) + 2 / 0.05


def test_all_equal_similarities_give_the_log_of_their_number():
    close(info_nce(torch.ones(5, 3), torch.ones(8, 3)), math.log(8))


def test_weights_scale_and_do_not_normalise():
    weight = torch.tensor([2.0, 0.0, 1.0]).double()
    rows = info_nce(Q, K, reduction="none")
    close(info_nce(Q, K, weight=weight), (rows * weight).sum() / 3, 1e-12)
    close(info_nce(Q, K, weight=weight, reduction="sum"), (rows * weight).sum(), 1e-12)
    weight.requires_grad_()
    (grad,) = torch.autograd.grad(info_nce(Q, K, weight=weight, reduction="sum"), weight)
    close(grad, rows, 1e-12)


def test_rows_and_mean_of_the_symmetric_form_agree():
    rows = info_nce(Q, K, symmetric=True, reduction="none")
    close(info_nce(Q, K, symmetric=True), rows.mean(), 1e-12)


def test_negative_mask_leaves_out():
    negative = torch.cat([HARD[:, None], torch.full((3, 2, 2), math.nan)], dim=1)
    mask = torch.tensor([True, False, False]).expand(3, 3)
    close(
        info_nce(Q, K, negative=negative.nan_to_num(), negative_mask=mask, temperature=0.5),
        1.073494,
    )
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    close(info_nce(Q, K, negative=negative.nan_to_num(), negative_mask=nothing), info_nce(Q, K))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("negatives", [0, 2])
def test_gradients_through_everything(similarity, negatives):
    query, key = randn(4, 5).requires_grad_(), randn(6, 5, seed=1).requires_grad_()
    own = randn(4, negatives, 5, seed=2).requires_grad_()
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([0, 1, 1, 2, 1, 5])

    def run(query, key, own, temperature):
        return info_nce(
            query, key, temperature=temperature, key_ids=ids, negative=own, dims=[2, 5],
            similarity=similarity,
        )  # fmt: skip

    assert torch.autograd.gradcheck(run, (query, key, own, temperature))


def test_second_derivative_exists_in_the_similarity_form():
    x = randn(3, 4).requires_grad_()

    def run(x):
        unit = F.normalize(x)
        return info_nce_from_similarity(
            unit @ unit.T, torch.eye(3, dtype=torch.bool), temperature=0.5
        )

    assert torch.autograd.gradgradcheck(run, (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1e4])
def test_never_nan(dtype, temperature):
    # The gradient of a short vector is that much longer: float16 itself ends at 65504.
    short = 1.0 if dtype == torch.float16 else 1e-6
    query = torch.tensor([[0, 0], [1, 0], [1, 0], [3e4, 2e4]], dtype=dtype).requires_grad_()
    key = torch.tensor([[1, 0], [0, 0], [-1, 0], [short, 0]], dtype=dtype).requires_grad_()
    loss = info_nce(query, key, temperature=temperature, symmetric=True)
    loss.backward()
    assert loss.isfinite()
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()
    assert not query.grad[0].any()
    assert not key.grad[1].any()
    assert query.grad.dtype == dtype


@pytest.mark.parametrize("rows", [0, 1])
def test_no_competition_is_no_loss(rows):
    query, key = torch.randn(rows, 3, requires_grad=True), torch.randn(rows, 3, requires_grad=True)
    loss = info_nce(query, key)
    loss.backward()
    close(loss.detach(), 0.0)
    close(query.grad.abs().sum(), 0.0)
    assert info_nce(query, key, reduction="none").shape == (rows,)


def test_a_query_without_a_positive_takes_no_part():
    ids = torch.tensor([0, 1, 9])
    rows = info_nce(Q, K, query_ids=ids, key_ids=torch.tensor([0, 1, 2]), reduction="none")
    close(rows[2], 0.0)
    mean = info_nce(Q, K, query_ids=ids, key_ids=torch.tensor([0, 1, 2]))
    close(mean, rows[:2].mean(), 1e-12)
    query = Q.clone().requires_grad_()
    none = info_nce(query, K, query_ids=ids + 10, key_ids=ids)
    none.backward()
    close(none.detach(), 0.0)
    close(query.grad, torch.zeros(3, 2), 0)
    no_key = info_nce(query, K[:0], query_ids=ids, key_ids=ids[:0])
    close(no_key, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_input_gives_a_non_finite_loss(bad):
    query = Q.clone()
    query[1, 0] = bad
    for temperature in (0.05, 1e-3):
        assert not info_nce(query, K, temperature=temperature).isfinite()
        assert not info_nce(K, query, temperature=temperature).isfinite()


def test_nothing_of_the_size_of_the_matrix_is_allocated(monkeypatch):
    monkeypatch.setitem(_problem.BLOCK_ENTRIES, "cpu", 2**14)
    query, key = torch.randn(512, 8, requires_grad=True), torch.randn(512, 8, requires_grad=True)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, tuple | list) else [out]
            sizes.extend(t.numel() for t in tensors if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        info_nce(query, key, symmetric=True, query_ids=torch.arange(512) // 2).backward()
    assert 0 < max(sizes) <= 2**14


def test_the_temperature_is_learned_and_clamped():
    temperature = LearnableTemperature(0.07, minimum=0.05)
    loss = InfoNCELoss(temperature)(Q.float(), K.float())
    loss.backward()
    assert temperature.log_scale.grad.abs() > 0
    with torch.no_grad():
        temperature.log_scale.fill_(10.0)
    temperature.clamp_()
    close(temperature(), 0.05)


@pytest.mark.compile
def test_compiles_to_one_graph_with_everything():
    query, key = torch.randn(4, 6), torch.randn(7, 6)
    ids = torch.tensor([0, 1, 1, 2, 1, 5, 6])

    @torch.compile(fullgraph=True, backend="aot_eager")
    def run(query, key):
        return info_nce(query, key, key_ids=ids, dims=[2, 6], negative=query[:, None] * 2)

    eager = info_nce(query, key, key_ids=ids, dims=[2, 6], negative=query[:, None] * 2)
    torch.testing.assert_close(run(query, key), eager)


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"key": K[:, :1]}, ValueError, r"key: expected last axis of size 2, got shape \(3, 1\)"),
        ({"key": K[:2]}, ValueError, r"key: expected at least 3 rows, one per query"),
        ({"query": Q[0]}, ValueError, r"query: expected 2 axes \(q, d\), got shape \(2,\)"),
        (
            {"query": Q.long()},
            TypeError,
            r"query: expected a floating-point tensor, got torch.int64",
        ),
        (
            {"query_ids": torch.arange(2)},
            ValueError,
            r"query_ids: expected 3 rows, got shape \(2,\)",
        ),
        ({"key_ids": torch.rand(3)}, TypeError, r"key_ids: expected integers, got torch.float32"),
        (
            {"query_ids": torch.arange(3), "key": torch.cat([K, K])},
            ValueError,
            r"key_ids: needed with 6 keys for 3 queries",
        ),
        ({"temperature": 0.0}, ValueError, r"info_nce: temperature must be > 0, got 0. It divides"),
        ({"temperature": -1}, ValueError, r"temperature must be > 0, got -1"),
        ({"weight": torch.ones(2)}, ValueError, r"weight: expected shape \(3,\)"),
        ({"same_id": "skip"}, ValueError, r"same_id must be one of positive, ignore, got 'skip'"),
        ({"dims": [2, 4]}, ValueError, r"dims go up to 4, but embeddings have width 2"),
        ({"dims": [2, 2]}, ValueError, r"dims must be positive, different and in increasing order"),
        ({"dims": [1, 2], "dim_weights": [1.0]}, ValueError, r"expected 2 dim_weights"),
        ({"negative": HARD}, ValueError, r"negative: expected 3 axes \(q, h, d\)"),
        ({"reduction": "median"}, ValueError, r"reduction: .* got 'median'"),
    ],
)
def test_errors_teach(change, error, message):
    arguments = {"query": Q, "key": K, **change}
    with pytest.raises(error, match=message):
        info_nce(arguments.pop("query"), arguments.pop("key"), **arguments)


def test_constructor_errors_teach():
    with pytest.raises(
        ValueError, match=r"InfoNCELoss: temperature must be > 0, got -1. It divides"
    ):
        InfoNCELoss(temperature=-1.0)
    with pytest.raises(ValueError, match=r"LearnableTemperature: init=0.001 is below minimum=0.01"):
        LearnableTemperature(0.001)
    with pytest.raises(ValueError, match="has no row-wise form"):
        info_nce(Q, torch.cat([K, K]), symmetric=True, reduction="none")


@pytest.mark.wording
def test_similarity_form_errors_teach():
    with pytest.raises(ValueError, match=r"expected equal shapes, got similarity \(3, 3\)"):
        info_nce_from_similarity(Q @ K.T, torch.eye(2, dtype=torch.bool), temperature=1.0)
    with pytest.raises(TypeError, match=r"positive: expected bool"):
        info_nce_from_similarity(Q @ K.T, torch.eye(3), temperature=1.0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_what_is_left_out_cannot_overflow(symmetric):
    # The duplicate is far closer than the row's own key: its exponential alone would be infinite.
    query = torch.tensor([[1.0, 0], [0, 1]], requires_grad=True)
    key = torch.tensor([[-1.0, 0.1], [1, 0.1]], requires_grad=True)
    loss = info_nce(
        query, key, temperature=1e-3, query_ids=torch.tensor([7, 7]), same_id="ignore",
        symmetric=symmetric,
    )  # fmt: skip
    loss.backward()
    close(loss.detach(), 0.0)
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()


def test_a_memory_is_further_keys():
    memory, ids = torch.randn(5, 2, dtype=torch.float64), torch.tensor([7, 8, 9, 0, 7])
    close(info_nce(Q, K, memory=memory), info_nce(Q, torch.cat([K, memory])))
    mine = torch.tensor([7, 8, 1])
    want = info_nce(Q, torch.cat([K, memory]), query_ids=mine, key_ids=torch.cat([mine, ids]))
    close(info_nce(Q, K, query_ids=mine, memory=memory, memory_ids=ids), want)
    close(info_nce(Q, K, memory=memory[:0]), info_nce(Q, K))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"memory": torch.zeros(4, 3)}, r"memory: expected last axis of size 2"),
        ({"memory": K, "symmetric": True}, r"a memory is searched and never searches"),
        ({"memory": K, "query_ids": torch.arange(3)}, r"got none for the memory and some"),
        ({"memory": K, "memory_ids": torch.arange(3)}, r"got some for the memory and none"),
    ],
)
@pytest.mark.wording
def test_a_memory_that_does_not_fit_says_so(options, text):
    with pytest.raises(ValueError, match=text):
        info_nce(Q, K, **options)
