import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from embedkit.ops import splitmix64, stable_hash, stable_string_hash

INT64 = st.integers(-(2**63), 2**63 - 1)
WORD = 2**64 - 1


def unsigned_mix(word):
    """The published splitmix64 finaliser on Python's own unbounded integers."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def test_first_published_outputs():
    increment, state, outputs = 0x9E3779B97F4A7C15 - 2**64, torch.tensor(0), []
    for _ in range(3):
        outputs.append(splitmix64(state).item() & WORD)
        state = state + increment
    assert outputs == [16294208416658607535, 7960286522194355700, 487617019471545679]


@given(word=INT64, seed=INT64)
def test_64_bit_arithmetic_wraps(word, seed):
    want = unsigned_mix((word + 0x9E3779B97F4A7C15) & WORD)
    assert splitmix64(torch.tensor(word)).item() & WORD == want
    want = unsigned_mix((word * 0x9E3779B97F4A7C15 + seed) & WORD) & (2**63 - 1)
    assert stable_hash(torch.tensor([word]), torch.tensor(seed)).item() == want


@pytest.mark.parametrize(
    ("id_", "want"),
    [
        (0, [871, 136, 696]),
        (1, [247, 158, 161]),
        (7, [182, 891, 689]),
        (1000003, [613, 490, 148]),
        (-1, [584, 942, 216]),
    ],
)
def test_reference_buckets(id_, want):
    seeds = splitmix64(torch.tensor([0, 1, 2**16]))
    assert (stable_hash(torch.tensor(id_), seeds) % 1000).tolist() == want


@given(ids=st.lists(INT64, max_size=5))
def test_result_is_never_negative(ids):
    assert (stable_hash(torch.tensor(ids, dtype=torch.int64), 3) >= 0).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_narrow_ids_hash_as_wide_ones(dtype):
    ids = torch.arange(120).to(dtype)
    torch.testing.assert_close(stable_hash(ids, 5), stable_hash(ids.long(), 5))
    torch.testing.assert_close(splitmix64(ids), splitmix64(ids.long()))


@pytest.mark.parametrize("buckets", [997, 1024])
@pytest.mark.parametrize("stride", [1, 1024])
@pytest.mark.parametrize("seed", [0, 1, 2**16])
def test_buckets_are_uniform(buckets, stride, seed):
    seed = splitmix64(torch.tensor(seed))
    rows = stable_hash(torch.arange(100_000) * stride, seed) % buckets
    assert stats.chisquare(rows.bincount(minlength=buckets)).pvalue > 1e-4


def test_seeds_give_independent_functions():
    ids, (first, second) = torch.arange(100_000), splitmix64(torch.arange(2))
    pairs = stable_hash(ids, first) % 16 * 16 + stable_hash(ids, second) % 16
    assert stats.chisquare(pairs.bincount(minlength=256)).pvalue > 1e-4


@pytest.mark.compile
def test_one_graph_with_the_same_numbers():
    ids, seeds = torch.arange(-50, 50)[:, None], splitmix64(torch.arange(3))
    torch.compiler.reset()
    compiled = torch.compile(stable_hash, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids, seeds), stable_hash(ids, seeds))


def test_shapes_broadcast_and_may_be_empty():
    assert stable_hash(torch.zeros(4, 1).long(), torch.zeros(1, 3).long()).shape == (4, 3)
    assert stable_hash(torch.empty(0, dtype=torch.int64), 1).shape == (0,)


@pytest.mark.parametrize("call", [splitmix64, lambda ids: stable_hash(ids, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
@pytest.mark.wording
def test_only_integers_are_hashed(call, dtype):
    with pytest.raises(TypeError, match=f"expected integers, got {dtype}. Hash whole numbers"):
        call(torch.ones(2, dtype=dtype))


def test_strings_keep_their_ids_in_every_process():
    texts = ["", "red", "красный", "red"]
    ids = stable_string_hash(texts)
    assert ids[1] == ids[3]
    assert len(set(ids.tolist())) == 3
    assert (ids >= 0).all()
    code = f"from embedkit.ops import *; print(stable_string_hash({texts!r}).tolist())"
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert run.stdout.decode().strip() == str(ids.tolist())


def test_string_ids_are_the_first_digest_bytes():
    # b2sum --length=64 of the empty text: e4a6a0577479b2b4, read from the lowest byte
    assert stable_string_hash([""]).item() == 0xB4B2797457A0A6E4 & (2**63 - 1)
    assert stable_string_hash([]).shape == (0,)


@pytest.mark.wording
def test_one_string_is_not_a_list():
    with pytest.raises(TypeError, match=r"expected a list of strings, got the string 'red'. Put"):
        stable_string_hash("red")
