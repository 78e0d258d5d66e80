import io

import pytest
import torch
import torch.distributed as dist
from distributed import run_ranks
from hypothesis import given
from hypothesis import strategies as st

from embedkit.batch.memory import CrossBatchMemory, MemoryQueue
from embedkit.losses import info_nce, sup_con


def numbered(first, count, dim=2):
    """Rows that say which they are, and their ids."""
    ids = torch.arange(first, first + count)
    return ids[:, None].repeat(1, dim).float(), ids


@given(st.integers(1, 7), st.lists(st.integers(0, 17), max_size=6))
def test_a_queue_keeps_the_last_rows_at_their_places(size, batches):
    queue, stored = MemoryQueue(size, 2), 0
    for count in batches:
        queue.enqueue(*numbered(stored, count))
        stored += count
    rows, ids = queue()
    kept = range(max(stored - size, 0), stored)
    assert ids.tolist() == sorted(kept, key=lambda number: number % size)
    torch.testing.assert_close(rows, numbered(0, stored)[0][ids])


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_queue_goes_on_from_its_state(before, after):
    old, new, file = MemoryQueue(4, 2), MemoryQueue(4, 2), io.BytesIO()
    old.enqueue(*numbered(0, before))
    torch.save(old.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file, weights_only=True))
    for queue in (old, new):
        queue.enqueue(*numbered(before, after))
    torch.testing.assert_close(new(), old())


@given(st.integers(0, 2**31))
def test_an_older_copy_is_neither_negative_nor_positive(seed):
    generator = torch.Generator().manual_seed(seed)
    query, key, old = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator)
    own, queue = torch.arange(10, 15), MemoryQueue(8, 4).double()
    queue.enqueue(old, torch.tensor([1, 12, 2, 10, -1]))
    rows, ids = queue()
    loss = info_nce(
        query,
        torch.cat([key, rows]),
        query_ids=own,
        key_ids=torch.cat([own, ids]),
        same_id="ignore",
        temperature=0.5,
    )
    unit = torch.nn.functional.normalize
    logits = unit(query) @ unit(torch.cat([key, old])).T / 0.5
    logits[2, 6] = logits[0, 8] = -torch.inf  # ids 12 and 10 again
    want = torch.nn.functional.cross_entropy(logits, torch.arange(5))
    torch.testing.assert_close(loss, want)


def test_an_empty_queue_changes_nothing():
    query, key = torch.randn(2, 5, 4)
    own, (rows, ids) = torch.arange(5), MemoryQueue(8, 4)()
    grown = torch.cat([key, rows]), torch.cat([own, ids])
    alone = info_nce(query, key, query_ids=own, same_id="ignore")
    joined = info_nce(query, grown[0], query_ids=own, key_ids=grown[1], same_id="ignore")
    assert torch.equal(joined, alone)


def test_a_loss_on_an_empty_queue_alone_is_a_connected_zero():
    query, queue = torch.randn(5, 4, requires_grad=True), MemoryQueue(8, 4)
    rows, ids = queue()
    loss = info_nce(query, rows, query_ids=torch.arange(5), key_ids=ids)
    loss.backward()
    assert loss == 0
    assert torch.equal(query.grad, torch.zeros(5, 4))


def test_rows_are_stored_without_a_graph_and_without_ids_as_minus_one():
    queue = MemoryQueue(3, 2)
    queue.enqueue(torch.ones(2, 2, requires_grad=True))
    rows, ids = queue()
    assert not rows.requires_grad
    assert ids.tolist() == [-1, -1]


def test_half_precision_is_kept():
    queue = MemoryQueue(3, 2).to(torch.bfloat16)
    queue.enqueue(torch.ones(2, 2, dtype=torch.bfloat16))
    assert queue()[0].dtype == torch.bfloat16


@pytest.mark.compile
def test_reading_compiles_to_one_graph():
    queue = MemoryQueue(4, 2)
    read = torch.compile(queue, fullgraph=True, backend="aot_eager")
    for _ in range(4):
        queue.enqueue(*numbered(0, 3))
        torch.testing.assert_close(read(), queue())


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.lists(st.integers(0, 9)))
def test_a_memory_leaves_out_what_it_is_told(stored, without):
    memory, ids = CrossBatchMemory(5, 2), torch.tensor(stored)
    memory.enqueue(ids[:, None].repeat(1, 2).float(), ids + 100, ids)
    rows, labels = memory(without=torch.tensor(without, dtype=torch.long))
    want = [i for i in stored[-5:] if i not in without]
    assert sorted(labels.tolist()) == sorted(i + 100 for i in want)
    torch.testing.assert_close(rows[:, 0] + 100, labels.float())
    assert len(memory()[1]) == min(len(stored), 5)


@given(st.integers(0, 2**31))
def test_a_memory_gives_candidates_and_no_anchors(seed):
    generator = torch.Generator().manual_seed(seed)
    fresh, old = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator)
    labels, ids = torch.tensor([0, 1, 0, 2, 1, 3]), torch.arange(6)
    memory = CrossBatchMemory(9, 4).double()
    memory.enqueue(old, labels, ids + 4)  # the first two are the batch's own samples 4 and 5
    rows, known = memory(without=ids)
    loss = sup_con(fresh, labels, memory=rows, memory_labels=known, temperature=0.5)
    unit = torch.nn.functional.normalize
    logits = unit(fresh) @ unit(torch.cat([fresh, old[2:]])).T / 0.5
    logits[ids, ids] = -torch.inf
    logp = logits.log_softmax(dim=1)
    positive = labels[:, None] == torch.cat([labels, labels[2:]])
    positive[ids, ids] = False
    each = [-row[hit].mean() for row, hit in zip(logp, positive, strict=True) if hit.any()]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_repr_says_how_full():
    assert "size=4, dim=2, filled=0" in repr(MemoryQueue(4, 2))


# --- errors


def enqueue(rows, ids=None, training=True):
    MemoryQueue(4, 2).train(training).enqueue(rows, ids)


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        (lambda: MemoryQueue(0, 2), ValueError, "MemoryQueue: size must be >= 1, got 0"),
        (lambda: CrossBatchMemory(3, 0), ValueError, "CrossBatchMemory: dim must be >= 1, got 0"),
        (lambda: enqueue(torch.ones(2, 3)), ValueError, "rows: expected last axis of size 2"),
        pytest.param(
            lambda: enqueue(torch.ones(2)),
            ValueError,
            r"rows: expected 2 axes",
            marks=pytest.mark.wording,
        ),
        (
            lambda: enqueue(torch.ones(2, 2).half()),
            TypeError,
            r"MemoryQueue: expected rows of torch.float32, got torch.float16. .*to\(torch.float16",
        ),
        pytest.param(
            lambda: enqueue(torch.ones(2, 2), torch.arange(3)),
            ValueError,
            "ids: expected 2 rows",
            marks=pytest.mark.wording,
        ),
        pytest.param(
            lambda: enqueue(torch.ones(2, 2), torch.ones(2)),
            TypeError,
            "ids: expected integers",
            marks=pytest.mark.wording,
        ),
        pytest.param(
            lambda: CrossBatchMemory(4, 2).enqueue(torch.ones(2, 2), torch.ones(2)),
            TypeError,
            "labels: expected integers",
            marks=pytest.mark.wording,
        ),
        pytest.param(
            lambda: CrossBatchMemory(4, 2)(without=torch.ones(2)),
            TypeError,
            "without: expected integers",
            marks=pytest.mark.wording,
        ),
        (
            lambda: enqueue(torch.ones(2, 2), training=False),
            RuntimeError,
            "MemoryQueue: enqueue in evaluation mode",
        ),
        (
            lambda: MemoryQueue(4, 2).enqueue(torch.ones(2, 2), gather=True),
            RuntimeError,
            "no process group",
        ),
    ],
)
def test_errors_teach(run, error, words):
    with pytest.raises(error, match=words):
        run()


def test_an_error_leaves_the_queue_as_it_was():
    queue = MemoryQueue(4, 2)
    queue.enqueue(*numbered(0, 3))
    with pytest.raises(TypeError):
        queue.enqueue(torch.ones(2, 2).double())
    assert queue()[1].tolist() == [0, 1, 2]


# --- several processes


def gathered(rank):
    queue, memory = MemoryQueue(7, 2), CrossBatchMemory(7, 2)
    for step in range(2):
        rows, ids = numbered(100 * rank + 10 * step, 3 - rank)
        queue.enqueue(rows, ids, gather=True)
        memory.enqueue(rows, ids + 1, ids, gather=dist.group.WORLD)
    for wrong in (torch.ones(1, 3), torch.ones(1, 2).double()):  # on one rank, an error on both
        with pytest.raises(
            (TypeError, ValueError, RuntimeError),
            match=r"expected (last axis of size 2|rows of torch.float32)",
        ):
            queue.enqueue(wrong if rank else rows, gather=True)
    queue.train(rank == 0)
    with pytest.raises(RuntimeError, match="enqueue in evaluation mode"):
        queue.enqueue(rows, gather=True)
    return queue()[1].tolist(), queue()[0][:, 0].tolist(), memory()[1].tolist()


def test_every_rank_holds_the_same():
    ids = [0, 1, 2, 100, 101, 10, 11, 12, 110, 111]
    want = [ids[7], ids[8], ids[9], *ids[3:7]]
    for got, rows, labels in run_ranks(2, gathered):
        assert got == rows == want
        assert labels == [i + 1 for i in want]
