"""Mined negatives: hand numbers, sentence-transformers' rule, loops over ranked lists."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import embedkit.mining._blocks as blocks
from embedkit.losses import info_nce_from_similarity
from embedkit.mining.consistency import (
    ranking_consistency,
    ranking_consistency_from_similarity,
)
from embedkit.mining.negatives import (
    likely_negatives,
    mine_negatives,
    mine_negatives_from_similarity,
)

CANDIDATES = torch.tensor([[0.85, 0.77, 0.76, 0.75, 0.40, -0.2]], dtype=torch.float64)
POSITIVE = torch.tensor([0.8], dtype=torch.float64)


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"relative_margin": 0.05}, [2, 3, 4, 5]),
        ({"absolute_margin": 0.0500001}, [4, 5]),
        ({"absolute_margin": 0.0499999}, [3, 4, 5]),
        ({"max_similarity": 0.5}, [4, 5]),
        ({"max_similarity": 0.76, "absolute_margin": 0.0}, [2, 3, 4, 5]),
        ({}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_hand_numbers(rule, kept):
    # 0.95 * 0.8 is 0.76 up to a rounding of float64.
    positive = POSITIVE + 1e-15
    assert likely_negatives(CANDIDATES, positive, **rule)[0].nonzero()[:, 0].tolist() == kept
    found = mine_negatives_from_similarity(
        CANDIDATES, positive, 6, **{"relative_margin": None, **rule}
    )
    assert found.index[0].tolist() == kept + [-1] * (6 - len(kept))
    assert found.mask[0].sum() == len(kept)


def test_a_negative_similarity_keeps_the_margin_below():
    similarity = torch.tensor([[-0.19, -0.205, -0.215]])
    got = likely_negatives(similarity, torch.tensor([-0.2]), relative_margin=0.05)
    assert got.tolist() == [[False, False, True]]


@given(seed=st.integers(0, 2**31), margin=st.floats(0, 0.5), absolute=st.floats(0, 0.5))
def test_the_thresholds_of_sentence_transformers(seed, margin, absolute):
    # The published rule: dropped where score + absolute > positive, where
    # score > positive - |positive| * relative, and where score > max_score.
    score, positive = draw(seed, 4, 9), draw(seed + 1, 4)
    drop = score + absolute > positive[:, None]
    drop |= score > (positive - positive.abs() * margin)[:, None]
    drop |= score > 0.7
    got = likely_negatives(
        score, positive, max_similarity=0.7, absolute_margin=absolute, relative_margin=margin
    )
    assert got.equal(~drop)


@given(
    seed=st.integers(0, 2**31),
    k=st.integers(1, 6),
    skip=st.integers(0, 4),
    more=st.none() | st.integers(0, 4),
    margin=st.none() | st.floats(0, 0.3),
)
def test_equals_a_walk_down_the_ranks(seed, k, skip, more, margin):
    query, corpus = draw(seed, 3, 4), draw(seed + 1, 12, 4)
    positive = torch.tensor([[0, 1], [2, -1], [5, 5]])
    exclude = torch.tensor([4, -1, 7])
    pool = k if more is None else k + more
    found = mine_negatives(
        query, corpus, positive, k, exclude=exclude, relative_margin=margin, skip=skip,
        sample_from=None if more is None else pool, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    cosine = torch.nn.functional.cosine_similarity(query[:, None], corpus[None], dim=-1)
    for i in range(3):
        own = [int(p) for p in positive[i] if p >= 0]
        least = min(float(cosine[i, p]) for p in own)
        ranked = [j for j in cosine[i].argsort(descending=True).tolist() if j not in own]
        ranked = [j for j in ranked if j != exclude[i]][skip:]
        bound = torch.inf if margin is None else least - margin * abs(least)
        allowed = [j for j in ranked if float(cosine[i, j]) <= bound][:pool]
        got = found.index[i, found.mask[i]].tolist()
        assert len(got) == min(k, len(allowed))
        assert got == [j for j in allowed if j in got]
        assert more is not None or got == allowed
        assert (found.index[i, ~found.mask[i]] == -1).all()


def test_samples_are_spread_over_the_pool():
    similarity = torch.arange(100, 0, -1.0).expand(2000, 100)
    found = mine_negatives_from_similarity(
        similarity, torch.full((2000,), 200.0), 2, relative_margin=None, skip=10, sample_from=5,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    counts = found.index.flatten().bincount(minlength=100)
    assert not counts[:10].any()
    assert not counts[15:].any()
    torch.testing.assert_close(counts[10:15] / 4000, torch.full((5,), 0.2), rtol=0, atol=0.03)


def test_what_may_not_be_chosen_is_neither_skipped_nor_in_the_way():
    similarity = torch.tensor([[0.9, 0.7, 0.6], [torch.nan, 0.1, 0.2]])
    candidate, positive = torch.tensor([[False, True, True], [True] * 3]), torch.full((2,), 0.8)
    first = mine_negatives_from_similarity(similarity, positive, 1, candidate=candidate)
    assert first.index.tolist() == [[1], [2]]
    second = mine_negatives_from_similarity(similarity, positive, 1, candidate=candidate, skip=1)
    assert second.index.tolist() == [[2], [1]]


def test_blocks_change_nothing(monkeypatch):
    query, corpus = draw(0, 9, 4), draw(1, 20, 4)
    positive = torch.arange(9)
    want = mine_negatives(query, corpus, positive, 3)
    kept = ranking_consistency(query, corpus, positive, 4)
    monkeypatch.setattr(blocks, "_ENTRIES", 41)
    got = mine_negatives(query, corpus, positive, 3)
    assert got.index.equal(want.index)
    assert got.mask.equal(want.mask)
    assert ranking_consistency(query, corpus, positive, 4).equal(kept)


def test_too_few_and_nothing():
    query, corpus = torch.eye(2), torch.eye(2)
    found = mine_negatives(query, corpus, torch.tensor([0, -1]), 3)
    assert found.index.tolist() == [[1, -1, -1], [-1, -1, -1]]
    free = mine_negatives(query, corpus, torch.tensor([0, -1]), 3, relative_margin=None)
    assert free.index.tolist() == [[1, -1, -1], [1, 0, -1]]
    none = torch.empty(2, 0).long()
    assert not mine_negatives(query, corpus[:0], none, 2).mask.any()
    assert mine_negatives(query[:0], corpus, none[:0], 2).index.shape == (0, 2)
    assert ranking_consistency(query[:0], corpus, none[:0]).shape == (0,)
    assert not ranking_consistency(query, corpus[:0], none).any()
    half = mine_negatives(query.half(), corpus.half(), torch.tensor([0, 1]), 1)
    assert half.index.tolist() == [[1], [0]]


def test_not_a_number_is_never_chosen_and_never_hidden():
    similarity = torch.tensor([[torch.nan, 0.1, -torch.inf]])
    found = mine_negatives_from_similarity(similarity, torch.tensor([0.5]), 3)
    assert found.index.tolist() == [[1, -1, -1]]
    unknown = mine_negatives_from_similarity(similarity, torch.tensor([torch.nan]), 3)
    assert not unknown.mask.any()
    mask = likely_negatives(similarity, torch.tensor([0.5]), relative_margin=0.05)
    own = torch.tensor([[False, True, False]])
    assert info_nce_from_similarity(similarity, own, temperature=1.0, candidate=mask).isnan()


def test_a_guide_masks_what_looks_positive():
    # The example of contrastive-core: leaving key 1 out of the first row.
    query = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
    key = torch.tensor([[0.8, 0.6], [0, 1], [-0.6, 0.8]], dtype=torch.float64)
    guide = torch.tensor([[0.9, 0.95, 0.1], [0.1, 0.9, 0.2], [0.1, 0.2, 0.9]]).double()
    own = torch.eye(3, dtype=torch.bool)
    mask = likely_negatives(guide, guide.diagonal(), relative_margin=0.05)
    assert (~mask).nonzero().tolist() == [[0, 0], [0, 1], [1, 1], [2, 2]]
    loss = info_nce_from_similarity(query @ key.T, own, temperature=0.5, candidate=mask)
    torch.testing.assert_close(loss, torch.tensor(0.738266).double(), rtol=0, atol=2e-6)


@given(seed=st.integers(0, 2**31), top_k=st.integers(0, 9))
def test_consistency_is_the_score_at_a_rank(seed, top_k):
    similarity = (draw(seed, 6, 8) * 2).round()  # with ties
    positive = similarity[:, 0]
    ordered = similarity.sort(dim=1, descending=True).values
    want = positive >= ordered[:, top_k] if top_k < 8 else torch.ones(6, dtype=torch.bool)
    assert ranking_consistency_from_similarity(similarity, positive, top_k).equal(want)


def test_consistency_takes_the_best_positive():
    query, corpus = torch.eye(3)[:1], torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0, 1, 0]])
    assert ranking_consistency(query, corpus, torch.tensor([[2, 0]]), 0).tolist() == [True]
    assert ranking_consistency(query, corpus, torch.tensor([[2, -1]]), 1).tolist() == [False]
    assert ranking_consistency(query, corpus, torch.tensor([[-1, -1]]), 9).tolist() == [False]


@pytest.mark.wording
def test_errors_teach():
    query, corpus, own = draw(0, 2, 3), draw(1, 5, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="positive must hold corpus rows from 0 to 4, or -1 for"):
        mine_negatives(query, corpus, torch.tensor([0, 5]), 1)
    with pytest.raises(ValueError, match="exclude must hold corpus rows from 0 to 4"):
        mine_negatives(query, corpus, own, 1, exclude=torch.tensor([0, -2]))
    with pytest.raises(ValueError, match=r"relative_margin must be >= 0, got -0.1. It is how far"):
        mine_negatives(query, corpus, own, 1, relative_margin=-0.1)
    with pytest.raises(ValueError, match="mine_negatives: k must be >= 1, got 0"):
        mine_negatives(query, corpus, own, 0)
    with pytest.raises(ValueError, match=r"sample_from must be >= 3, got 2. It holds the k drawn"):
        mine_negatives(query, corpus, own, 3, sample_from=2)
    with pytest.raises(ValueError, match="mine_negatives: query must be finite, got NaN"):
        mine_negatives(query * torch.nan, corpus, own, 1)
    with pytest.raises(ValueError, match="query: expected last axis of size 2"):
        mine_negatives(query, corpus[:, :2], own, 1)
    with pytest.raises(TypeError, match=r"candidate: expected bool \(True may be chosen\)"):
        mine_negatives_from_similarity(CANDIDATES, POSITIVE, 1, candidate=CANDIDATES)
    with pytest.raises(ValueError, match=r"positive_similarity: expected 1 rows, got shape \(2,\)"):
        ranking_consistency_from_similarity(CANDIDATES, POSITIVE.repeat(2))
