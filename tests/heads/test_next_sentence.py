"""Sentence vectors: autoencoders, predictors through a frozen decoder, roll-outs, the lens."""

import math

import pytest
import torch
import torch.nn.functional as F
from heads.cases_next_sentence import CASES, CausalAttention, Decoder
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from embedkit.heads.next_sentence.autoencoder import (
    SequenceAutoencoder,
    greedy_decode,
    prefix_condition,
)
from embedkit.heads.next_sentence.delimiters import delimiter_states, question_mask
from embedkit.heads.next_sentence.lens import sentence_lens
from embedkit.heads.next_sentence.predictor import NextEmbeddingPredictor, TerminationHead
from embedkit.heads.next_sentence.rollout import latent_rollout
from embedkit.losses import info_nce
from embedkit.losses.sequence import sequence_cross_entropy
from embedkit.testing import check_module

# --- A sentence as one vector


def test_the_vector_is_position_zero():
    vector, tokens = torch.randn(2, 4), torch.randn(2, 3, 4)
    inputs = prefix_condition(vector, tokens)
    assert inputs.shape == (2, 4, 4)
    assert (inputs[:, 0] == vector).all()
    assert (inputs[:, 1:] == tokens).all()
    assert prefix_condition(vector, tokens[:, :0]).shape == (2, 1, 4)
    assert prefix_condition(vector[:0], tokens[:0]).shape == (0, 4, 4)


def test_a_token_never_reaches_its_own_logits():
    decoder, vector = Decoder(9, 6), torch.randn(1, 6)
    ids = torch.tensor([[1, 2, 3, 4]])
    logits = decoder(vector, ids)
    assert logits.shape == (1, 5, 9)
    for t in range(4):
        changed = ids.clone()
        changed[0, t] = 8
        moved = (decoder(vector, changed) != logits).any(-1)[0]
        assert moved.tolist() == [i > t for i in range(5)]
    model = SequenceAutoencoder(nn.EmbeddingBag(9, 6), decoder)
    torch.testing.assert_close(model.decode(vector, ids), logits[:, :4])


def test_semantic_and_contextual_targets():
    class States(nn.Module):
        """A vector at each of the first two tokens."""

        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 6)

        def forward(self, ids, mask=None):
            return self.table(ids)[:, :2] if mask is None else self.table(ids)[:, :2] * 0

    model = SequenceAutoencoder(States(), Decoder(9, 6))
    text, target = torch.randint(9, (3, 5)), torch.randint(9, (3, 2, 4))
    embedding, logits = model(text, target)
    assert logits.shape == (3, 2, 4, 9)
    for r in range(2):
        torch.testing.assert_close(logits[:, r], model.decode(embedding[:, r], target[:, r]))
    assert (model(text, target, torch.ones(3, 5, dtype=torch.bool)).embedding == 0).all()
    semantic = SequenceAutoencoder(nn.EmbeddingBag(9, 6), Decoder(9, 6))
    torch.testing.assert_close(semantic(text), semantic(text, text))
    assert semantic.decode(torch.randn(3, 6), text[:, :0]).shape == (3, 0, 9)


def test_dropout_acts_on_what_the_decoder_reads_in_training_only():
    model = SequenceAutoencoder(nn.EmbeddingBag(9, 64), Decoder(9, 64), prefix_dropout=0.5)
    ids = torch.randint(9, (2, 3))
    first, second = model(ids), model(ids)
    assert (first.embedding == second.embedding).all()
    assert (first.logits != second.logits).any()
    model.eval()
    torch.testing.assert_close(model(ids), model(ids))


class Recite(nn.Module):
    """A perfect decoder: entry i of the vector is token i + 1, written once, then the end."""

    def forward(self, embedding, tokens):
        first = F.pad(embedding, (1, 0))[:, None]
        rest = F.one_hot(tokens * 0, embedding.shape[1] + 1).to(embedding.dtype)
        return torch.cat([first, rest], dim=1)


def test_greedy_decoding_stops_at_the_end():
    ids = greedy_decode(Recite(), torch.eye(3), max_length=4, pad_id=0)
    assert ids.tolist() == [[1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]]
    own_end = greedy_decode(Recite(), torch.eye(3), max_length=3, pad_id=9, end_id=2)
    assert own_end.tolist() == [[1, 0, 0], [2, 9, 9], [3, 0, 0]]
    assert greedy_decode(Recite(), torch.empty(0, 3), max_length=2, pad_id=0).shape == (0, 2)


def test_greedy_decoding_is_the_argmax_of_every_prefix():
    decoder, vector = Decoder(9, 6).eval(), torch.randn(4, 6)
    ids = greedy_decode(decoder, vector, max_length=5, pad_id=-1)
    with torch.no_grad():
        assert (decoder(vector, ids[:, :-1]).argmax(-1) == ids).all()


# --- Delimiters


@given(seed=st.integers(0, 2**31), steps=st.integers(0, 7), length=st.integers(0, 6))
def test_delimiter_states_equal_a_loop(seed, steps, length):
    torch.manual_seed(seed)
    hidden = torch.randn(3, length, 2, dtype=torch.float64, requires_grad=True)
    delimiter = torch.rand(3, length) < 0.5
    states, mask = delimiter_states(hidden, delimiter, steps)
    assert states.shape == (3, steps, 2)
    for row in range(3):
        want = hidden[row][delimiter[row]][:steps]
        torch.testing.assert_close(states[row][mask[row]], want)
        assert mask[row].tolist() == [i < len(want) for i in range(steps)]
        assert (states[row][~mask[row]] == 0).all()
    (states * 2).sum().backward()
    taken = delimiter & (delimiter.cumsum(1) <= steps)
    assert (hidden.grad == 2.0 * taken[..., None]).all()


def test_only_states_at_delimiters_are_read():
    delimiter = torch.tensor([[False, True, False], [False, False, False]])
    hidden = torch.full((2, 3, 2), torch.nan).masked_fill(delimiter[..., None], 1.0)
    states, _ = delimiter_states(hidden.requires_grad_(), delimiter, 2)
    states.sum().backward()
    assert states.tolist() == [[[1, 1], [0, 0]], [[0, 0], [0, 0]]]
    assert hidden.grad.isfinite().all()


def test_a_text_without_a_delimiter_is_a_question():
    text = torch.tensor([[5, 9, 7, 9], [5, 6, 7, 8], [9, 9, 1, 1]])
    assert question_mask(text == 9).int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


# --- The predictor


def predictor(**settings):
    return NextEmbeddingPredictor(CausalAttention(6), 5, 6, **settings)


def test_projections_have_the_mean_width_between():
    model = NextEmbeddingPredictor(nn.Identity(), 5, 10, 4)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert shapes == [(7, 5), (10, 7), (7, 10), (4, 7)]


def test_states_are_those_before_each_sentence():
    model = predictor().eval()
    question, steps = torch.randn(2, 4, 6), torch.randn(2, 3, 5)
    prediction, state, target = model(question, steps)
    torch.testing.assert_close(target, model.input_projection(steps))
    for t in range(3):
        inputs = torch.cat([question, target[:, :t]], dim=1)
        hidden = model.backbone(inputs, torch.ones(inputs.shape[:2], dtype=torch.bool))
        torch.testing.assert_close(state[:, t], hidden[:, -1])
        torch.testing.assert_close(prediction[:, t], model.output_projection(hidden[:, -1]))


@given(seed=st.integers(0, 2**31), left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_on_either_side_never_matters(seed, left, right):
    torch.manual_seed(seed)
    model = predictor().eval()
    question, steps = torch.randn(2, 4, 6), torch.randn(2, 3, 5)
    padded = F.pad(question, (0, 0, left, right), value=torch.nan)
    mask = F.pad(torch.ones(2, 4, dtype=torch.bool), (left, right))
    torch.testing.assert_close(model(padded, steps, mask), model(question, steps))
    torch.testing.assert_close(
        latent_rollout(model, padded, mask, max_steps=3).embedding,
        latent_rollout(model, question, max_steps=3).embedding,
    )


def test_missing_sentences_never_matter():
    model = predictor()
    model.eval()
    question, steps = torch.randn(2, 4, 6), torch.randn(2, 4, 5)
    step_mask = torch.arange(4).expand(2, 4) < 2
    steps[:, 2:] = torch.nan
    seen, backbone = [], model.backbone.forward
    model.backbone.forward = lambda inputs, mask: seen.append(mask) or backbone(inputs, mask)
    got = model(question, steps, None, step_mask)
    assert seen[0].int().tolist() == [[1, 1, 1, 1, 1, 1, 0]] * 2
    torch.testing.assert_close(got.prediction[:, :2], model(question, steps[:, :2]).prediction)
    got.prediction.masked_fill(~step_mask[..., None], 0).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_dropout_leaves_the_aligned_pair_alone():
    model = NextEmbeddingPredictor(nn.Identity(), 5, 64, dropout=0.5)
    model.backbone.forward = lambda inputs, mask: inputs
    question, steps = torch.randn(2, 1, 64), torch.randn(2, 2, 5)
    first, second = model(question, steps), model(question, steps)
    assert (first.target == second.target).all()
    assert (first.state[:, 0] == question[:, 0]).all()
    assert (first.state[:, 1] != second.state[:, 1]).any()  # it has read a dropped-out input
    assert (first.prediction[:, 0] != second.prediction[:, 0]).any()


def test_gradients_pass_through_a_frozen_decoder():
    decoder = Decoder(9, 5).requires_grad_(False).eval()
    model, ids = predictor(), torch.randint(1, 9, (2, 3, 4))
    out = model(torch.randn(2, 4, 6), torch.randn(2, 3, 5))
    logits = decoder(out.prediction.flatten(0, 1), ids[..., :-1].flatten(0, 1))
    sequence_cross_entropy(logits, ids.flatten(0, 1), 0).backward()
    assert all(p.grad is None for p in decoder.parameters())
    assert all((p.grad != 0).any() for p in model.parameters() if p.ndim == 2 and p.shape[0] < 30)


def test_no_sentences_give_a_connected_zero():
    decoder, model = Decoder(9, 5), predictor()
    question = torch.randn(2, 4, 6, requires_grad=True)
    out = model(question, torch.randn(2, 0, 5))
    assert [part.shape for part in out] == [(2, 0, 5), (2, 0, 6), (2, 0, 6)]
    ids = torch.empty(0, 4, dtype=torch.long)
    logits = decoder(out.prediction.flatten(0, 1), ids[:, :-1])
    align = info_nce(out.state.flatten(0, 1), out.target.flatten(0, 1), temperature=0.1)
    loss = sequence_cross_entropy(logits, ids, 0) + align
    loss.backward()
    assert loss == 0
    assert (question.grad == 0).all()


def test_hand_numbers_of_the_alignment():
    state = torch.tensor([[1.0, 0], [0, 1], [1, 1]], dtype=torch.float64)
    target = torch.tensor([[2.0, 0], [1, 1], [0, 3]], dtype=torch.float64)
    loss = info_nce(state, target, temperature=0.1)
    assert abs(loss.item() - 2.021223) < 1e-6
    scale = torch.tensor([[0.1], [7.0], [3.0]], dtype=torch.float64)
    torch.testing.assert_close(
        info_nce(scale * state, target * scale.flip(0), temperature=0.1), loss
    )


def test_equal_sentences_are_no_negatives_of_the_alignment():
    state, target = torch.randn(3, 4), torch.randn(3, 4)
    target[2] = target[0]
    ids = torch.tensor([7, 8, 7])
    got = info_nce(state, target, key_ids=ids, same_id="ignore", temperature=0.1, reduction="none")
    score = F.normalize(state, dim=1) @ F.normalize(target, dim=1).T / 0.1
    torch.testing.assert_close(got[0], F.cross_entropy(score[:1, :2], torch.tensor([0])))
    torch.testing.assert_close(got[1], F.cross_entropy(score[1:2], torch.tensor([1])))


def test_cross_entropy_through_the_decoder_beats_the_mean_of_two_continuations():
    weight = 4 * torch.tensor([[1.0, 0], [0, 1], [0.8, 0.8]], dtype=torch.float64)
    both = torch.tensor([0, 1])

    def loss(vector):
        logits = (weight @ vector).expand(2, 1, 3)
        return sequence_cross_entropy(logits, both[:, None], -1, pad_is_end=False)

    mean = torch.tensor([0.5, 0.5], dtype=torch.float64)
    want = torch.tensor([0.187966, 0.187966, 0.624068], dtype=torch.float64)
    torch.testing.assert_close((weight @ mean).softmax(0), want, atol=1e-6, rtol=0)
    assert abs(loss(mean).item() - 1.671495) < 1e-6
    assert abs(loss(-torch.ones(2, dtype=torch.float64)).item() - 0.737508) < 1e-6
    vector = mean.clone().requires_grad_()
    for _ in range(200):
        (step,) = torch.autograd.grad(loss(vector), vector)
        vector = (vector - 0.1 * step).detach().requires_grad_()
    assert math.log(2) < loss(vector).item() < 0.75
    assert (weight @ vector).argmax() in (0, 1)


# --- Roll-outs


class Loop(nn.Module):
    """A backbone that moves each input to the next of ``dim`` one-hot vectors."""

    def forward(self, inputs, mask):
        return inputs.roll(1, dims=-1)


def perfect(dim=4):
    """A predictor whose projections do nothing, between perfect sentences."""
    model = NextEmbeddingPredictor(Loop(), dim, dim)
    model.embed = lambda steps, mask=None: steps
    model.predict = lambda state: state
    return model


def test_continuous_equals_the_loop_by_hand():
    model, question = predictor().eval(), torch.randn(2, 4, 6)
    out = latent_rollout(model, question, max_steps=4)
    inputs = question
    for step in range(4):
        state = model.backbone(inputs, torch.ones(inputs.shape[:2], dtype=torch.bool))[:, -1]
        torch.testing.assert_close(out.state[:, step], state)
        torch.testing.assert_close(out.embedding[:, step], model.output_projection(state))
        inputs = torch.cat([inputs, state[:, None]], dim=1)
    torch.testing.assert_close(out.final, out.embedding[:, -1])
    assert out.mask.all()
    assert out.decoded == []
    out.final.sum().backward()
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_discretised_equals_the_loop_by_hand():
    model, question = predictor().eval(), torch.randn(2, 4, 6)
    code = nn.Embedding(9, 5).requires_grad_(False)
    seen = []

    def encode(texts):
        seen.append(len(texts))
        return code(texts[-1])

    out = latent_rollout(model, question, max_steps=3, decode=lambda z: z.argmax(1), encode=encode)
    inputs = question
    for step in range(3):
        state = model.backbone(inputs, torch.ones(inputs.shape[:2], dtype=torch.bool))[:, -1]
        text = model.output_projection(state).argmax(1)
        assert (out.decoded[step] == text).all()
        inputs = torch.cat([inputs, model.input_projection(code(text))[:, None]], dim=1)
        torch.testing.assert_close(out.state[:, step], state)
    assert seen == [1, 2]


def test_both_agree_where_the_autoencoder_is_perfect():
    question = torch.eye(4)[:3, None].expand(3, 2, 4)
    decoder = Recite()

    def decode(z):
        return greedy_decode(decoder, z, max_length=2, pad_id=0)

    discrete = latent_rollout(
        perfect(),
        question,
        max_steps=5,
        decode=decode,
        encode=lambda texts: F.one_hot(texts[-1][:, 0] - 1, 4).float(),
    )
    continuous = latent_rollout(perfect(), question, max_steps=5)
    torch.testing.assert_close(discrete.embedding, continuous.embedding)
    want = (torch.arange(3)[:, None] + torch.arange(1, 6)) % 4
    assert (continuous.embedding.argmax(-1) == want).all()
    assert (torch.stack([text[:, 0] - 1 for text in discrete.decoded], 1) == want).all()


def test_a_row_ends_at_the_step_that_stops_it():
    question = torch.eye(4)[:3, None]
    out = latent_rollout(perfect(), question, stop=lambda z: z.argmax(1) == 3)
    assert out.mask.int().tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert (out.final.argmax(1) == 3).all()
    assert (out.embedding[~out.mask] == 0).all()
    assert (out.state[~out.mask] == 0).all()
    head = TerminationHead(4, hidden=())
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.tensor([[0.0, 0, 0, 1]]))
        head.layers[0].bias.fill_(-0.5)
    stopped = latent_rollout(perfect(), question, stop=lambda z: head(z) > 0)
    torch.testing.assert_close(stopped.embedding, out.embedding)


def test_a_memory_gives_what_reading_everything_again_gives():
    class Gru(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(6, 6, batch_first=True)

        def forward(self, inputs, mask):
            return self.gru(inputs)[0]

    model = NextEmbeddingPredictor(Gru(), 5, 6).eval()
    question, lengths = torch.randn(2, 4, 6), []

    def advance(inputs, mask, memory):
        lengths.append((inputs.shape[1], mask.shape[1]))
        return model.backbone.gru(inputs, memory)

    want = latent_rollout(model, question, max_steps=4)
    got = latent_rollout(model, question, max_steps=4, advance=advance)
    torch.testing.assert_close(got.embedding, want.embedding)
    assert lengths == [(4, 4), (1, 5), (1, 6), (1, 7)]


def test_norm_sets_the_length_of_what_is_fed_back():
    model = perfect()
    model.backbone.forward = lambda inputs, mask: 3 * inputs
    question = torch.randn(2, 1, 4)
    grown = latent_rollout(model, question, max_steps=4).state.norm(dim=-1)
    torch.testing.assert_close(grown[:, 3], 81 * question[:, 0].norm(dim=-1))
    held = latent_rollout(model, question, max_steps=4, norm=2.0).state.norm(dim=-1)
    torch.testing.assert_close(held[:, 1:], torch.full((2, 3), 6.0))


def test_rollouts_of_nothing():
    model = predictor().eval()
    out = latent_rollout(model, torch.randn(2, 4, 6), max_steps=0)
    assert [part.shape for part in out[:3]] == [(2, 0, 5), (2, 0, 6), (2, 0)]
    assert (out.final == 0).all()
    assert out.final.shape == (2, 5)
    assert latent_rollout(model, torch.randn(0, 4, 6), max_steps=3).embedding.shape == (0, 3, 5)
    mask = torch.tensor([[True] * 4, [False] * 4])
    assert latent_rollout(model, torch.randn(2, 4, 6), mask).embedding.isfinite().all()


# --- The lens


def test_the_lens_at_the_last_layer_reads_what_the_model_says():
    layers = [CausalAttention(6).eval() for _ in range(3)]

    class Stack(nn.Module):
        def forward(self, inputs, mask):
            self.hidden = [inputs]
            for layer in layers:
                self.hidden.append(layer(self.hidden[-1], mask))
            return self.hidden[-1]

    model, decoder = NextEmbeddingPredictor(Stack(), 5, 6).eval(), Decoder(9, 5).eval()
    question = torch.randn(4, 3, 6)

    def decode(z):
        return greedy_decode(decoder, z, max_length=5, pad_id=0)

    out = latent_rollout(model, question, max_steps=1)
    texts = sentence_lens(model.backbone.hidden, decode, projection=model.predict)
    assert len(texts) == 4
    assert (texts[-1] == decode(out.final)).all()
    for text, hidden in zip(texts, model.backbone.hidden, strict=True):
        assert (text == decode(model.output_projection(hidden[:, -1]))).all()


def test_the_lens_takes_the_last_real_state():
    hidden = torch.arange(6.0).reshape(1, 6, 1).expand(2, 6, 3)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 2 + [True] * 4])
    (got,) = sentence_lens([hidden], lambda z: z[:, 0].tolist(), mask=mask)
    assert got == [3, 5]
    (got,) = sentence_lens([hidden], lambda z: z[:, 0].tolist(), norm=lambda x: x / 10)
    assert got == [0.5, 0.5]


# --- Contract and errors


@pytest.mark.parametrize("module", CASES, ids=lambda c: c.__name__)
def test_contract(module):
    check_module(*CASES[module], exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("module", CASES, ids=lambda c: c.__name__)
def test_contract_compiled(module):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[module], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.compile
def test_functions_compile():
    def run(hidden, delimiter):
        states, mask = delimiter_states(hidden, delimiter, 3)
        return prefix_condition(states[:, 0], hidden), mask & question_mask(mask)

    args = torch.randn(2, 5, 4), torch.rand(2, 5) > 0.5
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), run(*args))


@pytest.mark.wording
def test_widths_that_differ_teach():
    out = predictor()(torch.randn(2, 4, 6), torch.randn(2, 3, 5))
    with pytest.raises(
        ValueError,
        match=r"embedding: expected last axis of size 8, got shape \(6, 5\). The decoder reads the "
        "vector as if it were a token, so the two widths must be equal: build "
        "NextEmbeddingPredictor with out_features",
    ):
        Decoder(9, 8)(out.prediction.flatten(0, 1), torch.zeros(6, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"token_embeddings: expected 2 rows, got shape \(1, 3, 4"):
        prefix_condition(torch.zeros(2, 4), torch.zeros(1, 3, 4))
    with pytest.raises(
        TypeError, match="token_embeddings: expected a floating-point tensor, got t"
    ):
        prefix_condition(torch.zeros(2, 4), torch.zeros(2, 3, 4).long())


@pytest.mark.wording
def test_autoencoder_errors_teach():
    ids, decoder = torch.zeros(2, 3, dtype=torch.long), Decoder(9, 6)
    model = SequenceAutoencoder(nn.EmbeddingBag(9, 6), decoder)
    with pytest.raises(ValueError, match=r"one row of ids per vector, shape \(2, 'n'\), got torch"):
        model(ids, ids[:, None])
    with pytest.raises(TypeError, match=r"target must be integers, .* got torch\.float32 \(2, 3\)"):
        model(ids, ids.float())
    with pytest.raises(TypeError, match=r"the encoder must give .*got tuple\. Wrap a model"):
        SequenceAutoencoder(nn.GRU(3, 6), decoder)(torch.randn(2, 3))
    late = SequenceAutoencoder(nn.EmbeddingBag(9, 6), nn.Bilinear(6, 2, 5))
    late.decoder.forward = lambda z, tokens: torch.zeros(2, tokens.shape[1], 9)
    with pytest.raises(
        ValueError,
        match=r"the decoder must give logits \(2, 3, v\) for 2 vectors and 2 ids each, got "
        r"\(2, 2, 9\)\. The vector takes a place of its own",
    ):
        late(ids)
    with pytest.raises(
        ValueError, match=r"SequenceAutoencoder: prefix_dropout must be in \[0, 1\)"
    ):
        SequenceAutoencoder(nn.Identity(), decoder, prefix_dropout=1.0)
    with pytest.raises(ValueError, match="greedy_decode: max_length must be >= 1, got 0"):
        greedy_decode(decoder, torch.zeros(2, 6), max_length=0, pad_id=0)
    with pytest.raises(TypeError, match=r"delimiter: expected bool, .*tokens == newline_id"):
        delimiter_states(torch.zeros(2, 3, 4), ids, 2)
    with pytest.raises(ValueError, match=r"delimiter: expected shape \(2, 4\), the leading"):
        delimiter_states(torch.zeros(2, 4, 4), ids == 0, 2)
    with pytest.raises(ValueError, match="num_steps must be >= 0, got -1"):
        delimiter_states(torch.zeros(2, 3, 4), ids == 0, -1)


@pytest.mark.wording
def test_predictor_errors_teach():
    model, question, steps = predictor(), torch.randn(2, 4, 6), torch.randn(2, 3, 5)
    with pytest.raises(ValueError, match=r"question: expected last axis of size 6, got .* rebuild"):
        model(question[..., :5], steps)
    with pytest.raises(ValueError, match="steps: expected last axis of size 5"):
        model(question, question)
    with pytest.raises(ValueError, match=r"steps: expected 2 rows, got shape \(1, 3, 5\)"):
        model(question, steps[:1])
    with pytest.raises(ValueError, match=r"at least one column, .* Put a start token there"):
        model(question[:, :0], steps)
    with pytest.raises(TypeError, match="question: expected a floating-point tensor"):
        model(question.long(), steps)
    with pytest.raises(TypeError, match=r"mask: expected bool \(True is real"):
        model(question, steps, torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 3\), the leading axes of"):
        model(question, steps, None, torch.ones(2, 4, dtype=torch.bool))
    model.backbone.forward = lambda inputs, mask: inputs[..., :5]
    with pytest.raises(ValueError, match=r"of its inputs, \(2, 6, 6\), got \(2, 6, 5\). dim=6 is"):
        model(question, steps)
    model.backbone.forward = lambda inputs, mask: {"last_hidden_state": inputs}
    with pytest.raises(TypeError, match=r"the backbone must give .*got dict\. .*last_hidden_state"):
        model(question, steps)
    with pytest.raises(ValueError, match="NextEmbeddingPredictor: dim must be >= 1, got 0"):
        NextEmbeddingPredictor(nn.Identity(), 4, 0)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 20"):
        NextEmbeddingPredictor(nn.Identity(), 4, 4, dropout=20)
    with pytest.raises(
        ValueError, match="TerminationHead: each width of hidden must be >= 1, got 0"
    ):
        TerminationHead(4, hidden=[0])
    with pytest.raises(ValueError, match="embedding: expected last axis of size 4"):
        TerminationHead(4)(steps)


@pytest.mark.wording
def test_rollout_errors_teach():
    model, question = predictor(), torch.randn(2, 4, 6)
    for alone in ("decode", "encode"):
        with pytest.raises(ValueError, match=f"got {alone} alone. To read the answer of a contin"):
            latent_rollout(model, question, **{alone: lambda z: z})
    with pytest.raises(ValueError, match="norm is for continuous roll-outs; a discretised one"):
        latent_rollout(model, question, decode=len, encode=len, norm=1.0)
    with pytest.raises(ValueError, match="latent_rollout: norm must be > 0, got 0"):
        latent_rollout(model, question, norm=0.0)
    with pytest.raises(ValueError, match="max_steps must be >= 0, got -1"):
        latent_rollout(model, question, max_steps=-1)
    with pytest.raises(
        TypeError, match=r"stop must give a bool tensor .* stop=lambda z: head\(z\)"
    ):
        latent_rollout(model, question, stop=lambda z: z[:, 0])
    with pytest.raises(
        ValueError, match=r"steps: expected last axis of size 5, got shape \(2, 1, 4"
    ):
        latent_rollout(model, question, decode=lambda z: z, encode=lambda t: t[-1][:, :4])
    with pytest.raises(ValueError, match="states that advance gave: expected last axis of size 6"):
        latent_rollout(model, question, advance=lambda x, mask, memory: (x[..., :2], None))
    with pytest.raises(TypeError, match="sentence_lens: each layer must give a floating-point ten"):
        sentence_lens([question.long()], len)
    with pytest.raises(
        ValueError, match=r"hidden: expected 3 axes \(b, n, d\), got shape \(2, 6\)"
    ):
        sentence_lens([question[:, 0]], len)
