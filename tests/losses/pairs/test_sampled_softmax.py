"""Sampled softmax: cross-entropy on the corrected matrix, and what the correction is for."""

import math

import pytest
import torch
import torch.nn.functional as F
from distributed import run_ranks
from hypothesis import given
from hypothesis import strategies as st

from embedkit.losses import LearnableTemperature, MatryoshkaLoss, info_nce
from embedkit.losses.pairs.sampled_softmax import SampledSoftmaxLoss, sampled_softmax
from embedkit.ops.gram import _problem

seeds = st.integers(0, 2**31)


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def log_probability(seed, keys):
    return (3 * draw(seed, keys)).log_softmax(0)


def value_and_gradients(loss, *tensors):
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = loss(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves)


def dense(query, key, log_q, temperature, ids=None, similarity="cosine"):
    """torch's cross-entropy on the full matrix of corrected logits."""
    if similarity == "cosine":
        query, key = F.normalize(query), F.normalize(key)
    logits = query @ key.T / temperature - log_q
    if ids is not None:
        hit = ids[: len(query), None] == ids
        hit.fill_diagonal_(False)
        logits = logits.masked_fill(hit, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(query)))


def test_hand_numbers():
    # Logits 1 and 0 at weights 1/q of 1.25, 10 and 10.
    e, log_q = math.e, torch.tensor([0.8, 0.1, 0.1]).log()
    want = [math.log(1 + 20 / (1.25 * e)), math.log(1 + 11.25 / (10 * e))]
    rows = sampled_softmax(torch.eye(3), torch.eye(3), log_q, temperature=1.0, reduction="none")
    assert rows.tolist() == pytest.approx([want[0], want[1], want[1]], abs=1e-6)


@given(
    seed=seeds, rows=st.integers(1, 6), extra=st.integers(0, 4), with_ids=st.booleans(),
    similarity=st.sampled_from(["cosine", "dot"]), temperature=st.sampled_from([0.02, 0.3, 5.0]),
)  # fmt: skip
def test_agrees_with_cross_entropy(seed, rows, extra, with_ids, similarity, temperature):
    query, key = draw(seed, rows, 4), draw(seed + 1, rows + extra, 4)
    log_q, t = log_probability(seed, rows + extra), torch.tensor(temperature).double()
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 4, (rows + extra,), generator=generator) if with_ids else None

    def ours(q, k, p, t):
        return sampled_softmax(q, k, p, temperature=t, key_ids=ids, similarity=similarity)

    def oracle(q, k, p, t):
        return dense(q, k, p, t, ids, similarity)

    torch.testing.assert_close(
        value_and_gradients(ours, query, key, log_q, t),
        value_and_gradients(oracle, query, key, log_q, t),
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1.0, 1e4])
def test_float32_stays_close_to_float64(temperature):
    query, key, log_q = draw(0, 40, 16), draw(1, 60, 16), log_probability(2, 60) - 8

    def ours(q, k):
        return sampled_softmax(q, k, log_q.to(q.dtype), temperature=temperature)

    want = value_and_gradients(lambda q, k: dense(q, k, log_q, temperature), query, key)
    got = value_and_gradients(ours, query.float(), key.float())
    torch.testing.assert_close(got[0].double(), want[0], rtol=2e-5, atol=1e-6)
    for mine, wanted in zip(got[1], want[1], strict=True):
        assert (mine - wanted).norm() <= 2e-4 * wanted.norm()


@given(seed=seeds, q=st.floats(1e-6, 1.0), with_ids=st.booleans())
def test_equal_probabilities_correct_nothing(seed, q, with_ids):
    query, key = draw(seed, 5, 3), draw(seed + 1, 8, 3)
    ids = torch.arange(8) // 2 if with_ids else None
    got = sampled_softmax(query, key, torch.full((8,), q).double().log(), key_ids=ids)
    torch.testing.assert_close(got, info_nce(query, key, key_ids=ids, same_id="ignore"))


@given(seed=seeds, shift=st.floats(-30, 30))
def test_what_must_not_matter(seed, shift):
    query, key, log_q = draw(seed, 5, 3), draw(seed + 1, 8, 3), log_probability(seed, 8)
    want = sampled_softmax(query, key, log_q)
    order = torch.cat([torch.arange(5), 5 + torch.randperm(3)])
    torch.testing.assert_close(sampled_softmax(query, key, log_q + shift), want)
    torch.testing.assert_close(sampled_softmax(query, key[order], log_q[order]), want)
    torch.testing.assert_close(sampled_softmax(query * 7, key / 3, log_q), want)


def test_an_accidental_hit_is_left_out_of_its_row_alone():
    query, key, log_q = draw(0, 2, 3), draw(1, 4, 3), log_probability(2, 4)
    ids = torch.tensor([7, 8, 7, 9])
    rows = sampled_softmax(query, key, log_q, key_ids=ids, reduction="none")
    kept = [0, 1, 3]
    without = sampled_softmax(query, key[kept], log_q[kept], reduction="none")
    everything = sampled_softmax(query, key, log_q, reduction="none")
    torch.testing.assert_close(rows, torch.stack([without[0], everything[1]]))
    # Ids of queries alone stand for both sides; given both, they are as good.
    same = sampled_softmax(query, key, log_q, query_ids=ids[:2], key_ids=ids, reduction="none")
    torch.testing.assert_close(same, rows)


def test_sampled_gradients_come_closer_to_those_of_all_items():
    # 200 items of popularity 1 / rank; one query, whose positive is there for certain (log 1), and
    # 20 draws by popularity, of each of which 20 q are expected.
    items, query, positive = draw(0, 200, 8), draw(1, 1, 8), 3
    q = 1 / torch.arange(1.0, 201.0).double()
    q /= q.sum()

    def gradient(loss):
        return value_and_gradients(loss, query)[1][0]

    order = torch.cat([torch.tensor([positive]), torch.arange(200)[torch.arange(200) != positive]])
    whole = gradient(lambda x: dense(x, items[order], 0.0, 0.3))
    error = {}
    for name, log_q in (("corrected", (20 * q).log()), ("plain", torch.zeros(200).double())):
        generator = torch.Generator().manual_seed(2)
        total = torch.zeros(1, 8).double()
        for _ in range(200):
            ids = q.multinomial(21, replacement=True, generator=generator)
            ids[0] = positive
            drawn = torch.cat([log_q.new_zeros(1), log_q[ids[1:]]])
            total += gradient(
                lambda x, ids=ids, drawn=drawn: sampled_softmax(
                    x, items[ids], drawn, temperature=0.3, key_ids=ids
                )
            )
        error[name] = ((total / 200 - whole).norm() / whole.norm()).item()
    assert error["corrected"] < 0.5 * error["plain"], error


def test_batches_of_pairs_leave_the_truth_in_peace():
    # Six users, 30 items; scores are the true log-probabilities, at which the loss over all items
    # has no gradient. Keys of a batch come by popularity.
    truth = (draw(0, 6, 30) - torch.arange(1.0, 31.0).log()).log_softmax(1)
    q = truth.exp().mean(0)
    found = {}
    for name, log_q in (("corrected", q.log()), ("plain", torch.zeros(30).double())):
        generator = torch.Generator().manual_seed(1)
        table = truth.T.clone().requires_grad_()
        for _ in range(200):
            user = torch.randint(6, (16,), generator=generator)
            item = truth.exp()[user].multinomial(1, generator=generator)[:, 0]
            one_hot = torch.eye(6).double()[user]
            sampled_softmax(
                one_hot, table[item], log_q[item], temperature=1.0, similarity="dot"
            ).backward()
        found[name] = (table.grad / 200).norm().item()
    assert found["corrected"] < 0.25 * found["plain"], found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1e4])
def test_never_nan(dtype, temperature):
    query = torch.tensor([[0, 0], [1, 0], [1, 0]], dtype=dtype).requires_grad_()
    key = torch.tensor([[1, 0], [0, 0], [-1, 0], [3e4, 2e4]], dtype=dtype).requires_grad_()
    log_q = torch.tensor([-1.0, -20.0, -0.1, -60.0], dtype=dtype)
    loss = sampled_softmax(query, key, log_q, temperature=temperature)
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
    loss = sampled_softmax(query, key, torch.rand(rows).log())
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.zeros(()))
    assert query.grad.abs().sum() < 1e-5


def test_a_probability_of_zero_is_not_silent():
    log_q = torch.tensor([0.5, 0.5, 0.0]).log()
    assert not sampled_softmax(torch.eye(3), torch.eye(3), log_q).isfinite()


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
        log_q = torch.rand(512).log()
        sampled_softmax(query, key, log_q, key_ids=torch.arange(512) // 2).backward()
    assert 0 < max(sizes) <= 2**14


def test_the_module_passes_everything_on():
    query, key, log_q = draw(0, 4, 6), draw(1, 6, 6), log_probability(2, 6)
    ids, weight = torch.tensor([0, 1, 0, 2, 1, 5]), torch.tensor([1.0, 2.0, 0.0, 0.5]).double()
    loss = SampledSoftmaxLoss(LearnableTemperature(0.2), similarity="dot", reduction="none")
    want = sampled_softmax(
        query, key, log_q, temperature=0.2, key_ids=ids, weight=weight, similarity="dot",
        reduction="none",
    )  # fmt: skip
    got = loss(query, key, log_q, key_ids=ids, weight=weight)
    torch.testing.assert_close(got.detach(), want, rtol=1e-6, atol=1e-6)
    nested = MatryoshkaLoss(SampledSoftmaxLoss(0.2), [3, 6])(query, key, log_q)
    parts = [sampled_softmax(query[:, :m], key[:, :m], log_q, temperature=0.2) for m in (3, 6)]
    torch.testing.assert_close(nested, sum(parts))


def gathered(rank, rows):
    """Largest error of loss and gradients of one rank's share, against the whole batch."""
    own = slice(sum(rows[:rank]), sum(rows[: rank + 1]))
    total = sum(rows)
    whole = [draw(0, total, 3), draw(1, total, 3), log_probability(2, total)]
    ids, t = torch.arange(total) // 2, torch.tensor(0.2).double()
    value, wanted = value_and_gradients(
        lambda q, k, t: sampled_softmax(q, k, whole[2], temperature=t, key_ids=ids),
        *whole[:2], t,
    )  # fmt: skip
    got, found = value_and_gradients(
        lambda q, k, t: sampled_softmax(
            q, k, whole[2][own], temperature=t, key_ids=ids[own], gather=True
        ),
        whole[0][own], whole[1][own], t,
    )  # fmt: skip
    ranks = len(rows)  # what DDP would divide by; the temperature's gradient is global as it is
    errors = [(got - value).abs(), (found[2] - wanted[2]).abs()]
    errors += [(f / ranks - w[own]).abs().sum() for f, w in zip(found, wanted[:2], strict=False)]
    return float(torch.stack(errors).max())


def test_ranks_give_the_loss_of_the_whole_batch():
    assert max(run_ranks(2, gathered, [4, 3])) < 1e-12


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"log_q": torch.zeros(2)}, ValueError, r"log_q: expected shape \(3,\), one log-probabili"),
        ({"log_q": torch.arange(3)}, TypeError, r"log_q: expected a floating-point tensor, got to"),
        ({"key": torch.eye(3)[:, :2]}, ValueError, r"key: expected last axis of size 3, got shape"),
        ({"key": torch.eye(3)[:2]}, ValueError, r"key: expected at least 3 rows, one per query"),
        ({"temperature": 0.0}, ValueError, r"sampled_softmax: temperature must be > 0, got 0. It"),
        ({"key_ids": torch.rand(3)}, TypeError, r"key_ids: expected integers, got torch.float32"),
        ({"similarity": "l2"}, ValueError, r"similarity must be one of cosine, dot, got 'l2'"),
    ],
)
def test_errors_teach(change, error, message):
    arguments = {"query": torch.eye(3), "key": torch.eye(3), "log_q": torch.zeros(3), **change}
    with pytest.raises(error, match=message):
        sampled_softmax(**arguments)


@pytest.mark.wording
def test_settings_teach():
    with pytest.raises(ValueError, match=r"SampledSoftmaxLoss: temperature must be > 0, got -1"):
        SampledSoftmaxLoss(-1.0)
    with pytest.raises(ValueError, match=r"SampledSoftmaxLoss: reduction must be one of mean, sum"):
        SampledSoftmaxLoss(reduction="median")
