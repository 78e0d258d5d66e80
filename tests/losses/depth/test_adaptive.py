import importlib
import io
import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from losses.cases_depth import CASES, states
from losses.test_nested import Generic

from embedkit.losses import InfoNCELoss, MatryoshkaLoss, SupConLoss, info_nce
from embedkit.losses.depth.adaptive import (
    AdaptiveLayerLoss,
    Matryoshka2dLoss,
    adaptive_layer,
    layer_weights,
)
from embedkit.testing import check_module


def layers(count, seed=0, rows=5, width=8):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, count, rows, width, generator=generator, dtype=torch.float64)
    return list(query), list(key)


def divergence(student, teacher, temperature):
    """Rows of both arguments together, by torch."""
    student, teacher = torch.cat(student), torch.cat(teacher)
    return temperature * F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.softmax(teacher / temperature, 1),
        reduction="batchmean",
    )


def test_layer_weights_of_the_papers():
    log = [1, 0.590616, 0.476505, 0.419060, 0.383224, 0.358197]
    assert layer_weights(7, "log") == pytest.approx(log, abs=1e-6)
    linear = [1, 0.5, 0.333333, 0.25, 0.2, 0.166667]
    assert layer_weights(7, "linear") == pytest.approx(linear, abs=1e-6)
    assert layer_weights(4, "uniform") == [1, 1, 1]
    assert layer_weights(1, "log") == []


@pytest.mark.parametrize("weighting", ["uniform", "linear", "log", [0.5, 0.0, 2.0]])
def test_all_layers_are_the_formula(weighting):
    query, key = layers(4)
    loss = AdaptiveLayerLoss(InfoNCELoss(), -1, weighting, kl_weight=0.7, kl_temperature=0.5)
    want = info_nce(query[3], key[3])
    for n, weight in enumerate(layer_weights(4, weighting)):
        want += weight / 3 * info_nce(query[n], key[n])
        pair = (query[n], key[n]), (query[3], key[3])
        want += 0.7 / 3 * divergence(*pair, temperature=0.5)
    torch.testing.assert_close(loss(query, key), want)


def test_agrees_with_sentence_transformers():
    losses = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    package = importlib.import_module("sentence_transformers")
    modules = importlib.import_module("sentence_transformers.base.modules")
    query, key = layers(4)

    class Fixed(modules.Transformer):
        """Gives the states that a feature names."""

        auto_model = SimpleNamespace(config=SimpleNamespace(output_hidden_states=False))

        def __init__(self):
            torch.nn.Module.__init__(self)

        def forward(self, features, **_):
            side = (query, key)[int(features["side"])]
            return {**features, "token_embeddings": side[-1], "all_layer_embeddings": side}

    class Pool(torch.nn.Module):
        def forward(self, features):
            return {**features, "sentence_embedding": features["token_embeddings"]}

    # Not through its constructor, which wants a model with weights.
    model = package.SentenceTransformer.__new__(package.SentenceTransformer)
    torch.nn.Module.__init__(model)
    model.add_module("0", Fixed())
    model.add_module("1", Pool())
    model.forward = lambda kept: kept.update(model[1](model[0](kept))) or kept  # as theirs
    ranking = losses.MultipleNegativesRankingLoss(model, scale=20.0)
    features = [{"side": torch.tensor(i)} for i in range(2)]
    for weighting in ("uniform", "linear", "log"):
        peer = losses.AdaptiveLayerLoss(
            model,
            ranking,
            n_layers_per_step=-1,
            kl_div_weight=1 / 3,  # theirs adds up what ours averages
            kl_temperature=0.3,
            layer_weighting=weighting,
        )
        ours = AdaptiveLayerLoss(InfoNCELoss(temperature=0.05), -1, weighting)
        want = peer(features, None)
        torch.testing.assert_close(ours(query, key), want, rtol=1e-6, atol=1e-6)


def test_all_layers_give_what_a_drawn_one_gives_on_average():
    query, key = layers(4)

    def run(chosen, dims):
        loss = MatryoshkaLoss(InfoNCELoss(), dims)
        return adaptive_layer(lambda n: loss(query[n - 1], key[n - 1]), query, layers=chosen)

    drawn = [run([n], [dim, 8]) for n, dim in itertools.product((1, 2, 3), (2, 4))]
    loss = Matryoshka2dLoss(InfoNCELoss(), [2, 4, 8], (-1, -1), kl_temperature=0.3)
    # the Module aligns the rows of keys as well, so both arguments are the same here
    key[:] = query
    drawn = [run([n], [dim, 8]) for n, dim in itertools.product((1, 2, 3), (2, 4))]
    torch.testing.assert_close(loss(query, query), torch.stack(drawn).mean())


def test_the_2d_loss_is_the_five_terms_of_the_paper():
    query, key = layers(3)
    loss = Matryoshka2dLoss(InfoNCELoss(), [2, 4, 8], seed=3)
    twin = Matryoshka2dLoss(InfoNCELoss(), [2, 4, 8], seed=3)
    for _ in range(4):
        drawn, width = twin.draws.draw((2, 1), (2, 1))
        n, dim = drawn[0], [2, 4][width[0]]
        want = divergence((query[n], key[n]), (query[2], key[2]), 1.0)
        for i, d in itertools.product((n, 2), (dim, 8)):
            want += info_nce(query[i][:, :d], key[i][:, :d])
        torch.testing.assert_close(loss(query, key), want)


@pytest.mark.parametrize("base", [InfoNCELoss(), Generic(InfoNCELoss())])
def test_widths_in_one_sweep_or_one_by_one(base):
    query, key = layers(3)
    loss = Matryoshka2dLoss(base, [2, 4, 8], (-1, -1))
    query = [u.requires_grad_() for u in query]
    value = loss(query, key)
    grads = torch.autograd.grad(value, query)
    other = Matryoshka2dLoss(InfoNCELoss(), [2, 4, 8], (-1, -1))(query, key)
    torch.testing.assert_close(value, other)
    torch.testing.assert_close(grads, torch.autograd.grad(other, query))


@pytest.mark.parametrize("make", [AdaptiveLayerLoss, lambda x: Matryoshka2dLoss(x, [4, 8])])
def test_one_layer_is_the_loss_itself(make):
    query, key = layers(1)
    want = info_nce(query[0], key[0])
    if make is not AdaptiveLayerLoss:
        want += info_nce(query[0][:, :4], key[0][:, :4])
    torch.testing.assert_close(make(InfoNCELoss())(query, key), want)


def test_what_has_no_layers_is_passed_on():
    query, key = layers(3)
    ids, labels = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 0, 1, 0, 1])
    got = AdaptiveLayerLoss(InfoNCELoss(), -1, kl_weight=0.0)(tuple(query), key, key_ids=ids)
    each = [info_nce(q, k, key_ids=ids) for q, k in zip(query, key, strict=True)]
    torch.testing.assert_close(got, each[2] + (each[0] + each[1]) / 2)
    got = AdaptiveLayerLoss(SupConLoss(), -1, kl_weight=0.0)(query, labels)
    each = [SupConLoss()(q, labels) for q in query]
    torch.testing.assert_close(got, each[2] + (each[0] + each[1]) / 2)
    hard = [k[:, None].flip(0) for k in key]
    got = AdaptiveLayerLoss(InfoNCELoss(), -1, kl_weight=0.0)(query, key, negative=hard)
    each = [info_nce(q, k, negative=h) for q, k, h in zip(query, key, hard, strict=True)]
    torch.testing.assert_close(got, each[2] + (each[0] + each[1]) / 2)


def test_the_last_layer_is_not_pulled_to_earlier_ones():
    query, key = layers(3)
    query = [u.requires_grad_() for u in query]
    grads = []
    for kl_weight in (0.0, 5.0):
        loss = AdaptiveLayerLoss(InfoNCELoss(), -1, kl_weight=kl_weight)(query, key)
        grads.append(torch.autograd.grad(loss, query))
    torch.testing.assert_close(grads[0][2], grads[1][2])
    assert not torch.allclose(grads[0][0], grads[1][0])


BUILD = {
    "layers": lambda seed=0: AdaptiveLayerLoss(InfoNCELoss(), 2, seed=seed),
    "both": lambda seed=0: Matryoshka2dLoss(InfoNCELoss(), [2, 4, 8], seed=seed),
}
every_draw = pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)


@every_draw
def test_a_resumed_run_draws_what_it_would_have_drawn(build):
    query, key = layers(6)
    loss, state = build(seed=7), io.BytesIO()
    for _ in range(3):
        loss(query, key)
    torch.save(loss.state_dict(), state)
    torch.manual_seed(1)
    want = [loss(query, key) for _ in range(5)]
    torch.manual_seed(2)  # the global generator has no say
    state.seek(0)
    resumed = build(seed=0)
    resumed.load_state_dict(torch.load(state, weights_only=True))
    assert [resumed(query, key) for _ in range(5)] == want
    assert len({float(value.detach()) for value in want}) > 2
    other = build(seed=8)
    assert [other(query, key) for _ in range(8)][3:] != want


@every_draw
def test_eval_mode_takes_all_and_draws_nothing(build):
    query, key = layers(6)
    loss = build()
    before = loss.draws.step
    first = loss.eval()(query, key)
    assert loss(query, key) == first
    assert loss.draws.step == before
    loss.train()(query, key)
    assert loss.draws.step == before + 1


def test_ranks_that_share_a_seed_draw_alike():
    def rank(own):
        torch.manual_seed(own)
        loss = Matryoshka2dLoss(InfoNCELoss(), [2, 4, 8], seed=5)
        query, key = layers(12, seed=own, rows=3 + own)  # other rows, and another number of them
        drawn, draw = [], loss.draws.draw
        loss.draws.draw = lambda *choices: drawn.append(draw(*choices)) or drawn[-1]
        for _ in range(6):
            loss(query, key)
            torch.rand(own)
        return drawn

    first = rank(1)
    assert first == rank(2)
    assert len({str(draw) for draw in first}) > 3


def test_draws_cover_all_layers_alike():
    loss = AdaptiveLayerLoss(InfoNCELoss(), 2)
    drawn = [n for _ in range(600) for n in loss.draws.draw((4, 2))[0]]
    counts = [drawn.count(n) for n in range(4)]
    assert min(counts) > 250
    assert max(counts) < 350


CONTRACT = [AdaptiveLayerLoss, Matryoshka2dLoss]


@pytest.mark.parametrize("module", CASES, ids=lambda module: module.__name__)
def test_contract(module):
    build, inputs, *exempt = CASES[module]
    check_module(build, inputs, exempt={"compile": "one at a time"} | (exempt or [{}])[0])


@pytest.mark.compile
@pytest.mark.parametrize("module", CASES, ids=lambda module: module.__name__)
def test_contract_compiled(module):
    build, inputs, *_ = CASES[module]
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, inputs, exempt=dict.fromkeys(names.split(), "one at a time"))


@pytest.mark.parametrize("module", CONTRACT, ids=lambda module: module.__name__)
def test_gradients_without_the_held_teacher(module):
    extra = {} if module is AdaptiveLayerLoss else {"dims": [2, 6], "per_step": (-1, -1)}
    if module is AdaptiveLayerLoss:
        extra = {"layers_per_step": -1}
    names = "state_dict copies compile autocast empty_batch moves seed"
    check_module(
        lambda: module(InfoNCELoss(temperature=0.5), kl_weight=0.0, **extra),
        states,
        exempt=dict.fromkeys(names.split(), "elsewhere"),
    )


@pytest.mark.wording
def test_wrong_arguments_teach():
    query, key = layers(3)
    loss = AdaptiveLayerLoss(InfoNCELoss())
    with pytest.raises(TypeError, match=r"a list of pooled states, one .* got Tensor"):
        loss(query[0], key[0])
    with pytest.raises(ValueError, match=r"one entry per layer, got lists of 3, 2"):
        loss(query, key[:2])
    with pytest.raises(ValueError, match=r"expected the states of at least one layer, got none"):
        loss([], [])
    with pytest.raises(ValueError, match=r"\(5, 8\) after layer 1 and \(5, 4\) after layer 2"):
        loss([query[0], query[1][:, :4]], key[:2])
    with pytest.raises(ValueError, match=r"Pool the tokens of every layer first"):
        loss([q[:, None] for q in query], key)
    with pytest.raises(TypeError, match=r"expected floating-point states, got torch.int64 after"):
        loss([q.long() for q in query], key)
    for build in (AdaptiveLayerLoss, lambda *a, **k: Matryoshka2dLoss(a[0], [2], **k)):
        with pytest.raises(ValueError, match=r"kl_weight must be >= 0, got -1"):
            build(InfoNCELoss(), kl_weight=-1)
        with pytest.raises(ValueError, match=r"kl_temperature must be > 0, got 0"):
            build(InfoNCELoss(), kl_temperature=0)
        with pytest.raises(ValueError, match=r"seed must be >= 0, got -1"):
            build(InfoNCELoss(), seed=-1)
    with pytest.raises(ValueError, match=r"layers_per_step must be >= 1, got 0. -1 takes all"):
        AdaptiveLayerLoss(InfoNCELoss(), 0)
    with pytest.raises(ValueError, match=r"per_step \(widths\) must be >= 1, got -2"):
        Matryoshka2dLoss(InfoNCELoss(), [2], (1, -2))
    with pytest.raises(ValueError, match=r"layer_weighting must be one of uniform, linear, log"):
        AdaptiveLayerLoss(InfoNCELoss(), layer_weighting="late")
    with pytest.raises(ValueError, match=r"expected 2 weights, one for each layer before the last"):
        AdaptiveLayerLoss(InfoNCELoss(), layer_weighting=[1.0])(query, key)
    with pytest.raises(ValueError, match=r"from 1 to 2, got \[3\]. The last of the 3 is always"):
        adaptive_layer(lambda n: torch.zeros(()), query, layers=[3])
    with pytest.raises(ValueError, match=r"Matryoshka2dLoss: dims go up to 16, but"):
        Matryoshka2dLoss(InfoNCELoss(), [4, 16])(query, key)
    with pytest.warns(UserWarning, match=r"Matryoshka2dLoss: dims end at 4, so the last 4 of 8"):
        Matryoshka2dLoss(InfoNCELoss(), [2, 4])(query, key)
