"""Vectors in pairs with noisy labels: a scorer of both, and pair heads that learn from it."""

import torch
from torch import nn

from embedkit.heads import PairHead, pair_features
from embedkit.losses import logit_distillation


def step(optimizers, loss):
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def synthetic(seed, quick):
    """(accuracy of the teacher, then accuracy and distance to the teacher for every alpha)."""
    torch.manual_seed(seed)

    def draw(count):
        a, b = torch.randn(2, count, 12)
        return a, b, 3 - 3 * (a - b)[:, :6].square().mean(1) + (a[:, 6] * b[:, 7]).tanh()

    a, b, score = draw(1500)
    label = torch.bernoulli(torch.sigmoid(2 * score))
    test_a, test_b, truth = draw(4000)

    def fit(parameters, forward, alpha, teacher, epochs):
        optimizer = torch.optim.Adam(parameters, lr=2e-3)
        for _ in range(1 if quick else epochs):
            for rows in torch.randperm(1500).split(32):
                logit, goal = forward(a[rows], b[rows]), teacher[rows]
                step(
                    [optimizer],
                    logit_distillation(logit, goal, label[rows], task="binary", alpha=alpha),
                )
        with torch.no_grad():
            return forward(a, b), forward(test_a, test_b)

    def accuracy(logit):
        return ((logit > 0) == (truth > 0)).double().mean().item()

    both = nn.Sequential(
        *(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    )
    teacher, goal = fit(
        both.parameters(), lambda u, v: both(pair_features(u, v))[:, 0], 0.0, torch.zeros(1500), 12
    )
    results = {"teacher": (accuracy(goal),)}
    for alpha in (0.0, 0.5, 1.0):
        torch.manual_seed(seed)
        encoder = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 16))
        head = PairHead(16, hidden=[64])
        weights = [*encoder.parameters(), *head.parameters()]
        _, logit = fit(
            weights, lambda u, v, e=encoder, h=head: h(e(u), e(v))[:, 0], alpha, teacher, 30
        )
        results[alpha] = (accuracy(logit), (logit - goal).square().mean().item())
    return results
