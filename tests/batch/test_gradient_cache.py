import copy
import functools

import pytest
import torch
import torch.distributed as dist
from distributed import run_ranks
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from embedkit.batch._chunks import Chunks
from embedkit.batch._reductions import modules_of
from embedkit.batch.gradient_cache import GradientCache
from embedkit.losses import InfoNCELoss, LearnableTemperature, MatryoshkaLoss, SupConLoss


def tower(width=4, dim=6, dropout=0.3):
    layers = nn.Linear(width, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, dim)
    return nn.Sequential(*layers).double()


def rows(n, width=4, seed=0):
    return torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pieces(x, size):
    return [x] if len(x) == 0 else list(x.split(size))


def plain(encoders, loss, inputs, named):
    """A step with the whole graph, on the same chunks."""
    encoded = [torch.cat([e(c) for c in x]) for e, x in zip(encoders, inputs, strict=True)]
    value = loss(*encoded, **named)
    value.backward()
    return value.detach()


def compare(modules, once, cached):
    """Loss, gradients and random state of both ways agree to 1e-10."""
    found = []
    for run in (once, cached):
        for module in modules:
            module.zero_grad()
        torch.manual_seed(3)
        value = run()
        grads = [p.grad.clone() for m in modules for p in m.parameters()]
        found.append((value, grads, torch.rand(3)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


@given(st.integers(1, 9), st.integers(0, 5), st.integers(1, 11))
def test_a_step_equals_the_plain_one_for_any_rows_and_chunks(queries, surplus, chunk_size):
    first, second = tower(), tower(dropout=0.5)
    loss = InfoNCELoss(LearnableTemperature(0.5)).double()
    query, key = rows(queries), rows(queries + surplus, seed=1)
    compare(
        [first, second, loss],
        lambda: plain(
            [first, second], loss, [pieces(query, chunk_size), pieces(key, chunk_size)], {}
        ),
        lambda: GradientCache([first, second], loss, chunk_size).step(query, key),
    )


def test_a_shared_encoder_under_all_widths_with_labels_equals_the_plain_step():
    encoder = tower()
    loss = MatryoshkaLoss(InfoNCELoss(LearnableTemperature(0.5)).double(), [2, 4, 6])
    ids = {"query_ids": torch.arange(7) // 2, "key_ids": torch.arange(7) // 2}
    x, y = rows(7), rows(7, seed=1)
    compare(
        [encoder, loss],
        lambda: plain([encoder] * 2, loss, [x.split(3), y.split(3)], ids),
        lambda: GradientCache([encoder] * 2, loss, 3).step(x, y, **ids),
    )


def test_structures_and_own_splits_equal_the_plain_step():
    words = nn.EmbeddingBag(9, 6).double()
    other = tower()

    def read(batch):  # packed ids cannot be cut by rows
        return words(*batch)

    def look(batch):
        assert batch["scale"] == 2.0
        return other(batch["image"][0]) * batch["scale"]

    packed = [
        (torch.tensor([1, 2, 3, 4, 5]), torch.tensor([0, 2, 3])),
        (torch.tensor([6]), torch.tensor([0])),
    ]
    image, loss = rows(4), InfoNCELoss(0.5)
    parts = [{"image": [part], "scale": 2.0} for part in image.split(3)]
    compare(
        [words, other],
        lambda: plain([read, look], loss, [packed, parts], {}),
        lambda: GradientCache([read, look], loss, 3).step(
            Chunks(packed), {"image": [image], "scale": 2.0}
        ),
    )


def test_an_encoder_may_give_several_tensors():
    encoder = tower()

    def both(x):
        hidden = encoder[0](x)
        return {"out": encoder[1:](hidden), "hidden": hidden, "place": torch.arange(len(x))}

    def loss(given):
        assert given["place"].tolist() == [0, 1, 0, 1, 0]
        return given["out"].square().mean() + given["hidden"].sum()

    def once():
        parts = [both(c) for c in x.split(2)]
        value = loss({k: torch.cat([p[k] for p in parts]) for k in parts[0]})
        value.backward()
        return value.detach()

    x = rows(5)
    compare([encoder], once, lambda: GradientCache([both], loss, 2).step(x))


def test_gradients_accumulate_and_the_caller_runs_backward():
    encoder, loss = tower(dropout=0.0), SupConLoss(0.5)
    labels, x = torch.tensor([0, 1, 0, 1, 0]), rows(5)
    cache = GradientCache([encoder], loss, 2)
    cache.step(x, labels=labels)
    one = [p.grad.clone() for p in encoder.parameters()]
    cache.step(x, labels=labels, backward=lambda value: (4 * value).backward())
    for parameter, grad in zip(encoder.parameters(), one, strict=True):
        torch.testing.assert_close(parameter.grad, 5 * grad, rtol=1e-10, atol=1e-10)


def test_what_the_loss_does_not_use_gets_zero():
    first, second = tower(), tower()
    GradientCache([first, second], lambda a, b: a.sum(), 2).step(rows(3), rows(3))
    assert all(bool((p.grad == 0).all()) for p in second.parameters())
    assert bool((first[3].bias.grad == 3).all())


def test_a_frozen_encoder_stays_without_gradient():
    first, second = tower(), tower().requires_grad_(False)
    GradientCache([first, second], InfoNCELoss(), 2).step(rows(3), rows(3))
    assert all(p.grad is None for p in second.parameters())
    assert all(p.grad is not None for p in first.parameters())


def test_batch_norm_counts_each_chunk_once():
    norm = nn.BatchNorm1d(4, dtype=torch.float64)
    want = nn.BatchNorm1d(4, dtype=torch.float64)
    x = rows(6)
    GradientCache([norm], lambda a: a.square().sum(), 3).step(x)
    plain([want], lambda a: a.square().sum(), [x.split(3)], {})
    torch.testing.assert_close(norm.state_dict(), want.state_dict())
    torch.testing.assert_close(norm.bias.grad, want.bias.grad)
    assert norm.track_running_stats


def test_one_chunk_is_alive_at_a_time():
    alive, most = [0], [0]

    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            alive[0] += len(x)
            most[0] = max(most[0], alive[0])
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            alive[0] -= len(grad)
            return grad

    linear = nn.Linear(4, 4).double()

    def encoder(x):
        out = linear(x)
        return Count.apply(out) if torch.is_grad_enabled() else out

    GradientCache([encoder], lambda a: a.sum(), 3).step(rows(20))
    assert (alive, most) == ([0], [3])


def test_modules_are_found_behind_callables():
    model = nn.ModuleDict({"tower": nn.Linear(2, 2)})

    class Owner:
        def __init__(self):
            self.model = model

        def encode(self, x):
            return self.model.tower(x)

    def inner(x):
        return model.tower(x)

    callables = model, lambda x: inner(x), Owner().encode, functools.partial(inner), model.forward
    for encoder in callables:
        assert set(modules_of(encoder)) == {model, model.tower}
    assert modules_of(torch.tanh) == []


# --- errors


def step(encoder, x, loss=lambda a: a.sum()):
    return GradientCache([encoder], loss, 2).step(x)


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        pytest.param(
            lambda: GradientCache(nn.Linear(2, 2), sum),
            TypeError,
            r"Write \[encoder\]",
            marks=pytest.mark.wording,
        ),
        (lambda: GradientCache([], sum), ValueError, "one encoder or more, got none"),
        (
            lambda: GradientCache([abs], sum, 0),
            ValueError,
            "GradientCache: chunk_size must be >= 1, got 0",
        ),
        (
            lambda: GradientCache([abs, abs], sum).step(rows(2)),
            ValueError,
            "expected 2 inputs, one per encoder, got 1",
        ),
        (
            lambda: step(tower(), (rows(3), rows(4))),
            ValueError,
            r"input 0: expected tensors with as many rows each, got shapes \(3, 4\), \(4, 4\)",
        ),
        (lambda: step(tower(), torch.tensor(1.0)), ValueError, "input 0: expected tensors with"),
        (lambda: step(tower(), ["a"]), TypeError, r"input 0: .* got list without one.* Chunks"),
        (lambda: Chunks([]), ValueError, "one part or more"),
        (
            lambda: step(lambda x: x.sum(0, keepdim=True), rows(3)),
            ValueError,
            "encoder 0: expected 2 rows for chunk 0, one per row that went in, got 1",
        ),
        (
            lambda: step(lambda x: None, rows(3)),
            TypeError,
            "what encoder 0 gave: expected a tensor",
        ),
        (
            lambda: step(lambda x: [x] * len(x), rows(3)),
            ValueError,
            r"encoder 0: expected as many tensors from every chunk, got \[2, 1\]",
        ),
        (lambda: step(tower(), rows(3), lambda a: a), ValueError, r"0-d tensor, got \(3, 6\)"),
        (lambda: step(tower(), rows(3), lambda a: 1.0), ValueError, "0-d tensor, got float"),
        (
            lambda: step(tower(), rows(3), lambda a: a.detach().sum()),
            ValueError,
            "the loss has no gradient",
        ),
        (
            torch.no_grad()(lambda: step(tower(), rows(3))),
            RuntimeError,
            "step makes gradients, but they are switched off",
        ),
    ],
)
def test_errors_teach(run, error, words):
    with pytest.raises(error, match=words):
        run()


def test_a_loss_that_fails_changes_no_gradient():
    encoder = tower()
    step(encoder, rows(3))
    before = [p.grad.clone() for p in encoder.parameters()]
    with pytest.raises(ZeroDivisionError):
        step(encoder, rows(3), lambda a: 1 / 0)
    torch.testing.assert_close([p.grad for p in encoder.parameters()], before, rtol=0, atol=0)


# --- several processes


def mean_gradients(modules):
    grads = [p.grad for m in modules for p in m.parameters()]
    for grad in grads:
        dist.all_reduce(grad)
    return [(g / dist.get_world_size()).clone() for g in grads]


def reduced(state, bucket):
    state.append(bucket.index())
    mean = bucket.buffer().div_(dist.get_world_size())
    return dist.all_reduce(mean, async_op=True).get_future().then(lambda f: f.value()[0])


def compare_ranks(wrapped, bare, cache, alone, inputs, count):
    """Largest gap to the mean of local gradients, of one step and of two accumulated ones; and
    the reductions of each step."""
    torch.manual_seed(1)
    alone.step(*inputs)
    want = mean_gradients(bare)
    gaps, counts = [], []
    for syncs in ((True,), (False, True)):
        for module in (*wrapped, *bare):
            module.zero_grad()
        for sync in syncs:
            count.clear()
            torch.manual_seed(1)
            cache.step(*inputs, sync=sync)
            counts.append(len(count))
        got = [p.grad for m in wrapped for p in m.parameters()]
        got = [g.full_tensor() if hasattr(g, "full_tensor") else g for g in got]
        pairs = zip(got, want, strict=True)
        gaps.append(max(float((g - len(syncs) * w).abs().max()) for g, w in pairs))
    return max(gaps), counts


def local(a, b):
    return (a.sum() + 1) * (b.sum() + 2)


def under_ddp(rank, sizes):
    """One DDP used twice, with a lambda in between, and one used once; buffers are broadcast."""
    first, second, count = tower(), tower(), []
    first.append(nn.Identity())
    first[4].register_buffer("seen", torch.zeros(3))
    wrapped = [DistributedDataParallel(first), DistributedDataParallel(second)]
    for module in wrapped:
        module.register_comm_hook(count, reduced)
    x, y, z = (rows(sizes[rank], seed=10 * rank + s) for s in range(3))
    shared, other = wrapped
    encoders = [shared, lambda batch: shared(batch), other]
    cache = GradientCache(encoders, lambda a, b, c: local(a, b) * c.sum(), 2)
    alone = GradientCache([first, first, second], cache.loss, 2)
    gap, counts = compare_ranks(wrapped, [first, second], cache, alone, (x, y, z), count)
    count.clear()
    with shared.no_sync(), other.no_sync():
        cache.step(x, y, z)
    return gap, [*counts, len(count)]


def two_in_one(rank):
    """Both towers in one DDP, which then looks for unused parameters."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = tower(), tower()

        def forward(self, x, side):
            return getattr(self, side)(x)

    pair, count = Pair(), []
    both = DistributedDataParallel(pair, find_unused_parameters=True)
    both.register_comm_hook(count, reduced)
    inputs = [rows(5 - 3 * rank, seed=rank), rows(5 - 3 * rank, seed=9)]
    cache = GradientCache(
        [functools.partial(both, side="left"), lambda x: both(x, "right")], local, 2
    )
    alone = GradientCache([pair.left, pair.right], local, 2)
    return compare_ranks([both], [pair.left, pair.right], cache, alone, inputs, count)


def frozen_graph(rank):
    model = DistributedDataParallel(tower(), static_graph=True)
    with pytest.raises(ValueError, match="expected DistributedDataParallel without static_graph"):
        step(model, rows(3))


def under_fsdp(rank, sizes):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.fsdp._fully_shard import _fsdp_param_group as inside

    torch.manual_seed(0)
    count, reduce = [], inside.foreach_reduce
    inside.foreach_reduce = lambda *args, **named: (count.append(1), reduce(*args, **named))[1]
    bare = tower()
    sharded = copy.deepcopy(bare)
    mesh = init_device_mesh("cpu", (2,))
    for module in (sharded[0], sharded):
        fully_shard(module, mesh=mesh)
    inputs = [rows(sizes[rank], seed=rank), rows(sizes[rank], seed=9)]
    cache = GradientCache([sharded, lambda x: sharded(x)], local, 2)
    alone = GradientCache([bare, bare], local, 2)
    result = compare_ranks([sharded], [bare], cache, alone, inputs, count)
    with pytest.raises(ValueError, match=r"as many Chunks on every rank, got between 1 and 2"):
        cache.step(Chunks([inputs[0]] * (1 + rank)), inputs[1])
    return result


def against_one_process(rank, sizes):
    """Largest gap to the step of one process that has the whole batch."""
    torch.manual_seed(0)
    first, second = tower(dropout=0.0), tower(dropout=0.0)
    alone = InfoNCELoss(LearnableTemperature(0.5)).double()
    modules = [first, second, alone]
    query, key = rows(sum(sizes), seed=1), rows(sum(sizes), seed=2)
    want = [alone(first(query), second(key))]
    want[0].backward()
    want += [p.grad.clone() for m in modules for p in m.parameters()]
    for module in modules:
        module.zero_grad()
    loss = InfoNCELoss(alone.temperature, gather=True)
    wrapped = [DistributedDataParallel(first), DistributedDataParallel(second)]
    start = sum(sizes[:rank])
    own = slice(start, start + sizes[rank])
    got = [GradientCache(wrapped, loss, 2).step(query[own], key[own])]
    got += [p.grad for m in modules for p in m.parameters()]
    return max(float((g - w).detach().abs().max()) for g, w in zip(got, want, strict=True))


def all_ddp(rank):
    frozen_graph(rank)
    assert against_one_process(rank, (5, 2)) < 1e-10
    assert against_one_process(rank, (0, 3)) < 1e-10
    return under_ddp(rank, (5, 2)), under_ddp(rank, (5, 0)), two_in_one(rank)


def test_ddp_reduces_once_per_step_whatever_each_rank_holds():
    for uneven, empty, pair in run_ranks(2, all_ddp):
        for gap, counts in (uneven, empty):
            assert gap < 1e-10
            assert counts == [2, 0, 2, 0]  # two modules, one bucket each
        assert pair[0] < 1e-10
        assert pair[1] == [1, 0, 1]


def both_sizes(rank):
    return [under_fsdp(rank, sizes) for sizes in ((5, 2), (5, 0))]


def test_fully_shard_reduces_once_per_step_whatever_each_rank_holds():
    for results in run_ranks(2, both_sizes):
        for gap, counts in results:
            assert gap < 1e-10
            assert counts == [2, 0, 2]  # two groups of parameters
