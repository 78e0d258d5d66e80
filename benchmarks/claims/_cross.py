"""A small Transformer that reads two sentences together, trained from scratch on scored pairs."""

import sys

import torch
import torch.nn.functional as F
from _words import WordVectors, number_words, split
from torch import nn

from embedkit.analysis.correlation import spearman
from embedkit.heads import PairHead
from embedkit.pooling import mean_pool

WIDTH, LENGTH, LAYERS, HEADS, BATCH = 64, 32, 2, 1, 32
RATES = (1e-2, 1e-3)  # of the table, of the rest


class CrossAttention(nn.Module):
    """Words of both sides in one sequence, each attends to all; a head reads the mean of each side.

    Queries and keys start with equal weights, so that a word attends to its like first.
    """

    def __init__(self, words, known):
        super().__init__()
        self.words = WordVectors(words, known, WIDTH, std=0.5)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.side = nn.Parameter(0.02 * torch.randn(2, 1, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.1, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        for layer in self.layers.layers:
            weight = layer.self_attn.in_proj_weight.data
            weight[WIDTH : 2 * WIDTH] = weight[:WIDTH]
        self.head = PairHead(WIDTH, hidden=[WIDTH], symmetric=True)

    def forward(self, left, right):
        """Two (b, LENGTH) of word numbers -> (b,)."""
        length = int(((left > 0).any(0) | (right > 0).any(0)).sum())
        both = torch.stack([left[:, :length], right[:, :length]], dim=1)
        x = self.words(both) + self.place[:length] + self.side
        mask = both > 0
        states = self.layers(x.flatten(1, 2), src_key_padding_mask=~mask.flatten(1))
        sides = states.unflatten(1, (2, length)).unbind(1)
        pooled = (mean_pool(side, real) for side, real in zip(sides, mask.unbind(1), strict=True))
        return self.head(*pooled)[:, 0]


class CrossTeacher:
    """The Transformer at its best epoch on the development split; scores pairs of its texts."""

    def __init__(self, texts, known_texts, fit, dev, epochs, seed=0):
        """``fit`` and ``dev``: rows of both sides among ``texts``, (2, n), and scores."""
        torch.manual_seed(seed)
        self.texts, words = number_words(texts, LENGTH)
        known = {word for text in known_texts for word in split(text)}
        self.model = CrossAttention(words, known)
        dense = [p for name, p in self.model.named_parameters() if name != "words.table.weight"]
        optimizers = (
            torch.optim.SparseAdam(self.model.words.table.parameters(), lr=RATES[0]),
            torch.optim.AdamW(dense, lr=RATES[1]),
        )
        best, (pairs, score) = (-2.0, None), fit
        steps, step = epochs * -(-len(score) // BATCH), 0
        for epoch in range(epochs):
            self.model.train()
            for rows in torch.randperm(len(score)).split(BATCH):
                share = min(1.0, 10 * (step + 1) / steps) * (1 - step / steps)
                step += 1
                sides = self.texts[pairs[:, rows]]
                flip = torch.rand(len(rows), 1) < 0.5
                left, right = torch.where(flip, sides[1], sides[0]), torch.where(flip, *sides)
                loss = F.mse_loss(self.model(left, right), score[rows])
                for optimizer, rate in zip(optimizers, RATES, strict=True):
                    optimizer.param_groups[0]["lr"] = rate * share
                    optimizer.zero_grad()
                loss.backward()
                for optimizer in optimizers:
                    optimizer.step()
            value = spearman(self.score(dev[0]), dev[1])
            print(f"dse: cross-attention, epoch {epoch + 1}: dev {value:.3f}", file=sys.stderr)
            if value > best[0]:
                state = {name: p.clone() for name, p in self.model.state_dict().items()}
                best = value, state
        self.model.load_state_dict(best[1])
        self.dev = best[0]

    @torch.no_grad()
    def score(self, pairs):
        """Scores of pairs of rows (2, n), in batches of pairs of like length."""
        self.model.eval()
        size = (self.texts[pairs] > 0).sum((0, 2))
        result = torch.empty(pairs.shape[1])
        for rows in size.argsort().split(256):
            result[rows] = self.model(*self.texts[pairs[:, rows]])
        return result
