import io
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.tables import UnifiedEmbedding

FEATURES = {"user": 2, "tags": 1, "history": 3}


def ragged(lengths):
    """Ids in bags of these lengths, as (ids, offsets)."""
    lengths = torch.tensor(lengths, dtype=torch.int64)
    return torch.randint(-(10**12), 10**12, (int(lengths.sum()),)), lengths.cumsum(0) - lengths


def rows_of(table, feature, ids):
    """The rows that each look-up of a feature reads, told from the documented rule alone."""
    chunks, before = list(table.features.values()), sum(list(table.features.values())[:feature])
    size = table.weight.shape[0] // table.num_tables
    turns = [(before + j) % table.num_tables * size for j in range(chunks[feature])]
    return table.hash(ids, feature)[..., : chunks[feature]] + torch.tensor(turns)


class Perfect(nn.Module):
    """A hash without collisions: each feature has a range of its own."""

    def __init__(self, starts, lookups=1):
        super().__init__()
        self.starts, self.lookups = torch.tensor(starts), lookups

    def forward(self, ids, feature):
        return (ids + self.starts[feature])[..., None].expand(*ids.shape, self.lookups)


@pytest.mark.parametrize("combiner", ["mean", "sum"])
@pytest.mark.parametrize("num_tables", [1, 2, 4])
def test_agrees_with_embedding_bags(combiner, num_tables):
    table = UnifiedEmbedding(FEATURES, 23, 4, num_tables, seed=9, combiner=combiner).double()
    history = ragged([2, 0, 5, 0])
    inputs = {
        "user": torch.tensor([3, -1, 2**62, 3]),
        "tags": torch.tensor([[1, 2, 2], [5, 5, 5], [0, -7, 9], [1, 1, 4]]),
        "history": history,
    }
    out = table(inputs)
    assert list(out) == list(FEATURES)
    assert {name: v.shape[1] for name, v in out.items()} == table.embedding_dims
    bag = nn.EmbeddingBag.from_pretrained(table.weight.detach(), mode=combiner)
    bags = (
        (inputs["user"], torch.arange(4)),
        (inputs["tags"].flatten(), torch.arange(0, 12, 3)),
        history,
    )
    for feature, (name, (ids, offsets)) in enumerate(zip(FEATURES, bags, strict=True)):
        rows = rows_of(table, feature, ids)
        want = torch.cat([bag(row.contiguous(), offsets) for row in rows.T], dim=1)
        torch.testing.assert_close(out[name], want)


def test_perfect_assignment_is_nn_embedding():
    table = UnifiedEmbedding({"a": 1, "b": 1}, 12, 5).double()
    table.hash = Perfect([0, 7])
    plain = nn.Embedding.from_pretrained(table.weight.detach().clone(), freeze=False)
    a, b = torch.tensor([0, 6, 6, 2]), torch.tensor([[4, 0], [1, 1], [2, 3], [0, 0]])
    head = torch.randn(10).double()
    out, want = table({"a": a, "b": b}), (plain(a), plain(b + 7).mean(1))
    torch.testing.assert_close((out["a"], out["b"]), want)
    (torch.cat(list(out.values()), 1) @ head).square().sum().backward()
    (torch.cat(want, 1) @ head).square().sum().backward()
    torch.testing.assert_close(table.weight.grad, plain.weight.grad)


@given(length=st.integers(0, 4), batch=st.integers(0, 4), seed=st.integers(0, 2**31))
def test_dense_ids_are_ragged_ids_of_one_length(length, batch, seed):
    torch.manual_seed(seed)
    table = UnifiedEmbedding({"a": 2}, 17, 3)
    dense = torch.randint(-9, 9, (batch, length))
    offsets = torch.arange(batch) * length
    want = table({"a": dense})["a"]
    assert want.shape == (batch, 6)
    torch.testing.assert_close(table({"a": (dense.flatten(), offsets)})["a"], want)
    if length == 0:
        assert (want == 0).all()
    if length == 1:
        torch.testing.assert_close(table({"a": dense[:, 0]})["a"], want)


@given(seed=st.integers(0, 2**31), order=st.permutations(range(5)))
def test_a_row_depends_on_no_other_row(seed, order):
    torch.manual_seed(seed)
    table, order = UnifiedEmbedding({"a": 2, "b": 1}, 11, 3), torch.tensor(order)
    a, b = torch.randint(99, (5,)), torch.randint(99, (5, 2))
    whole, shuffled = table({"a": a, "b": b}), table({"b": b[order], "a": a[order], "c": None})
    alone = table({"a": a[:1], "b": b[3:]})
    for name in ("a", "b"):
        torch.testing.assert_close(shuffled[name], whole[name][order], rtol=0, atol=0)
    torch.testing.assert_close(alone["a"], whole["a"][:1], rtol=0, atol=0)
    torch.testing.assert_close(alone["b"], whole["b"][3:], rtol=0, atol=0)


def test_values_stay_apart_without_a_combiner():
    table = UnifiedEmbedding({"a": 2, "b": 3}, 31, 4, num_tables=3, combiner=None)
    a, b = torch.arange(5), torch.arange(10).reshape(5, 2)
    out = table({"a": a, "b": b})
    assert {name: tuple(v.shape) for name, v in out.items()} == {"a": (5, 8), "b": (5, 2, 12)}
    for feature, (name, ids) in enumerate({"a": a, "b": b}.items()):
        torch.testing.assert_close(
            out[name], table.weight[rows_of(table, feature, ids)].flatten(-2), rtol=0, atol=0
        )
    assert table({"a": a[:0], "b": b[:, :0]})["b"].shape == (5, 0, 12)


def test_lookups_take_turns_in_the_tables():
    table = UnifiedEmbedding({"a": 1, "b": 2, "c": 3}, 50, 8, num_tables=3)
    first = zip(table.first_row.tolist(), (1, 2, 3), strict=True)
    turns = [[row // 50 for row in rows[:chunks]] for rows, chunks in first]
    assert turns == [[0], [1, 2], [0, 1, 2]]
    assert table.embedding_dims == {"a": 8, "b": 16, "c": 24}
    out = table({name: torch.arange(2) for name in "abc"})
    assert [v.shape[1] for v in out.values()] == [8, 16, 24]
    assert table.weight.shape == (150, 8)


def test_a_shared_row_gets_each_features_own_direction():
    table = UnifiedEmbedding({"s": 1, "t": 1}, 3, 2).double()
    table.hash = Perfect([1, 1])
    nn.init.constant_(table.weight, 0)
    with torch.no_grad():
        table.weight[1] = torch.tensor([0.3, -0.2])
    out = table({"s": torch.tensor([0]), "t": torch.tensor([0])})
    logit = out["s"][:, 0] + out["t"][:, 1]  # theta_s = (1, 0), theta_t = (0, 1)
    assert logit.item() == pytest.approx(0.1)
    F.binary_cross_entropy_with_logits(logit, torch.ones(1).double()).backward()
    want = torch.zeros(3, 2).double()
    want[1] = -0.475021
    torch.testing.assert_close(table.weight.grad, want, rtol=0, atol=1e-6)


def test_features_may_differ_in_their_number_of_rows():
    table = UnifiedEmbedding({"a": 1, "b": 2}, 11, 3)
    out = table({"a": torch.arange(4), "b": (torch.arange(3), torch.tensor([0, 1]))})
    assert [tuple(v.shape) for v in out.values()] == [(4, 3), (2, 6)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_adds_in_float32(dtype):
    table = UnifiedEmbedding({"a": 1}, 5, 2).to(dtype)
    nn.init.constant_(table.weight, 200.0)
    out = table({"a": torch.arange(3000).reshape(2, 1500)})["a"]  # the sum leaves float16
    torch.testing.assert_close(out, torch.full((2, 2), 200.0, dtype=dtype))


def test_rows_are_the_same_in_every_process_and_after_loading():
    code = (
        "import torch; from embedkit.tables import *; torch.manual_seed(0);"
        "t = UnifiedEmbedding({'b': 2, 'a': 1}, 50, 2);"
        "out = t({'a': torch.arange(3), 'b': torch.arange(3)});"
        "print(torch.cat(list(out.values()), 1).tolist())"
    )
    torch.manual_seed(0)
    table, inputs = UnifiedEmbedding({"b": 2, "a": 1}, 50, 2), {"a": torch.arange(3)}
    inputs["b"] = inputs["a"]
    out = torch.cat(list(table(inputs).values()), 1)
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert run.stdout.decode().strip() == str(out.tolist())
    buffer, new = io.BytesIO(), UnifiedEmbedding({"b": 2, "a": 1}, 50, 2, seed=8)
    torch.save(table.state_dict(), buffer)
    buffer.seek(0)
    new.load_state_dict(torch.load(buffer, weights_only=True))
    torch.testing.assert_close(new(inputs), table(inputs))


def test_rows_start_small_and_can_be_drawn_again():
    with torch.device("meta"):
        table = UnifiedEmbedding(FEATURES, 1000, 8, num_tables=2)
    table.to_empty(device="cpu")
    for module in table.modules():
        module.reset_parameters()
    assert table.weight.abs().max() <= 0.05
    assert table.weight.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.05)
    assert torch.equal(table.first_row, UnifiedEmbedding(FEATURES, 1000, 8, 2).first_row)


@pytest.mark.compile
def test_exports_with_a_free_batch_size():
    table = UnifiedEmbedding({"a": 2, "b": 1}, 11, 3)
    inputs = ({"a": torch.arange(4), "b": torch.arange(8).reshape(4, 2)},)
    b = torch.export.Dim("b")
    program = torch.export.export(table, inputs, dynamic_shapes=({"a": {0: b}, "b": {0: b}},))
    other = {"a": torch.arange(7), "b": torch.arange(14).reshape(7, 2)}
    torch.testing.assert_close(program.module()(other), table(other))


def test_a_missing_feature_is_named():
    with pytest.raises(KeyError, match=r"no ids for feature 'b'; got a, c. Every declared feature"):
        UnifiedEmbedding({"a": 1, "b": 1}, 5, 2)({"a": torch.arange(3), "c": torch.arange(3)})


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (torch.ones(3), TypeError, "'a': expected integers, got torch.float32. Number the"),
        (torch.ones(3).bool(), TypeError, "'a': expected integers, got torch.bool"),
        pytest.param(
            *([1, 2], TypeError, "'a': expected a tensor of ids or a pair .* got list. Use torch"),
            marks=pytest.mark.wording,
        ),
        (torch.tensor(3), ValueError, r"'a': expected ids \(b,\), \(b, l\) or a pair .* \(\)"),
        (torch.zeros(1, 1, 1).long(), ValueError, r"'a': expected ids .* got shape \(1, 1, 1\)"),
        ((torch.ones(3), torch.tensor([0])), TypeError, "'a': expected integers, got torch.float"),
        ((torch.arange(3), torch.zeros(1)), TypeError, "offsets of .*'a': expected integers"),
        ((torch.ones(1, 1).long(), torch.tensor([0])), ValueError, r"'a': expected 1 axes \(n\)"),
        ((torch.arange(3), torch.arange(0)), ValueError, "'a': expected one offset per bag, got 3"),
        ((torch.arange(3), torch.tensor([1, 2])), ValueError, r"'a': offsets must start at 0"),
        ((torch.arange(3), torch.tensor([0, 4])), ValueError, r"within the 3 ids, got \[0, 4\]"),
        ((torch.arange(3), torch.tensor([0, 2, 1])), ValueError, "'a': offsets must start at 0"),
        ((torch.arange(3), torch.tensor([0, -1])), ValueError, "'a': offsets must start at 0"),
        ((torch.arange(0), torch.tensor([0, 4, 0])), ValueError, "'a': offsets must start at 0"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_ids_that_make_no_bags(value, error, words, alone):
    features, others = ({"a": 2}, {}) if alone else ({"z": 2, "a": 2, "b": 1}, {"z": 1, "b": 1})
    table = UnifiedEmbedding(features, 5, 2)
    inputs = {"a": value, **{name: torch.arange(6).reshape(2, 3) for name in others}}
    with pytest.raises(error, match=words):
        table(inputs)


def test_ragged_values_need_a_combiner():
    with pytest.raises(ValueError, match="'a' is ragged, and combiner=None keeps values apart"):
        UnifiedEmbedding({"a": 1}, 5, 2, combiner=None)({"a": ragged([1, 2])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": {}}, "features is empty; pass {name: number of chunks}"),
        ({"features": {"a": 1, "b": 0}}, r"features\['b'\] must be >= 1, got 0. It is the number"),
        ({"num_embeddings": 0}, "num_embeddings must be >= 1, got 0"),
        ({"chunk_dim": 0}, "chunk_dim must be >= 1, got 0"),
        ({"num_tables": 0}, "num_tables must be >= 1, got 0"),
        pytest.param(
            *({"combiner": "max"}, "combiner must be one of mean, sum, got 'max'"),
            marks=pytest.mark.wording,
        ),
    ],
)
def test_sizes_that_make_no_table(change, words):
    arguments = {"features": {"a": 1}, "num_embeddings": 5, "chunk_dim": 2, **change}
    with pytest.raises(ValueError, match=f"UnifiedEmbedding: {words}"):
        UnifiedEmbedding(**arguments)


def test_an_error_that_is_not_ours_stays_as_it_is():
    table = UnifiedEmbedding({"a": 1}, 5, 2)
    table.hash = Perfect([100])
    with pytest.raises(RuntimeError, match="not in the valid range"):
        table({"a": torch.zeros(2, 2).long()})
