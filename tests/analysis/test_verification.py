"""Verification rates: hand numbers, scikit-learn's ROC, loops over thresholds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from embedkit.analysis import val_at_far, verification_accuracy, verification_rates

DISTANCE = torch.tensor([0.08, 0.4, 0.4, 0.8, 0.4, 0.8, 1.44, 2, 2, 3.2], dtype=torch.float64)
SAME = torch.arange(10) < 4


def test_hand_numbers():
    thresholds = torch.tensor([0.3, 0.5, 1.0], dtype=torch.float64)
    val, far = verification_rates(DISTANCE, SAME, thresholds)
    assert val.tolist() == [0.25, 0.75, 1.0]
    torch.testing.assert_close(far, torch.tensor([0, 1 / 6, 1 / 3], dtype=torch.float64))
    assert val_at_far(DISTANCE, SAME, 0.0) == (0.25, 0.4)
    assert val_at_far(DISTANCE, SAME, 1 / 6) == (0.75, 0.8)
    assert val_at_far(DISTANCE, SAME, 1.0).rate == 1.0


@given(seed=st.integers(0, 2**31), pairs=st.integers(2, 40), far=st.floats(0, 1))
def test_val_at_far_is_the_best_threshold_that_is_allowed(seed, pairs, far):
    torch.manual_seed(seed)
    distance = torch.randint(0, 12, (pairs,)).double()
    same = torch.rand(pairs) < 0.5
    same[0] = False
    thresholds = torch.arange(-1, 13).double()
    val, rate = verification_rates(distance, same, thresholds)
    assert (val.diff() >= 0).all()
    assert (rate.diff() >= 0).all()
    want = val[rate <= far].max()
    assert val_at_far(distance, same, far).rate == pytest.approx(float(want))


def test_agrees_with_scikit_learn():
    torch.manual_seed(0)
    distance, same = torch.rand(200).double(), torch.rand(200) < 0.3
    far, val, thresholds = roc_curve(same.numpy(), -distance.numpy(), drop_intermediate=False)
    mine = verification_rates(distance, same, torch.from_numpy(-thresholds[1:]))
    torch.testing.assert_close(mine[0], torch.from_numpy(val[1:]))
    torch.testing.assert_close(mine[1], torch.from_numpy(far[1:]))


@given(seed=st.integers(0, 2**31), pairs=st.integers(4, 30), folds=st.integers(2, 4))
def test_fold_accuracy_is_the_loop(seed, pairs, folds):
    torch.manual_seed(seed)
    distance, same = torch.randint(0, 6, (pairs,)).double(), torch.rand(pairs) < 0.5
    fold = torch.tensor([i * folds // pairs for i in range(pairs)])
    found = []
    for number in range(folds):
        train, test = fold != number, fold == number
        choices = [-float("inf"), *sorted(set(distance[train].tolist()))]
        score = [float(((distance[train] <= t) == same[train]).sum()) for t in choices]
        threshold = choices[score.index(max(score))]
        found.append(float(((distance[test] <= threshold) == same[test]).double().mean()))
    got = verification_accuracy(distance, same, folds)
    assert got.mean == pytest.approx(sum(found) / folds)
    assert len(got.thresholds) == folds


def test_wrong_input_says_so():
    with pytest.raises(ValueError, match="no different pair"):
        val_at_far(DISTANCE, torch.ones(10, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"far must be in \[0, 1\], got 2"):
        val_at_far(DISTANCE, SAME, 2.0)
    with pytest.raises(ValueError, match="expected at least 11 pairs, one per fold, got 10"):
        verification_accuracy(DISTANCE, SAME, 11)


@pytest.mark.wording
def test_wrong_types_say_so():
    with pytest.raises(TypeError, match=r"same: expected bool"):
        val_at_far(DISTANCE, SAME.double())
    with pytest.raises(ValueError, match="same"):
        verification_rates(DISTANCE, SAME[:3], DISTANCE)
