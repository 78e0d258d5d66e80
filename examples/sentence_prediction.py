"""Reason in sentences: a model that predicts the vector of the next sentence, not the next token.

Synthetic stories, made below: a family of invented kinds, each a kind of another, and a name that
climbs it until a kind that has no parent:

    anna is a wuba .  ->  every wuba is a lolin .  every lolin is a kego .  so anna is a kego .

An autoencoder learns one vector per sentence; a small transformer learns to predict the next vector
through the frozen decoder. Both are trained from scratch; the blocks are embedkit's, the models and
the loop are your own.

    python examples/sentence_prediction.py
    python examples/sentence_prediction.py --parents 2   # either of two sentences may follow

With two parents a continuous roll-out carries both continuations on; what it decodes to, step by
step, is no longer one story, while the discretised one decides at every sentence.
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import embedkit as ek

HERE = Path(__file__).parent
NAMES = [a + b for a in ("an", "be", "ka", "do", "el") for b in ("na", "ri", "to", "li")]
SYLLABLES = ("wu", "da", "lo", "ri", "ke", "mo", "ta", "vi")
KINDS = [a + b for a in SYLLABLES for b in ("ba", "go", "lin", "pex")]
LEVELS = 4  # kinds of level l have parents of level l + 1
WORDS = ["<pad>", "every", "is", "a", "so", ".", *NAMES, *KINDS]  # the first pad ends a sentence
NUMBER = {word: i for i, word in enumerate(WORDS)}
LENGTH, WIDTH, BATCH, STEPS = 8, 96, 64, 1600


# --- Stories.


def read(texts):
    """Sentences as rows of ids."""
    ids = [[NUMBER[word] for word in text.split()] for text in texts]
    return torch.tensor([row + [0] * (LENGTH - len(row)) for row in ids])


def say(ids):
    """A row of ids as text."""
    return " ".join(WORDS[i] for i in ids.tolist() if i)


def every_sentence():
    """All sentences that the templates can make, true or not."""
    named = [f"{name} is a {kind} ." for name in NAMES for kind in KINDS]
    rules = [f"every {kind} is a {other} ." for kind in KINDS for other in KINDS if kind != other]
    return named + [f"so {text}" for text in named] + rules


class World:
    """Which kind is a kind of which, and walks up from a random one."""

    def __init__(self, seed, parents):
        self.random = torch.Generator().manual_seed(seed)
        size = len(KINDS) // LEVELS
        levels = [KINDS[i * size : (i + 1) * size] for i in range(LEVELS)]
        self.parents = {kind: [] for kind in KINDS}
        for low, high in pairwise(levels):
            for kind in low:
                chosen = torch.randperm(size, generator=self.random)[:parents]
                self.parents[kind] = [high[i] for i in chosen]

    def pick(self, items):
        return items[torch.randint(len(items), (1,), generator=self.random).item()]

    def story(self):
        """A question and the sentences that answer it."""
        name, kind = self.pick(NAMES), self.pick(KINDS)
        question, steps = f"{name} is a {kind} .", []
        while self.parents[kind]:
            above = self.pick(self.parents[kind])
            steps.append(f"every {kind} is a {above} .")
            kind = above
        return question, [*steps, f"so {name} is a {kind} ."]

    def batch(self, number):
        """Questions (b, 5), sentences (b, LEVELS, LENGTH), and which of these are there."""
        stories = [self.story() for _ in range(number)]
        question = read([q for q, _ in stories])[:, :5]
        steps = torch.stack([read((s + [""] * LEVELS)[:LEVELS]) for _, s in stories])
        return question, steps, steps[..., 0] > 0

    def right(self, question, steps):
        """Whether every sentence follows from those before, and the last one is the answer."""
        name, _, _, kind, _ = question.split()
        for text in steps[:-1]:
            follows = [f"every {kind} is a {parent} ." for parent in self.parents[kind]]
            if text not in follows:
                return False
            kind = text.split()[4]
        return not self.parents[kind] and steps[-1] == f"so {name} is a {kind} ."


# --- The models are the user's: anything with these calls will do.


class Encoder(nn.Module):
    """Ids (b, n) -> the state at the end of the sentence (b, d)."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(len(WORDS), WIDTH)
        self.body = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, ids):
        states, _ = ek.heads.delimiter_states(self.body(self.words(ids))[0], ids == 0, num_steps=1)
        return states[:, 0]


class Decoder(nn.Module):
    """A vector (b, d) and the ids so far (b, n) -> logits (b, n + 1, v)."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(len(WORDS), WIDTH)
        self.body = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.out = nn.Linear(WIDTH, len(WORDS))

    def forward(self, embedding, ids):
        inputs = ek.heads.prefix_condition(embedding, self.words(ids))
        return self.out(self.body(inputs)[0])


class Layer(nn.Module):
    """Attention to what came before, then a small network."""

    def __init__(self):
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x, see):
        q, k, v = rearrange(self.qkv(self.before(x)), "b n (p h c) -> p b h n c", p=3, h=4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=see)
        x = x + self.mix(rearrange(mixed, "b h n c -> b n (h c)"))
        return x + self.network(self.between(x))


class Backbone(nn.Module):
    """A causal transformer over vectors; padding is on the left, positions count what is real."""

    def __init__(self, num_layers=3):
        super().__init__()
        self.words, self.places = nn.Embedding(len(WORDS), WIDTH), nn.Embedding(64, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(num_layers))
        self.norm = nn.LayerNorm(WIDTH)

    def hidden(self, inputs, mask):
        """The states between all layers, the inputs first, before the final norm."""
        causal = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool).tril()
        # A padded position sees itself, so that its softmax is defined.
        see = causal & mask[:, None] | torch.eye(mask.shape[1], dtype=torch.bool)
        states = [inputs + self.places((mask.cumsum(1) - 1).clamp(min=0))]
        for layer in self.layers:
            states.append(layer(states[-1], see[:, None]))
        return states

    def forward(self, inputs, mask):
        return self.norm(self.hidden(inputs, mask)[-1])


# --- Training.


def fit(parameters, steps, loss_of_step, label):
    """Adam, and a learning rate that falls in the last third."""
    optimiser = torch.optim.Adam(parameters, 3e-3)
    schedule = LambdaLR(optimiser, lambda i: min(1.0, 3 * (steps - i) / steps))
    start = time.perf_counter()
    for _ in range(steps):
        loss = loss_of_step()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    print(f"{label}: {steps} steps, {time.perf_counter() - start:.0f} s, loss {loss.item():.3f}")


def train_autoencoder(sentences, steps):
    """Semantic vectors: the target is the sentence itself."""
    model = ek.heads.SequenceAutoencoder(Encoder(), Decoder())
    loss = ek.losses.SequenceCrossEntropyLoss(pad_id=0)

    def one_step():
        text = sentences[torch.randint(len(sentences), (BATCH,))]
        return loss(model(text).logits, text)

    fit(list(model.parameters()), steps, one_step, "autoencoder")
    return model.requires_grad_(False).eval()  # frozen, but no no_grad: gradients pass through


def train_predictor(model, world, steps):
    """Cross-entropy through the frozen decoder, and the alignment that roll-outs rely on."""
    predictor = ek.heads.NextEmbeddingPredictor(Backbone(), WIDTH, WIDTH, dropout=0.1)
    stop = ek.heads.TerminationHead(WIDTH, hidden=[48])

    def one_step():
        question, text, there = world.batch(BATCH)
        vectors = model.encoder(text.flatten(0, 1)).unflatten(0, text.shape[:2])
        out = predictor(predictor.backbone.words(question), vectors, step_mask=there)
        logits = model.decode(out.prediction, text)
        decoded = ek.losses.sequence_cross_entropy(logits, text, 0, mask=there)
        ids = text[there].unique(dim=0, return_inverse=True)[1]  # equal sentences are no negatives
        aligned = ek.losses.info_nce(
            out.state[there], out.target[there], temperature=0.1, key_ids=ids, same_id="ignore"
        )
        last = (text[..., 0] == NUMBER["so"]).float()
        ends = stop(out.prediction.detach())[there]
        return decoded + aligned + F.binary_cross_entropy_with_logits(ends, last[there])

    fit([*predictor.parameters(), *stop.parameters()], steps, one_step, "predictor")
    return predictor.eval(), stop.eval()


# --- What it reaches.


@torch.no_grad()
def measure(model, predictor, stop, world, unseen, number):
    """Exact match of the autoencoder, and right stories of both roll-outs."""

    def write(vectors):
        return ek.heads.greedy_decode(model.decoder, vectors, max_length=LENGTH, pad_id=0)

    exact = (write(model.encoder(unseen)) == unseen).all(dim=1).float().mean().item()
    result = {"exact match on unseen sentences": exact}
    question, steps, there = world.batch(number)
    length = predictor.embed(model.encoder(steps[there])[None]).norm(dim=-1).mean().item()
    tokens, texts = predictor.backbone.words(question), {}
    modes = {
        "continuous": {"norm": length},  # the alignment is of directions, not of lengths
        "continuous, lengths left alone": {},
        "discretised": {"decode": write, "encode": lambda history: model.encoder(history[-1])},
    }
    for mode, settings in modes.items():
        out = ek.heads.latent_rollout(
            predictor, tokens, max_steps=2 * LEVELS, stop=lambda z: stop(z) > 0, **settings
        )
        ids = write(out.embedding.flatten(0, 1)).unflatten(0, out.mask.shape)
        texts[mode] = [
            [say(ids[row, step]) for step in out.mask[row].nonzero()[:, 0]] for row in range(number)
        ]
        right = [world.right(say(q), t) for q, t in zip(question, texts[mode], strict=True)]
        result[f"right stories, {mode}"] = sum(right) / number
    row = max(range(number), key=lambda i: len(texts["continuous"][i]))
    layers = predictor.backbone.hidden(tokens[[row]], torch.ones(1, 5, dtype=torch.bool))
    lens = ek.heads.sentence_lens(
        layers, write, projection=predictor.predict, norm=predictor.backbone.norm
    )
    story = {"question": say(question[row]), **{mode: texts[mode][row] for mode in modes}}
    return result, story, [say(text[0]) for text in lens]


def main(steps=STEPS, out=HERE / "out", seed=0, parents=1):
    """Train both models, measure, and write what was found to ``out``."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    world, sentences = World(seed, parents), read(every_sentence())
    sentences = sentences[torch.randperm(len(sentences))]
    half = len(sentences) // 2
    model = train_autoencoder(sentences[:half], steps)
    predictor, stop = train_predictor(model, world, max(1, steps // 2))
    result, story, lens = measure(model, predictor, stop, world, sentences[half:], 200)
    print("\nSynthetic stories; 200 questions, half of all sentences never seen by the autoencoder")
    for name, share in result.items():
        print(f"  {name}: {share:.3f}")
    print(f"\n? {story['question']}")
    for mode in ("continuous", "discretised"):
        print(f"  {mode}: {' '.join(story[mode])}")
    print("\nThe first sentence as it takes shape from layer to layer:")
    for layer, text in enumerate(lens):
        print(f"  {layer}: {text}")
    report = {
        "steps": steps,
        "seed": seed,
        "parents": parents,
        **result,
        "story": story,
        "lens": lens,
    }
    (out / "sentence_prediction.json").write_text(json.dumps(report, indent=1) + "\n")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parents", type=int, default=1, help="of each kind")
    options = parser.parse_args()
    main(options.steps, options.out, options.seed, options.parents)
