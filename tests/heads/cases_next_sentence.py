"""Sentence autoencoders and predictors in the contract, and small models of users to test them."""

import torch
from torch import nn

from embedkit.heads.next_sentence.autoencoder import SequenceAutoencoder, prefix_condition
from embedkit.heads.next_sentence.predictor import NextEmbeddingPredictor, TerminationHead


class CausalAttention(nn.Module):
    """One layer of causal attention; positions count real tokens, padding is never read."""

    def __init__(self, dim, places=32):
        super().__init__()
        self.place = nn.Embedding(places, dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, inputs, mask):
        x = inputs + self.place((mask.cumsum(1) - 1).clamp(min=0)).to(inputs.dtype)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        see = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        see = see & mask[:, None] | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        score = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~see, -1e4)
        return x + self.out(score.softmax(-1) @ v)


class Decoder(nn.Module):
    """Token ids after a vector, through causal attention, to logits."""

    def __init__(self, num_embeddings, dim):
        super().__init__()
        self.table, self.body = nn.Embedding(num_embeddings, dim), CausalAttention(dim)
        self.out = nn.Linear(dim, num_embeddings)

    def forward(self, embedding, tokens):
        inputs = prefix_condition(embedding, self.table(tokens))
        return self.out(self.body(inputs, torch.ones_like(inputs[..., 0], dtype=torch.bool)))


def ids(b):
    return (torch.randint(7, (b, 5), generator=torch.Generator().manual_seed(0)),)


def story(b):
    draw = torch.Generator().manual_seed(0)
    question, steps = torch.randn(b, 4, 6, generator=draw), torch.randn(b, 3, 5, generator=draw)
    return question, steps, torch.arange(4).expand(b, 4) > 0, torch.arange(3).expand(b, 3) < 2


CASES = {
    SequenceAutoencoder: (lambda: SequenceAutoencoder(nn.EmbeddingBag(7, 6), Decoder(7, 6)), ids),
    NextEmbeddingPredictor: (
        lambda: NextEmbeddingPredictor(CausalAttention(6), 5, 6, 4, dropout=0.0),
        story,
    ),
    TerminationHead: (
        lambda: TerminationHead(6, hidden=(5, 4)),
        lambda b: (torch.randn(b, 6, generator=torch.Generator().manual_seed(0)),),
    ),
}
