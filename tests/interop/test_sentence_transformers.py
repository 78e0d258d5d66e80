"""Beside sentence-transformers: our blocks within their models, their models within our loop."""

import copy
import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import embedkit as ek
from embedkit.surgery.bidirectional import bidirectional

pytestmark = pytest.mark.filterwarnings("ignore")  # what they and what they import deprecate
TEXTS = ["the cat sat", "a dog ran far", "the dog sat", "a cat ran on and on and on"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(" ".join(TEXTS).split()))]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(scope="module")
def st():
    return importlib.import_module("sentence_transformers")


@pytest.fixture(scope="module")
def encoder_folder(st, tmp_path_factory):
    """A tiny BERT and a tokenizer of words, as files."""
    folder = str(tmp_path_factory.mktemp("encoder"))
    transformers, tokenizers = (importlib.import_module(n) for n in ("transformers", "tokenizers"))
    words = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep")}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("bert", **SIZES)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def model(st, encoder_folder):
    """Their encoder, then our pool and our head."""
    blocks = importlib.import_module("interop.st_blocks")
    transformer = importlib.import_module("sentence_transformers.base.modules").Transformer
    torch.manual_seed(1)
    pool, head = blocks.LatentAttention(16, 8), blocks.Matryoshka(16, [4, 8])
    modules = [transformer(encoder_folder), pool, head]
    return st.SentenceTransformer(modules=modules, device="cpu").eval()


def test_encode_gives_what_the_blocks_give(model):
    found = model.encode(TEXTS, convert_to_tensor=True)
    assert found.shape == (4, 8)
    features = model.preprocess(TEXTS)
    with torch.no_grad():
        tokens = model[0](dict(features))["token_embeddings"]
        want = model[2].head(model[1].pool(tokens, features["attention_mask"].bool()))
    torch.testing.assert_close(found, want)
    one_by_one = torch.stack([model.encode(text, convert_to_tensor=True) for text in TEXTS])
    torch.testing.assert_close(found, one_by_one, rtol=1e-4, atol=1e-5)  # padding never matters
    cut = model.encode(TEXTS, convert_to_tensor=True, truncate_dim=4)
    torch.testing.assert_close(cut, found[:, :4])


def test_what_is_saved_comes_back(st, model, tmp_path):
    want = model.encode(TEXTS, convert_to_tensor=True)
    model.save(str(tmp_path))
    loaded = st.SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert [type(m).__name__ for m in loaded] == ["Transformer", "LatentAttention", "Matryoshka"]
    torch.testing.assert_close(loaded.encode(TEXTS, convert_to_tensor=True), want)
    with pytest.raises(ValueError, match="trust_remote_code"):
        st.SentenceTransformer(str(tmp_path), device="cpu")


class PairLoss(nn.Module):
    """Any loss over two sets of rows, as their trainer calls one."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, sentence_features, labels=None):
        rows = [self.model(features)["sentence_embedding"] for features in sentence_features]
        return self.loss(*rows)


OURS = {
    "info_nce": lambda: ek.losses.InfoNCELoss(temperature=0.05),
    "matryoshka": lambda: ek.losses.MatryoshkaLoss(
        ek.losses.InfoNCELoss(temperature=0.05), dims=[4, 8]
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_their_trainer_takes_a_step_with_our_loss(st, model, tmp_path, name):
    datasets = importlib.import_module("datasets")
    rows = datasets.Dataset.from_dict({"anchor": TEXTS, "positive": TEXTS[::-1]})
    arguments = st.SentenceTransformerTrainingArguments(
        str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        warmup_steps=0,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    before = copy.deepcopy(model.state_dict())
    loss = PairLoss(model, OURS[name]())
    trainer = st.SentenceTransformerTrainer(model, arguments, train_dataset=rows, loss=loss)
    trainer.train()
    for block in ("0.", "1.pool.latents", "2.head"):
        names = [n for n in before if n.startswith(block)]
        moved = [not torch.equal(model.state_dict()[n].cpu(), before[n]) for n in names]
        assert any(moved), block
    assert model.encode(TEXTS[0]).shape == (8,)


def test_our_loss_in_their_place_equals_theirs(st, model):
    losses = importlib.import_module("sentence_transformers.sentence_transformer.losses")
    features = [model.preprocess(texts) for texts in (TEXTS, TEXTS[::-1])]
    theirs = losses.MultipleNegativesRankingLoss(model, scale=20.0)
    ours = PairLoss(model, ek.losses.InfoNCELoss(temperature=0.05))
    gradients, values = [], []
    for loss in (theirs, ours):
        model.zero_grad()
        values.append(loss([dict(f) for f in features], None))
        values[-1].backward()
        gradients.append(model[1].pool.latents.grad.clone())
    torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)


def test_their_model_is_an_encoder_in_our_loop(st, encoder_folder):
    modules = importlib.import_module("sentence_transformers.base.modules")
    pooling = importlib.import_module("sentence_transformers.sentence_transformer.modules").Pooling
    parts = [modules.Transformer(encoder_folder), pooling(16, pooling_mode="mean")]
    encoder = st.SentenceTransformer(modules=parts, device="cpu")
    head, loss = nn.Linear(16, 8), ek.losses.InfoNCELoss(temperature=0.1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    mirrored, seen = ["far ran dog a", "the cat", "on", "sat the dog"], []
    for _ in range(12):
        query, key = (
            head(encoder(encoder.preprocess(texts))["sentence_embedding"])
            for texts in (TEXTS, mirrored)
        )
        value = loss(query, key)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < 0.5 * seen[0]


def test_our_pools_agree_with_theirs():
    pooling = importlib.import_module("sentence_transformers.sentence_transformer.modules").Pooling
    tokens, mask = torch.randn(3, 5, 4), torch.tensor([[1] * 5, [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    ours = {
        "mean": ek.pooling.MeanPool(),
        "max": ek.pooling.MaxPool(),
        "cls": ek.pooling.FirstTokenPool(),
        "lasttoken": ek.pooling.LastTokenPool(),
    }
    for mode, pool in ours.items():
        features = {"token_embeddings": tokens, "attention_mask": mask}
        want = pooling(4, pooling_mode=mode)(features)["sentence_embedding"]
        torch.testing.assert_close(pool(tokens, mask.bool()), want)


def test_an_auto_model_is_an_encoder_in_our_loop():
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    encoder = transformers.AutoModel.from_config(transformers.AutoConfig.for_model("bert", **SIZES))
    pool = ek.pooling.LatentAttentionPool(16, num_latents=8, num_heads=2)
    ids, mask = torch.randint(4, len(WORDS), (4, 6)), torch.arange(6) < torch.tensor([[6], [3]] * 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *pool.parameters()], lr=1e-2)
    seen = []
    for _ in range(8):
        rows = [
            pool(encoder(input_ids=i, attention_mask=mask.long()).last_hidden_state, mask)
            for i in (ids, ids.roll(1, dims=1))
        ]
        value = ek.losses.info_nce(*rows, temperature=0.1)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert seen[-1] < 0.5 * seen[0]


def test_bidirectional_reaches_a_decoder_within_their_model(st, tmp_path, encoder_folder):
    transformers = importlib.import_module("transformers")
    sizes = {n: s for n, s in SIZES.items() if not n.endswith("prob")}
    transformers.AutoTokenizer.from_pretrained(encoder_folder).save_pretrained(tmp_path)
    config = transformers.AutoConfig.for_model("llama", **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    base = importlib.import_module("sentence_transformers.base.modules")
    pooling = importlib.import_module("sentence_transformers.sentence_transformer.modules").Pooling
    parts = [base.Transformer(str(tmp_path)), pooling(16, pooling_mode="cls")]
    model = st.SentenceTransformer(modules=parts, device="cpu")

    def first_states():
        rows = model.encode(["the cat sat", "the cat ran"], convert_to_tensor=True)
        return F.cosine_similarity(rows[0], rows[1], dim=0).item()

    assert first_states() == pytest.approx(1.0, abs=1e-6)
    with bidirectional(model):
        assert first_states() < 1 - 1e-6
    assert first_states() == pytest.approx(1.0, abs=1e-6)


def test_importing_us_imports_none_of_them():
    code = (
        "import sys, embedkit as ek; ek.pooling, ek.heads, ek.losses;"
        "assert not {'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
