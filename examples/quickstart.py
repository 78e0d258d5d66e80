"""Where does a new concept belong? Train, search and draw an embedding of all WordNet nouns.

From the text that defines a concept, find its parent among 82,115 nouns: the daily problem of every
catalogue, ontology and taxonomy. The blocks are embedkit's, the training loop is your own.

    python examples/quickstart.py                        # train, measure, draw, save
    python examples/quickstart.py --ask "a large cat with black stripes that lives in Asian forests"
"""

import argparse
import gzip
import json
import re
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

import embedkit as ek

HERE = Path(__file__).parent
DIMS = [32, 64, 128, 256]
LENGTH, BUCKETS = 16, 2**16  # words of a text that are read; rows shared by all character 4-grams
HELD_OUT, BATCH, STEPS = 2000, 1024, 520
EXAMPLES = [
    "a large cat with black stripes that lives in Asian forests",
    "a person who repairs broken watches",
    "a small wooden boat moved by oars",
    "fear of being enclosed in narrow rooms",
]


class Nouns:
    """WordNet's nouns, and their texts as numbers of words; 0 is padding."""

    def __init__(self):
        with gzip.open(HERE / "data" / "wordnet_nouns.tsv.gz", "rt", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file][1:]
        self.names = [lemmas.split("|") for lemmas, _, _ in rows]
        self.definitions = [definition for _, definition, _ in rows]
        self.parents = [[int(parent) for parent in parents.split()] for _, _, parents in rows]
        # A name says more than a mention: each word of a name brings a token of its own, "=word".
        marked = [" ".join(f"{w} ={w}" for w in split(" ".join(names))) for names in self.names]
        self.texts = list(zip(marked, self.definitions, strict=True))
        words = sorted({word for parts in self.texts for part in parts for word in split(part)})
        self.number = {word: i + 1 for i, word in enumerate(words)}

    def read(self, texts):
        """Texts, each a list of parts, as numbers of words and places: (n, LENGTH) each.

        A place is the number of the word in a text of one part, else the number of its part.
        """
        words, places, padding = [], [], [0] * LENGTH
        for parts in texts:
            found = [
                (n, self.number.get(w, 0)) for n, part in enumerate(parts) for w in split(part)
            ]
            known = [(n, number) for n, number in found if number][:LENGTH]
            place = [n for n, _ in known] if len(parts) > 1 else range(len(known))
            words.append(([number for _, number in known] + padding)[:LENGTH])
            places.append(([*place, *padding])[:LENGTH])
        return torch.tensor(words), torch.tensor(places)

    def concepts(self):
        """Every noun as a candidate: its names and its definition."""
        return self.read(self.texts)

    def questions(self):
        """Every noun as a question: its definition alone."""
        return self.read([(definition,) for definition in self.definitions])


def split(text):
    """Lower-case words and numbers, with the mark of a name where there is one."""
    return re.findall(r"=?[a-z0-9]+", text.lower())


# --- The model and its training: embedkit's blocks in a loop of our own.


class Tower(nn.Module):
    """Word vectors of a text -> one vector, whose prefixes are vectors, too."""

    def __init__(self, dim):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(LENGTH, dim))
        self.pool = ek.pooling.AttentionPool(dim)
        self.head = ek.heads.MatryoshkaHead(dim, DIMS)

    def forward(self, vectors, places, mask):
        return self.head(self.pool(vectors + F.embedding(places, self.place), mask))


class Model(nn.Module):
    """One table of words and, since "is a kind of" has two sides, a tower for each."""

    def __init__(self, number, dim=256):
        super().__init__()
        rows = {"<padding>": 0, **number}
        ids, offsets = ek.tables.subword_ids(
            list(rows), min_n=4, max_n=4, num_buckets=BUCKETS, vocabulary=rows
        )
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self.words = ek.tables.SubwordEmbedding(len(rows) + BUCKETS, dim, sparse=True)
        nn.init.normal_(self.words.weight, std=0.05)
        self.question, self.concept = Tower(dim), Tower(dim)
        # Both sides start in one space: equal words are close before the first step.
        self.concept.head.load_state_dict(self.question.head.state_dict())

    def forward(self, *texts):
        """(tower, words, places) of each side -> its vectors; a word is made once per batch."""
        seen, at = torch.cat([words for _, words, _ in texts]).unique(return_inverse=True)
        vectors = self.words(*ek.ops.select_segments(self.ids, self.offsets, seen))
        result = []
        for tower, words, places in texts:
            mine, at = at[: len(words)], at[len(words) :]
            result.append(tower(F.embedding(mine, vectors), places, words > 0))
        return result


def train(model, questions, concepts, pairs, steps):
    """A definition finds its parent among all parents and all defined concepts of the batch."""
    contrastive = ek.losses.InfoNCELoss(temperature=0.05, same_id="ignore")
    nested = ek.losses.MatryoshkaLoss(contrastive, DIMS)
    others = [p for name, p in model.named_parameters() if name != "words.weight"]
    table = torch.optim.SparseAdam([model.words.weight], lr=1e-2)
    optimisers = [table, torch.optim.Adam(others, lr=2e-3)]
    schedules = [
        OneCycleLR(o, o.defaults["lr"], total_steps=steps + 1, pct_start=0.1) for o in optimisers
    ]
    order = torch.empty(0, dtype=torch.long)
    for _ in (bar := tqdm(range(steps), desc="training", unit="step")):
        if len(order) < BATCH:
            order = torch.randperm(len(pairs))
        (child, parent), order = pairs[order[:BATCH]].T, order[BATCH:]
        query, key, own = model(
            (model.question, *(part[child] for part in questions)),
            (model.concept, *(part[parent] for part in concepts)),
            (model.concept, *(part[child] for part in concepts)),
        )
        # The concept's own text is a negative: what it is, is not what it is a kind of.
        ids = torch.cat([parent, child])
        loss = nested(query, torch.cat([key, own]), query_ids=parent, key_ids=ids)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        bar.set_postfix(loss=f"{loss.item() / len(DIMS):.3f}", refresh=False)


@torch.no_grad()
def embed(model, tower, texts):
    """Vectors of many texts."""
    parts = zip(*(part.split(4096) for part in texts), strict=True)
    return torch.cat([model((tower, *part))[0] for part in parts])


# --- What it reaches, and beside what.


def measure(question, concept, truth, own):
    """Metrics of every width on the held-out questions."""
    result = {}
    for dim in DIMS:
        found = ek.search.exact_search(
            question[:, :dim], concept[:, :dim], 10, exclude=own[:, None]
        )
        result[dim] = ek.analysis.retrieval_metrics(found.index, truth)
    return result


def tf_idf(nouns, held_out, truth):
    """The same questions by TF-IDF."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [" ".join(n) + " " + d for n, d in zip(nouns.names, nouns.definitions, strict=True)]
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    concept = vectorizer.fit_transform(texts)
    question = vectorizer.transform([nouns.definitions[i] for i in held_out])
    found = []
    for own, row in zip(held_out.tolist(), question @ concept.T, strict=True):
        score = torch.from_numpy(row.toarray()[0])
        score[own] = -1
        found.append(score.topk(10).indices)
    return ek.analysis.retrieval_metrics(torch.stack(found), truth)


def table(result, baseline):
    """The metrics as lines of text."""
    names = ["recall@1", "recall@10", "mrr@10"]
    lines = [f"{'':>10}" + "".join(f"{name:>11}" for name in names)]
    for label, row in [*((f"width {d}", row) for d, row in result.items()), ("TF-IDF", baseline)]:
        lines.append(f"{label:>10}" + "".join(f"{row[name]:>11.3f}" for name in names))
    return "\n".join(lines)


def answer(model, nouns, concept, text):
    """The five most likely parents of a definition typed by hand."""
    question = embed(model, model.question, nouns.read([(text,)]))
    found = ek.search.exact_search(question, concept, 5)
    best = zip(found.similarity[0].tolist(), found.index[0].tolist(), strict=True)
    lines = [f"  {score:.2f}  {', '.join(nouns.names[i][:3])}" for score, i in best]
    return "\n".join([f"? {text}", *lines])


def ask(text, out):
    """Answer from the model that was saved."""
    path = Path(out) / "quickstart.pt"
    if not path.is_file():
        raise SystemExit(
            f"quickstart --ask: expected a trained model at {path}, found none. "
            "Train one first: python examples/quickstart.py"
        )
    nouns = Nouns()
    model = Model(nouns.number).eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    print(answer(model, nouns, embed(model, model.concept, nouns.concepts()), text))


def main(steps=STEPS, out=HERE / "out", seed=0):
    """Train, measure, draw and save; everything goes to ``out``."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    nouns = Nouns()
    with_parent = np.array([i for i, parents in enumerate(nouns.parents) if parents])
    held_out = torch.from_numpy(np.random.default_rng(0).permutation(with_parent)[:HELD_OUT])
    most = max(map(len, nouns.parents))
    truth = torch.tensor(
        [nouns.parents[i] + [-1] * (most - len(nouns.parents[i])) for i in held_out]
    )
    test = set(held_out.tolist())
    pairs = [(i, p) for i, ps in enumerate(nouns.parents) if i not in test for p in ps]
    questions, concepts = nouns.questions(), nouns.concepts()

    model = Model(nouns.number)
    start = time.perf_counter()
    train(model, questions, concepts, torch.tensor(pairs), steps)
    seconds = time.perf_counter() - start

    model.eval()
    concept = embed(model, model.concept, concepts)
    question = embed(model, model.question, tuple(part[held_out] for part in questions))
    result, baseline = measure(question, concept, truth, held_out), tf_idf(nouns, held_out, truth)
    print(f"\n{HELD_OUT:,} new concepts, {len(concept):,} candidates, trained in {seconds:.0f} s\n")
    print(table(result, baseline), "\n")
    for text in EXAMPLES:
        print(answer(model, nouns, concept, text))

    numbers = {
        "seconds": seconds,
        "steps": steps,
        "seed": seed,
        "widths": result,
        "tf-idf": baseline,
    }
    (out / "quickstart.json").write_text(json.dumps(numbers, indent=1) + "\n")
    scores = {n: [result[d][n] for d in DIMS] for n in ("recall@1", "recall@10")}
    axes = ek.plots.matryoshka_curve(
        DIMS, scores, baseline={f"TF-IDF {n}": baseline[n] for n in scores}
    )
    axes.figure.savefig(out / "quickstart.png", dpi=150)
    torch.save(model.state_dict(), out / "quickstart.pt")
    print(f"\nwritten: {out}/quickstart.json, quickstart.png, quickstart.pt")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ask", help="a definition to find the parent of, with the saved model")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.ask is not None:
        ask(options.ask, options.out)
    else:
        main(options.steps, options.out, options.seed)
