"""What the domain-adaptation claims share: a network, its training, and reverse validation."""

import torch
import torch.nn.functional as F
from torch import nn

from embedkit.analysis import proxy_a_distance
from embedkit.heads import DomainDiscriminator, JointFeatures
from embedkit.losses import (
    ConditionalDomainAdversarialLoss,
    CORALLoss,
    DomainAdversarialLoss,
    MMDLoss,
)
from embedkit.ops import AdversarialStrength, AnnealedRate


class Network(nn.Module):
    """Features, and class logits on top."""

    def __init__(self, features: nn.Module, width: int, classes: int):
        super().__init__()
        self.features, self.width, self.classes = features, width, classes
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.features(x))


class Adversary(nn.Module):
    """DANN's loss, or CDAN's, with a strength that grows to ``weight`` or stays there.

    ``right`` is the accuracy of DANN's discriminator on the batch of every step.
    """

    def __init__(self, net, weight, steps, hidden, grow, conditional=False):
        super().__init__()
        self.conditional, self.right = conditional, []
        if conditional:
            joint = JointFeatures(net.width, net.classes)
            judge = DomainDiscriminator(joint.out_features, hidden)
            self.loss = ConditionalDomainAdversarialLoss(judge, joint, weight)
        else:
            self.loss = DomainAdversarialLoss(DomainDiscriminator(net.width, hidden), weight)
        self.schedule = AdversarialStrength(steps, high=weight) if grow else None

    def forward(self, source, target, *logits):
        if self.schedule is not None:
            self.loss.set_strength(self.schedule.value)
            self.schedule.step()
        if not self.conditional:
            self.right.append(float(self.loss.accuracy(source, target)))
        return self.loss(source, target, *(logits if self.conditional else ()))


class Distance(nn.Module):
    """A distance of the features, times a weight."""

    def __init__(self, distance, weight):
        super().__init__()
        self.distance, self.weight = distance, weight

    def forward(self, source, target, *_):
        return self.weight * self.distance(source, target)


def penalty(method, net, weight, steps, hidden, grow):
    """What a method adds to the loss of the task; None for plain training."""
    return {
        "NN": lambda: None,
        "DANN": lambda: Adversary(net, weight, steps, hidden, grow),
        "CDAN": lambda: Adversary(net, weight, steps, hidden, grow, conditional=True),
        "MMD": lambda: Distance(MMDLoss(), weight),
        "CORAL": lambda: Distance(CORALLoss(), weight),
    }[method]()


def order(rows, half, generator):
    """Batches of row numbers without end, shuffled anew in every round."""
    while True:
        for batch in torch.randperm(rows, generator=generator).split(half):
            if len(batch) == half or rows < half:
                yield batch


def fit(net, data, method, weight, seed, *, steps, half, optimizer, hidden=(), grow=True):
    """Train on source rows, labels and target rows; what was added to the loss of the task.

    The order of rows depends on ``seed`` alone; ``optimizer`` is made of the parameters of the
    network and of those of what is added.
    """
    source, labels, target = data
    torch.manual_seed(seed)
    extra = penalty(method, net, weight, steps, hidden, grow)
    added = list(extra.parameters()) if extra else []
    step_size, scheduler = optimizer(list(net.parameters()), added), None
    if isinstance(step_size, torch.optim.SGD):
        scheduler = torch.optim.lr_scheduler.LambdaLR(step_size, AnnealedRate(steps))
    generator = torch.Generator().manual_seed(seed)
    rows = order(len(source), half, generator), order(len(target), half, generator)
    for _, s, t in zip(range(steps), *rows, strict=False):
        features = net.features(torch.cat([source[s], target[t]]))
        logits = net.head(features)
        loss = F.cross_entropy(logits[: len(s)], labels[s])
        if extra is not None:
            loss = loss + extra(*features.split([len(s), len(t)]), *logits.split([len(s), len(t)]))
        step_size.zero_grad()
        loss.backward()
        step_size.step()
        if scheduler is not None:
            scheduler.step()
    return extra


@torch.no_grad()
def accuracy(net, rows, labels):
    return float((net(rows).argmax(dim=1) == labels).float().mean())


@torch.no_grad()
def distance(net, source, target, rows=1000):
    """Proxy A-distance of the features of as many rows of both domains."""
    return proxy_a_distance(net.features(source[:rows]), net.features(target[:rows]))


def reverse_risk(build, data, method, weight, seed, **settings):
    """Error on held-out source rows after training there and back; no target label is read."""
    source, labels, target = data
    shuffled = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    held, kept = shuffled[: len(source) // 10], shuffled[len(source) // 10 :]
    net = build(seed)
    fit(net, (source[kept], labels[kept], target), method, weight, seed, **settings)
    with torch.no_grad():
        guess = net(target).argmax(dim=1)
    fit(net, (target, guess, source[kept]), method, weight, seed, **settings)
    return 1 - accuracy(net, source[held], labels[held])
