import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.tables import MultiplexedHash


def test_reference_buckets():
    hash_ = MultiplexedHash(2, 2, num_buckets=1000)
    ids = torch.tensor([0, 1, 7, 1000003, -1])
    want = [[871, 136], [247, 158], [182, 891], [613, 490], [584, 942]]
    assert hash_(ids, 0).tolist() == want
    assert hash_(ids, 1)[:, 0].tolist() == [696, 161, 689, 148, 216]


@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
def test_buckets_depend_on_the_id_and_its_feature_alone(ids):
    hash_, ids = MultiplexedHash(3, 2, num_buckets=97, seed=5), torch.tensor(ids)
    feature = torch.arange(len(ids)) % 3
    together = hash_(ids, feature)
    assert together.shape == (len(ids), 2)
    assert ((together >= 0) & (together < 97)).all()
    for row, id_, t in zip(together, ids, feature.tolist(), strict=True):
        assert torch.equal(hash_(id_, t), row)
    torch.testing.assert_close(hash_(ids[:, None].expand(-1, 4), 1)[:, 2], hash_(ids, 1))


def test_features_lookups_and_seeds_agree_only_by_chance():
    ids, buckets = torch.arange(50_000), 100
    one, other = (MultiplexedHash(2, 2, buckets, seed) for seed in (0, 2**32 - 1))
    functions = [h(ids, t)[:, j] for h in (one, other) for t in (0, 1) for j in (0, 1)]
    deviation = (0.01 * 0.99 / 50_000) ** 0.5
    for i, first in enumerate(functions):
        for second in functions[:i]:
            rate = (first == second).double().mean().item()
            assert abs(rate - 0.01) < 4.5 * deviation  # 28 pairs


def test_seeds_travel_in_the_state_dict():
    old, new, buffer = MultiplexedHash(2, 2, 50, seed=1), MultiplexedHash(2, 2, 50), io.BytesIO()
    ids = torch.arange(20)
    assert not torch.equal(new(ids, 0), old(ids, 0))
    torch.save(old.state_dict(), buffer)
    buffer.seek(0)
    new.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(new(ids, 0), old(ids, 0))


def test_a_module_built_on_meta_finds_its_seeds_again():
    with torch.device("meta"):
        hash_ = MultiplexedHash(2, 2, 50, seed=3)
    hash_.to_empty(device="cpu").reset_parameters()
    assert torch.equal(hash_.seeds, MultiplexedHash(2, 2, 50, seed=3).seeds)


@pytest.mark.compile
def test_one_graph_with_the_same_buckets():
    hash_, ids = MultiplexedHash(2, 3, 50), torch.arange(12).reshape(3, 4)
    torch.compiler.reset()
    compiled = torch.compile(hash_, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(ids, 1), hash_(ids, 1))


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_any_shape_of_ids(shape):
    ids = torch.zeros(shape, dtype=torch.int32)
    assert MultiplexedHash(1, 2, 50)(ids, 0).shape == (*shape, 2)


@pytest.mark.parametrize("name", ["num_features", "num_lookups", "num_buckets"])
def test_a_count_below_one_is_named(name):
    counts = {"num_features": 1, "num_lookups": 1, "num_buckets": 1, name: 0}
    with pytest.raises(ValueError, match=f"MultiplexedHash: {name} must be >= 1, got 0"):
        MultiplexedHash(**counts)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*32\), got"):
        MultiplexedHash(1, 1, 50, seed)


def test_equal_seeds_are_refused():
    with pytest.raises(ValueError, match="seeds are equal, so equal ids of two features would"):
        MultiplexedHash(2, 2**16 + 1, 50)


@pytest.mark.wording
def test_float_ids():
    with pytest.raises(TypeError, match=r"ids: expected integers, got torch.float32. Hash whole"):
        MultiplexedHash(1, 1, 50)(torch.ones(2), 0)
