import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.heads.lexicon import entry_embeddings
from embedkit.ops import segment_mean


def test_average_made_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.0, -1.0], [3.0, 2.0]])
    got = entry_embeddings([(x, torch.tensor([0, 1, 0]))], 2)
    torch.testing.assert_close(got, torch.tensor([[2.0, 1.0], [0.0, -1.0]]))


@given(seed=st.integers(0, 2**31), size=st.integers(1, 20))
def test_order_and_batches_do_not_matter(seed, size):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(17, 3, generator=generator).double()
    ids = torch.cat([torch.arange(5), torch.randint(0, 5, (12,), generator=generator)])
    order = torch.randperm(17, generator=generator)
    want = segment_mean(x, ids, 5)
    batches = ((x[rows], ids[rows].int()) for rows in order.split(size))
    torch.testing.assert_close(entry_embeddings(batches, 5), want)


def test_a_generator_runs_without_grad_and_the_result_is_frozen():
    encoder = nn.Linear(3, 2)
    seen = []

    def batches():
        for start in (0, 2):
            out = encoder(torch.randn(2, 3))
            seen.append(out.requires_grad)
            yield out, torch.tensor([start, start + 1])

    assert not entry_embeddings(batches(), 4).requires_grad
    assert seen == [False, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    batch = torch.full((4096, 1), 1.001).to(dtype), torch.zeros(4096, dtype=torch.long)
    got = entry_embeddings([batch] * 2, 1)
    assert got.dtype == dtype
    torch.testing.assert_close(got, batch[0][:1])


def test_an_empty_batch_changes_nothing():
    batches = [(torch.zeros(0, 2), torch.zeros(0).long()), (torch.ones(1, 2), torch.tensor([0]))]
    torch.testing.assert_close(entry_embeddings(batches, 1), torch.ones(1, 2))


def test_entries_without_a_description_are_listed():
    batch = torch.ones(2, 3), torch.tensor([1, 1])
    with pytest.raises(ValueError, match=r"2 of 3 have none: 0, 2. Leave those entries out"):
        entry_embeddings([batch], 3)
    with pytest.raises(ValueError, match=r"19 of 20 have none: 0, 2, 3, .*, 10, \.\.\.\. Leave"):
        entry_embeddings([batch], 20)
    with pytest.raises(ValueError, match=r"2 of 2 have none: 0, 1"):
        entry_embeddings([], 2)


def test_wrong_ids_teach():
    with pytest.raises(IndexError, match=r"must be 0 to 1, one of 2 entries, got 0 to 2"):
        entry_embeddings([(torch.ones(2, 3), torch.tensor([0, 2]))], 2)
    with pytest.raises(IndexError, match=r"must be 0 to 1, one of 2 entries, got -1 to 0"):
        entry_embeddings([(torch.ones(2, 3), torch.tensor([0, -1]))], 2)
    with pytest.raises(ValueError, match=r"num_entries must be >= 1, got 0"):
        entry_embeddings([], 0)


@pytest.mark.wording
def test_batches_that_do_not_fit_teach():
    with pytest.raises(TypeError, match=r"entry_ids: expected integers, got torch.float32"):
        entry_embeddings([(torch.ones(2, 3), torch.ones(2))], 2)
    with pytest.raises(ValueError, match=r"entry_ids: expected 2 rows"):
        entry_embeddings([(torch.ones(2, 3), torch.zeros(1).long())], 2)
    with pytest.raises(ValueError, match=r"embeddings: expected last axis of size 3, .* one width"):
        entry_embeddings([(torch.ones(1, d), torch.tensor([d - 3])) for d in (3, 4)], 2)
