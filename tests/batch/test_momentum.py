import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from embedkit.batch.momentum import MomentumUpdate


def encoder():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def disturb(module):
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.add_(torch.randn_like(tensor))
        for tensor in module.buffers():
            tensor.add_(1)


@given(st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_agrees_with_torchs_averaged_model(momentum, seed):
    torch.manual_seed(seed)
    online = encoder()
    target = copy.deepcopy(online)
    theirs = AveragedModel(online, multi_avg_fn=get_ema_multi_avg_fn(momentum))
    theirs.update_parameters(online)  # the first is a copy
    ours = MomentumUpdate(online, target, momentum)
    for _ in range(3):
        disturb(online)
        ours.update()
        theirs.update_parameters(online)
    torch.testing.assert_close(list(target.parameters()), list(theirs.module.parameters()))


def test_nought_copies_and_one_stands_still():
    online, target = encoder(), encoder()
    update = MomentumUpdate(online, target)
    before = copy.deepcopy(list(target.parameters()))
    update.update(momentum=1.0)
    torch.testing.assert_close(list(target.parameters()), before, rtol=0, atol=0)
    disturb(online)
    update.update(momentum=0.0)
    torch.testing.assert_close(target.state_dict(), online.state_dict(), rtol=0, atol=0)


def test_names_decide_who_follows_whom():
    online, target = nn.Module(), nn.Module()
    for module, names in ((online, "ab"), (target, "ba")):
        for name in names:
            module.register_parameter(name, nn.Parameter(torch.full((2,), float(ord(name)))))
    MomentumUpdate(online, target).update(momentum=0.0)
    assert target.a.tolist() == [97.0, 97.0]


def test_the_target_asks_for_no_gradient_and_keeps_float32_beside_half_precision():
    target = encoder()
    online = copy.deepcopy(target).to(torch.bfloat16)
    update = MomentumUpdate(online, target, 0.999)
    with torch.no_grad():
        target[0].bias.fill_(1.0)
        online[0].bias.fill_(2.0)
    for _ in range(100):
        update.update()
    want = 2.0 - 0.999**100
    torch.testing.assert_close(target[0].bias, torch.full((4,), want))
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        (
            lambda: MomentumUpdate(encoder(), encoder(), 1.5),
            ValueError,
            r"momentum must be in \[0, 1\], got 1.5",
        ),
        (
            lambda: MomentumUpdate(encoder(), encoder()).update(momentum=-1.0),
            ValueError,
            r"momentum must be in \[0, 1\], got -1",
        ),
        (
            lambda: MomentumUpdate(nn.Sequential(encoder()), encoder()),
            ValueError,
            r"the same parameters, but only one has 0.0.bias, 0.0.weight, 0.1.bias, \.\.\.",
        ),
        (
            lambda: MomentumUpdate(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False)),
            ValueError,
            "the same buffers, but only one has num_batches_tracked",
        ),
        (
            lambda: MomentumUpdate(nn.Linear(2, 3), nn.Linear(3, 3)),
            ValueError,
            r"weight: expected one shape, got online \(3, 2\) and target \(3, 3\)",
        ),
        (
            lambda: MomentumUpdate(encoder(), encoder().half()),
            TypeError,
            "expected float32 or wider, got torch.float16 in '0.weight'",
        ),
    ],
)
def test_errors_teach(run, error, words):
    with pytest.raises(error, match=words):
        run()
