import os
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.tables import SubwordEmbedding, fnv1a32, subword_ids

CHARACTERS = st.characters(codec="utf-8") | st.sampled_from("abcждfß€😀<>")
WORDS = st.lists(st.text(CHARACTERS, min_size=1, max_size=8), max_size=5)


def reference(words, min_n, max_n, num_buckets, vocabulary):
    """fastText's double loop, a bag of rows per word."""
    bags = []
    for word in words:
        bag, text = [vocabulary[word]] if word in vocabulary else [], f"<{word}>"
        for start in range(len(text)):
            for n in range(min_n, max_n + 1):
                lone = n == 1 and start in (0, len(text) - 1)
                if start + n <= len(text) and not lone:
                    hash_ = fnv1a32(text[start : start + n])
                    bag.append(len(vocabulary) + hash_ % num_buckets)
        bags.append(bag)
    return bags


def as_bags(ids, offsets):
    starts = [*offsets.tolist(), len(ids)]
    return [ids[i:j].tolist() for i, j in pairwise(starts)]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("<wh", 1048167652),
        ("her", 4105473420),
        ("<where>", 2319392596),
        ("где", 380650951),
        ("", 2166136261),
    ],
)
def test_hashes_of_fasttext(text, want):
    assert fnv1a32(text) == want


@given(text=st.text(st.characters(max_codepoint=127)))
def test_ascii_hashes_are_plain_fnv1a(text):
    want = 0x811C9DC5
    for byte in text.encode():
        want = ((want ^ byte) * 0x01000193) & 0xFFFFFFFF
    assert fnv1a32(text) == want


def test_where_has_14_ngrams():
    ids, offsets = subword_ids(["where"], num_buckets=2**32)
    assert offsets.tolist() == [0]
    grams = "<wh,<whe,<wher,<where,whe,wher,where,where>,her,here,here>,ere,ere>,re>"
    assert ids.tolist() == [fnv1a32(gram) for gram in grams.split(",")]
    assert len(ids) == 14


@given(
    words=WORDS,
    known=st.sets(st.integers(0, 4)),
    min_n=st.integers(1, 4),
    more=st.integers(0, 4),
    num_buckets=st.integers(1, 2**33),
)
def test_agrees_with_the_double_loop(words, known, min_n, more, num_buckets):
    names = dict.fromkeys(word for i, word in enumerate(words) if i in known)
    vocabulary = {word: row for row, word in enumerate(names)}
    sizes = {"min_n": min_n, "max_n": min_n + more, "num_buckets": num_buckets}
    ids, offsets = subword_ids(words, **sizes, vocabulary=vocabulary)
    assert ids.dtype == offsets.dtype == torch.int64
    assert as_bags(ids, offsets) == reference(words, **sizes, vocabulary=vocabulary)


def test_a_known_word_has_its_own_row_first():
    ids, offsets = subword_ids(["b", "c", "bb"], min_n=4, max_n=4, vocabulary={"a": 0, "b": 1})
    assert as_bags(ids, offsets)[:2] == [[1], []]  # "<b>" is too short for an n-gram of four
    assert as_bags(ids, offsets)[2] == [2 + fnv1a32("<bb>") % 2_000_000]


def test_rows_are_the_same_in_every_process():
    words = ["where", "где", "😀"]
    code = (
        "from embedkit.tables import *;"
        f"ids, offsets = subword_ids({words!r}); print(ids.tolist() + offsets.tolist())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    ids, offsets = subword_ids(words)
    assert run.stdout.decode().strip() == str(ids.tolist() + offsets.tolist())


def test_sixty_thousand_words_take_seconds():
    words = [f"word{i * 7919}" for i in range(60_000)]
    start = time.perf_counter()
    ids, offsets = subword_ids(words)
    assert time.perf_counter() - start < 8  # 0.4 s on an idle core
    assert len(offsets) == 60_000
    assert as_bags(ids, offsets)[-1] == reference(words[-1:], 3, 6, 2_000_000, {})[0]


@given(words=WORDS, seed=st.integers(0, 2**31))
def test_a_word_is_the_mean_of_its_rows(words, seed):
    torch.manual_seed(seed)
    table = SubwordEmbedding(50, 3).double()
    ids, offsets = subword_ids(words, min_n=4, num_buckets=50)
    rows = [table.weight[bag].mean(0) if bag else torch.zeros(3) for bag in as_bags(ids, offsets)]
    want = torch.stack([row.double() for row in rows]) if rows else torch.empty(0, 3).double()
    torch.testing.assert_close(table(ids, offsets), want)


def test_agrees_with_embedding_bag():
    table, ids = SubwordEmbedding(20, 6).double(), torch.randint(20, (30,))
    offsets = torch.tensor([0, 0, 4, 20, 30])
    bag = nn.EmbeddingBag.from_pretrained(table.weight.detach().clone(), freeze=False, mode="mean")
    out, want = table(ids, offsets), bag(ids, offsets)
    torch.testing.assert_close(out, want)
    assert (out[[0, 4]] == 0).all()
    out.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(table.weight.grad, bag.weight.grad)
    torch.testing.assert_close(table(ids.int(), offsets.int()), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_adds_in_float32(dtype):
    table = SubwordEmbedding(4, 2).to(dtype)
    nn.init.constant_(table.weight, 200.0)
    out = table(torch.arange(3000) % 4, torch.tensor([0, 1500, 3000]))  # the sum leaves float16
    want = torch.tensor([[200.0] * 2, [200.0] * 2, [0.0] * 2], dtype=dtype)
    torch.testing.assert_close(out, want)
    out.sum().backward()
    assert table.weight.grad.isfinite().all()


def test_rows_start_within_one_over_the_width():
    weight = SubwordEmbedding(2000, 10).weight
    assert weight.abs().max() <= 0.1
    assert weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)


@pytest.mark.compile
def test_exports_with_free_lengths():
    table, dim = SubwordEmbedding(9, 3), torch.export.Dim
    args = (torch.arange(6), torch.tensor([0, 2, 3]))
    shapes = {"ids": {0: dim("n")}, "offsets": {0: dim("w")}}
    program = torch.export.export(table, args, dynamic_shapes=shapes)
    other = (torch.arange(9), torch.tensor([0, 2, 3, 9]))
    torch.testing.assert_close(program.module()(*other), table(*other))


@pytest.mark.parametrize("ids", [[0, 1, 9], [0, -1, 1], [3]])
def test_an_id_that_is_no_row(ids):
    words = rf"SubwordEmbedding: expected ids from 0 to 2, .* got {min(ids)} to {max(ids)}. Build"
    with pytest.raises(ValueError, match=words) as caught:
        SubwordEmbedding(3, 2)(torch.tensor(ids), torch.tensor([0]))
    assert isinstance(caught.value.__cause__, RuntimeError | IndexError)
    with pytest.raises(ValueError, match=words):
        SubwordEmbedding(3, 2).half()(torch.tensor(ids), torch.tensor([0]))


@pytest.mark.parametrize(
    "offsets", [[1, 2], [0, 2, 1], [0, 4], [0, -1], [-1, 0], [0, 9, 3]], ids=str
)
def test_offsets_that_make_no_bags(offsets):
    words = "SubwordEmbedding: offsets must start at 0, never decrease and stay within the 3 ids"
    with pytest.raises(ValueError, match=words):
        SubwordEmbedding(3, 2)(torch.arange(3), torch.tensor(offsets))


@pytest.mark.parametrize("offsets", [[0, 4, 0], [0, 4], [1]], ids=str)
def test_offsets_past_no_ids(offsets):
    with pytest.raises(ValueError, match="stay within the 0 ids"):
        SubwordEmbedding(3, 2)(torch.arange(0), torch.tensor(offsets))


@pytest.mark.parametrize(
    ("ids", "offsets", "error", "words"),
    [
        (torch.ones(3), torch.tensor([0]), TypeError, "ids: expected integers, got torch.float32"),
        (torch.arange(3), torch.zeros(1), TypeError, "offsets of .*ids: expected integers, got"),
        (torch.arange(3), torch.arange(0), ValueError, r"expected one offset per bag, got 3 ids"),
        (
            torch.ones(1, 3).long(),
            torch.tensor([0]),
            ValueError,
            r"ids: expected 1 axes \(n\), got",
        ),
        (torch.arange(3), torch.tensor(0), ValueError, r"offsets of .*ids: expected 1 axes \(b\)"),
    ],
)
def test_arguments_that_are_no_bags(ids, offsets, error, words):
    with pytest.raises(error, match=words):
        SubwordEmbedding(3, 2)(ids, offsets)


@pytest.mark.parametrize("name", ["num_embeddings", "embedding_dim"])
def test_a_size_below_one(name):
    sizes = {"num_embeddings": 1, "embedding_dim": 1, name: 0}
    with pytest.raises(ValueError, match=f"SubwordEmbedding: {name} must be >= 1, got 0"):
        SubwordEmbedding(**sizes)


def test_a_word_without_characters():
    with pytest.raises(ValueError, match=r"expected non-empty strings, got '' at place 1. It has"):
        subword_ids(["a", ""])


@pytest.mark.wording
@pytest.mark.parametrize(
    ("words", "told"),
    [("where", "a list of strings, got the string 'where'"), (["a", None], "strings, got None")],
)
def test_words_that_are_none(words, told):
    with pytest.raises(TypeError, match=f"words: expected {told}"):
        subword_ids(words)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"min_n": 0}, "min_n must be >= 1, got 0"),
        ({"min_n": 4, "max_n": 3}, "max_n must be >= 4, got 3. It is the longest n-gram"),
        ({"num_buckets": 0}, "num_buckets must be >= 1, got 0"),
        ({"vocabulary": {"a": 1}}, "expected rows from 0 to 0, got 1 to 1. Number the words"),
        ({"vocabulary": {"a": -1}}, "expected rows from 0 to 0, got -1 to -1"),
    ],
)
def test_numbers_that_do_not_fit(change, told):
    with pytest.raises(ValueError, match=told):
        subword_ids(["a"], **change)


def test_a_sparse_gradient_holds_the_same_numbers():
    ids, offsets = subword_ids(["where", "whereabouts"], num_buckets=50)
    dense, sparse = SubwordEmbedding(50, 4), SubwordEmbedding(50, 4, sparse=True)
    sparse.load_state_dict(dense.state_dict())
    for table in (dense, sparse):
        table(ids, offsets).square().sum().backward()
    assert sparse.weight.grad.is_sparse
    torch.testing.assert_close(sparse.weight.grad.to_dense(), dense.weight.grad)
