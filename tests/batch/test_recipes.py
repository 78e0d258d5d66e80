"""What the documentation says about checkpointing, accumulation and mixed precision holds."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from embedkit.batch.gradient_cache import GradientCache
from embedkit.losses import InfoNCELoss, LearnableTemperature, SigmoidContrastiveLoss, SupConLoss


def tower():
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 6))


def pairs(n=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=generator), torch.randn(n, 4, generator=generator)


def gradients(*modules):
    found = [p.grad for m in modules for p in m.parameters()]
    for module in modules:
        module.zero_grad()
    return found


def test_checkpointed_encoders_give_the_same_gradients():
    encoder, loss = tower().double(), InfoNCELoss()
    query, key = (x.double() for x in pairs())

    def recomputed(x):
        return checkpoint(encoder, x, use_reentrant=False)

    found = []
    for run in (encoder, recomputed):
        torch.manual_seed(1)
        loss(run(query), run(key)).backward()
        found.append(gradients(encoder))
    for run in (encoder, recomputed):
        torch.manual_seed(1)
        GradientCache([run, run], loss, 5).step(query, key)
        found.append(gradients(encoder))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[3], found[2])


def test_accumulation_averages_small_batches_and_only_a_cache_makes_one_large_batch():
    encoder, loss = tower().double().eval(), InfoNCELoss(0.5)
    query, key = (x.double() for x in pairs())
    loss(encoder(query), encoder(key)).backward()
    large = gradients(encoder)

    for q, k in zip(query.split(4), key.split(4), strict=True):
        (loss(encoder(q), encoder(k)) / 3).backward()
    accumulated = gradients(encoder)
    assert not torch.allclose(accumulated[0], large[0], rtol=0.1)

    cache = GradientCache([encoder, encoder], loss, 4)
    cache.step(query, key)
    torch.testing.assert_close(gradients(encoder), large)

    for q, k in zip(query.split(4), key.split(4), strict=True):
        cache.step(q, k, backward=lambda value: (value / 3).backward())
    torch.testing.assert_close(gradients(encoder), accumulated)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "loss",
    [
        InfoNCELoss(LearnableTemperature(0.1), symmetric=True),
        SigmoidContrastiveLoss(),
        lambda query, key: SupConLoss()(torch.cat([query, key]), torch.arange(12).repeat(2)),
    ],
    ids=["info_nce", "sigmoid", "sup_con"],
)
def test_losses_under_autocast_compute_in_float32(loss, dtype):
    encoder = tower().eval()
    query, key = pairs()
    with torch.autocast("cpu", dtype):
        embedded = encoder(query), encoder(key)
        value = loss(*embedded)
    assert embedded[0].dtype == dtype
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(*(e.float() for e in embedded)))
    value.backward()
    low = gradients(encoder)
    loss(encoder(query), encoder(key)).backward()
    for got, want in zip(low, gradients(encoder), strict=True):
        torch.testing.assert_close(got, want, rtol=0.1, atol=0.02 * float(want.abs().max()))


def test_a_cache_under_autocast_equals_the_plain_step_under_autocast():
    encoder, loss = tower(), InfoNCELoss(LearnableTemperature(0.1))
    inputs, found = pairs(), []
    torch.manual_seed(1)
    # one cast per use of a weight: the sum over chunks is then in float32, as it is in the cache
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        query, key = (torch.cat([encoder(c) for c in x.split(5)]) for x in inputs)
        value = loss(query, key)
    value.backward()
    found.append((value.detach(), gradients(encoder, loss)))
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        value = GradientCache([encoder, encoder], loss, 5).step(*inputs)
    found.append((value, gradients(encoder, loss)))
    torch.testing.assert_close(found[1], found[0])


def test_scaling_clipping_and_the_optimiser_stay_in_the_loop():
    models = [tower().eval()]
    models.append(copy.deepcopy(models[0]))
    loss, (query, key) = InfoNCELoss(0.1), pairs()
    for model, cached in zip(models, (False, True), strict=True):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        cache = GradientCache([model, model], loss, 5)
        for _ in range(3):
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.float16):
                if cached:
                    cache.step(query, key, backward=lambda v, s=scaler: s.scale(v).backward())
                else:
                    value = loss(model(query), model(key))
            if not cached:
                scaler.scale(value).backward()
            scaler.unscale_(optimiser)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimiser)
            scaler.update()
    torch.testing.assert_close(
        list(models[1].parameters()), list(models[0].parameters()), rtol=1e-2, atol=2e-3
    )
    assert not torch.allclose(models[0][0].weight, tower()[0].weight)


def test_an_overflow_skips_the_step():
    model = tower()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = copy.deepcopy(model.state_dict())
    cache = GradientCache([model, model], InfoNCELoss(0.1), 5)
    with torch.autocast("cpu", torch.float16):
        cache.step(*pairs(), backward=lambda value: scaler.scale(value).backward())
    scaler.step(optimiser)
    scaler.update()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert scaler.get_scale() == 2.0**39
