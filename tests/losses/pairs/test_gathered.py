"""After one step on several ranks, everything equals one process that saw the whole batch."""

import copy

import pytest
import torch
from distributed import run_ranks
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from embedkit.losses import (
    DecoupledContrastiveLoss,
    InfoNCELoss,
    LearnableTemperature,
    MatryoshkaLoss,
    SigmoidContrastiveLoss,
    SupConLoss,
    info_nce,
    ring_info_nce,
    sup_con,
)

ROWS = ([7], [4, 3], [5, 0, 2, 1])


class TwoTowers(nn.Module):
    """Two encoders and, inside, the loss: how users wrap both in DDP."""

    def __init__(self, loss):
        super().__init__()
        self.query, self.key = nn.Linear(3, 4), nn.Linear(3, 4)
        self.loss = loss

    def forward(self, query, key, *extra, **named):
        query, key = self.query(query), self.key(key)
        if isinstance(self.loss, SupConLoss):
            return self.loss(query + key, *extra)
        return self.loss(query, key, **named)


def cases():
    """Name, loss for a gather setting, names of the per-row arguments it takes."""
    return {
        "info_nce": (lambda g: InfoNCELoss(0.1, gather=g), ()),
        "learned": (lambda g: InfoNCELoss(LearnableTemperature(0.2), gather=g), ()),
        "symmetric": (lambda g: InfoNCELoss(0.1, symmetric=True, gather=g), ()),
        "ids": (lambda g: InfoNCELoss(0.1, symmetric=True, gather=g), ("query_ids", "key_ids")),
        "ignore": (lambda g: InfoNCELoss(0.1, same_id="ignore", gather=g), ("query_ids",)),
        "weights": (lambda g: InfoNCELoss(0.1, symmetric=True, gather=g), ("weight",)),
        "sum": (lambda g: InfoNCELoss(0.1, reduction="sum", gather=g), ("negative",)),
        "widths": (lambda g: MatryoshkaLoss(InfoNCELoss(0.1, gather=g), [2, 4]), ("query_ids",)),
        "decoupled": (lambda g: DecoupledContrastiveLoss(0.2, gather=g), ("query_ids", "key_ids")),
        "sigmoid": (lambda g: SigmoidContrastiveLoss(bias=-1.0, gather=g), ()),
        "labels": (lambda g: SupConLoss(LearnableTemperature(0.3), gather=g), ("labels",)),
    }


def global_batch(rows):
    total = sum(rows)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    batch = {"query": draw(total, 3), "key": draw(total, 3), "negative": draw(total, 2, 4)}
    batch["weight"] = draw(total).abs()
    for name in ("query_ids", "key_ids", "labels"):
        batch[name] = torch.randint(0, 4, (total,), generator=generator)
    return batch


def call(model, batch, names):
    extra = [batch["labels"]] if "labels" in names else []
    named = {name: batch[name] for name in names if name != "labels"}
    return model(batch["query"], batch["key"], *extra, **named)


def differences(reference, model):
    """Largest distance of parameters and of gradients between two models."""
    pairs = list(zip(reference.parameters(), model.parameters(), strict=True))
    return max(float((a.grad - b.grad).abs().max()) for a, b in pairs)


def one_step(rank, rows):
    """Largest error of loss and gradients of every case, against the whole batch."""
    own = slice(sum(rows[:rank]), sum(rows[: rank + 1]))
    whole = global_batch(rows)
    mine = {name: value[own] for name, value in whole.items()}
    errors = {}
    for name, (build, names) in cases().items():
        torch.manual_seed(3)
        reference = TwoTowers(build(False)).double()
        inside = DistributedDataParallel(copy.deepcopy(TwoTowers(build(True)).double()))
        inside.module.load_state_dict(reference.state_dict())
        value = call(reference, whole, names)
        value.backward()
        got = call(inside, mine, names)
        got.backward()
        error = max(differences(reference, inside.module), float((value - got).abs()))
        # The same with the loss, and so the temperature, outside DDP.
        outside = copy.deepcopy(reference)
        outside.zero_grad()
        loss, outside.loss = build(True).double(), nn.Identity()
        loss.load_state_dict(reference.loss.state_dict())
        towers = DistributedDataParallel(Towers(outside))
        query, key = towers(mine["query"], mine["key"])
        outside.loss = loss
        named = {n: mine[n] for n in names if n != "labels"}
        args = (query + key, mine["labels"]) if "labels" in names else (query, key)
        got = loss(*args, **named)
        got.backward()
        errors[name] = max(error, differences(reference, outside), float((value - got).abs()))
    return errors


class Towers(nn.Module):
    """The encoders alone."""

    def __init__(self, model):
        super().__init__()
        self.query, self.key = model.query, model.key

    def forward(self, query, key):
        return self.query(query), self.key(key)


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_a_step_on_many_ranks_is_the_step_on_the_whole_batch(rows):
    for errors in run_ranks(len(rows), one_step, rows):
        assert max(errors.values()) < 1e-10, errors


def ring_errors(rank, rows):
    """Largest difference between the ring and the whole batch, for both readings of ids."""
    own = slice(sum(rows[:rank]), sum(rows[: rank + 1]))
    whole = global_batch(rows)
    errors = {}
    for name, ids in (("own", ()), ("ids", ("query_ids", "key_ids")), ("ignore", ("query_ids",))):
        for similarity in ("cosine", "dot"):
            options = {"similarity": similarity}
            if name == "ignore":
                options["same_id"] = "ignore"
            temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
            leaves = [whole[n].clone().requires_grad_() for n in ("query", "key")]
            named = {n: whole[n] for n in ids}
            want = info_nce(*leaves, temperature=temperature, **named, **options)
            want.backward()
            learned = temperature.detach().clone().requires_grad_()
            mine = [whole[n][own].clone().requires_grad_() for n in ("query", "key")]
            named = {n: whole[n][own] for n in ids}
            got = ring_info_nce(*mine, temperature=learned, **named, **options)
            got.backward()
            # Backward adds up the losses of all ranks, which DDP then averages.
            pairs = [
                (want, got),
                (temperature.grad, learned.grad),
                *((a.grad[own] * len(rows), b.grad) for a, b in zip(leaves, mine, strict=True)),
            ]
            worst = [float((a - b).abs().max()) for a, b in pairs if a.numel()]
            errors[name, similarity] = max(worst)
    return errors


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_the_ring_equals_the_whole_batch(rows):
    for errors in run_ranks(len(rows), ring_errors, rows):
        assert max(errors.values()) < 1e-10, errors


def sharded_step(rank, rows):
    """Largest error of one step of fully sharded encoders and of a temperature outside them."""
    own = slice(sum(rows[:rank]), sum(rows[: rank + 1]))
    whole = global_batch(rows)
    torch.manual_seed(3)
    reference = TwoTowers(InfoNCELoss(LearnableTemperature(0.2))).double()
    model = copy.deepcopy(reference)
    value = reference(whole["query"], whole["key"])
    value.backward()

    loss, model.loss = InfoNCELoss(LearnableTemperature(0.2), gather=True).double(), None
    towers = Towers(model)
    for part in (towers.query, towers.key, towers):
        fully_shard(part, mesh=init_device_mesh("cpu", (len(rows),)))
    got = loss(*towers(whole["query"][own], whole["key"][own]))
    got.backward()
    found = [p.grad.full_tensor() for p in towers.parameters()] + [
        p.grad for p in loss.parameters()
    ]
    pairs = zip([p.grad for p in reference.parameters()], found, strict=True)
    return max(float((a - b).abs().max()) for a, b in [*pairs, (value, got)])


@pytest.mark.parametrize("rows", ROWS[1:], ids=str)
def test_a_fully_sharded_step_is_the_step_on_the_whole_batch(rows):
    assert max(run_ranks(len(rows), sharded_step, rows)) < 1e-10


def remembering(rank, rows):
    """A memory that all ranks share is met once, not once per rank."""
    own = slice(sum(rows[:rank]), sum(rows[: rank + 1]))
    whole = global_batch(rows)
    extra = global_batch([5])
    named = {"memory": extra["query"], "memory_ids": extra["labels"]}
    want = info_nce(whole["query"], whole["key"], query_ids=whole["labels"], **named)
    ids = whole["labels"][own]
    got = info_nce(whole["query"][own], whole["key"][own], query_ids=ids, gather=True, **named)
    labels = {"memory": extra["query"], "memory_labels": extra["labels"]}
    want_labels = sup_con(whole["query"], whole["labels"], **labels)
    got_labels = sup_con(whole["query"][own], ids, gather=True, **labels)
    return max(float(abs(want - got)), float(abs(want_labels - got_labels)))


def test_a_shared_memory_is_met_once():
    assert max(run_ranks(2, remembering, [4, 3])) < 1e-10
