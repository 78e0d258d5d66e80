"""Encoder, pooling and head as one graph: torch.export and ONNX, any batch, any length."""

import importlib
import io
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import embedkit as ek
from embedkit.heads.nested import MatryoshkaHead
from embedkit.surgery.bidirectional import bidirectional

pytestmark = pytest.mark.compile
quiet = pytest.mark.filterwarnings("ignore")  # what the exporters deprecate and can't name
SHAPES = [(1, 1), (5, 9), (1, 12), (3, 7)]
POOLS = {
    "mean": ek.pooling.MeanPool,
    "max": ek.pooling.MaxPool,
    "first": ek.pooling.FirstTokenPool,
    "last": ek.pooling.LastTokenPool,
    "attention": lambda: ek.pooling.AttentionPool(8, num_heads=2),
    "positions": ek.pooling.PositionWeightedPool,
    "latent": lambda: ek.pooling.LatentAttentionPool(8, num_latents=4, num_heads=2),
}


class TorchEncoder(nn.Module):
    """A table and one layer of torch."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, ids, mask):
        return self.layer(self.table(ids), src_key_padding_mask=~mask)


class HuggingFaceEncoder(nn.Module):
    """A small model of transformers."""

    def __init__(self, family):
        super().__init__()
        transformers = importlib.import_module("transformers")
        config = transformers.AutoConfig.for_model(
            family,
            vocab_size=30,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            use_cache=False,
        )
        self.model = transformers.AutoModel.from_config(config)

    def forward(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state


class Embedder(nn.Module):
    """What is served: ids and a mask in, one vector per row out."""

    def __init__(self, encoder, pool):
        super().__init__()
        self.encoder, self.pool, self.head = encoder, pool, MatryoshkaHead(8, [2, 4])

    def forward(self, ids, mask):
        return self.head(self.pool(self.encoder(ids, mask), mask))


def inputs(batch, length):
    mask = torch.rand(batch, length) > 0.3
    mask[:, length // 2] = True
    return torch.randint(30, (batch, length)), mask


def dynamic():
    axes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("length", max=60)}
    return {"ids": axes, "mask": axes}


def round_trip(model):
    """Through bytes, as a server would read it; no class of ours is needed there."""
    file = io.BytesIO()
    exported = torch.export.export(model, inputs(3, 7), dynamic_shapes=dynamic())
    torch.export.save(exported, file)
    file.seek(0)
    return torch.export.load(file).module()


@quiet
@pytest.mark.parametrize("pool", POOLS)
def test_exported_graph_agrees(pool):
    model = Embedder(TorchEncoder(), POOLS[pool]()).eval()
    served = round_trip(model)
    for shape in SHAPES:
        ids, mask = inputs(*shape)
        torch.testing.assert_close(served(ids, mask), model(ids, mask))


@quiet
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_exported_graph_of_a_hugging_face_encoder_agrees(family):
    model = Embedder(HuggingFaceEncoder(family), POOLS["latent"]()).eval()
    with bidirectional(model):  # the graph keeps the mask of the context it was made in
        served = round_trip(model)
        wanted = [(i, m, model(i, m)) for i, m in (inputs(*shape) for shape in SHAPES)]
    for ids, mask, want in wanted:
        torch.testing.assert_close(served(ids, mask), want, rtol=1e-4, atol=1e-5)


@quiet
@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["torch", "bert", "llama"])
def test_onnx_graph_agrees(encoder, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    part = TorchEncoder() if encoder == "torch" else HuggingFaceEncoder(encoder)
    model = Embedder(part, POOLS["latent"]()).eval()
    path = tmp_path / "embedder.onnx"
    with nullcontext() if encoder == "torch" else bidirectional(model):
        torch.onnx.export(
            model,
            inputs(3, 7),
            path,
            dynamo=True,
            dynamic_shapes=dynamic(),
            input_names=["ids", "mask"],
            output_names=["vector"],
            verbose=False,
        )
        wanted = [(i, m, model(i, m)) for i, m in (inputs(*shape) for shape in SHAPES)]
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for ids, mask, want in wanted:
        (got,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), want.detach(), rtol=1e-4, atol=1e-5)
