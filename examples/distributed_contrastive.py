"""Contrastive training on several processes that outlives the death of one of them.

The quickstart's model in a loop of its own: every process embeds its share of the batch, meets the
keys of all (``gather=True``), and the gradient is that of one process with the whole batch.

    torchrun --standalone --nproc-per-node 2 --max-restarts 3 \
        examples/distributed_contrastive.py --steps 60 --out out

When a process dies (try ``--kill-at 25``, or ``kill -9`` by hand), torchrun ends the others and
starts all of them anew; they go on from the last checkpoint. All that a step depends on is in there
or follows from (seed, step), so the losses are those of a run that nothing interrupted, bit by bit.
``python examples/distributed_contrastive.py`` is the same with one process.

A process that dies closes its connections, and the others fail at once. One that hangs is noticed
when a collective has waited for ``init_process_group(timeout=...)``: 30 minutes unless you say
otherwise, with TIMEOUT as here. It must be longer than the slowest thing one process does alone:
here the writing of a checkpoint.
"""

import argparse
import json
import os
import signal
import warnings
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from quickstart import DIMS, HERE, Model, Nouns, split
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR

import embedkit as ek

TIMEOUT = timedelta(minutes=2)
TABLE = "words.weight"
# Of a gradient with an axis of size 1, where strides say nothing.
warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


@contextmanager
def process_group():
    """All processes that torchrun started, or this one alone."""
    store, rank, size = dist.HashStore(), 0, 1
    if "RANK" in os.environ:
        store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
        # torchrun keeps one store for all attempts, with the addresses of dead processes in it.
        store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def first(count):
    """The first nouns, with the words of their texts alone, and their (child, parent) pairs."""
    nouns = Nouns()
    nouns.texts, nouns.definitions = nouns.texts[:count], nouns.definitions[:count]
    words = sorted({word for parts in nouns.texts for part in parts for word in split(part)})
    nouns.number = {word: i + 1 for i, word in enumerate(words)}
    pairs = [(i, p) for i, ps in enumerate(nouns.parents[:count]) for p in ps if p < count]
    return nouns, torch.tensor(pairs)


def own_pairs(pairs, step, batch, seed):
    """This process's share of a step's batch: the batch follows from the seed and the step."""
    epoch, place = divmod(step, len(pairs) // batch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(pairs), generator=generator)[place * batch :][:batch]
    return pairs[order].tensor_split(dist.get_world_size())[dist.get_rank()]


def average_sparse(parameter):
    """What DDP does to dense gradients: the mean over processes. Only rows in use travel."""
    grad = parameter.grad.coalesce()
    rows = ek.ops.gather_rows(grad.indices().T.contiguous())  # each process has its own number
    values = ek.ops.gather_rows(grad.values()) / dist.get_world_size()
    parameter.grad = torch.sparse_coo_tensor(
        rows.T, values, parameter.shape, check_invariants=False
    )


def save(path, step, parts, settings):
    """Write to a file beside it, then rename: whenever a process dies, ``path`` is whole."""
    random = ek.ops.gather_rows(torch.get_rng_state()[None])  # one row per process
    if dist.get_rank() == 0:
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"step": step, "random": random, "settings": settings}
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)


def resume(path, parts, settings):
    """Load what there is; the step to go on with."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state["settings"] != settings:
        raise ValueError(
            f"{path}: expected a checkpoint of a run with {settings}, found one with "
            f"{state['settings']}. Go on with the same, or begin in another folder."
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"][dist.get_rank()].clone())  # torch misreads views
    return state["step"]


def rewind(path, step):
    """Forget the losses, a line each, of steps that are going to be done again."""
    lines = path.read_text().splitlines(keepends=True)[:step] if path.is_file() else []
    path.with_suffix(".tmp").write_text("".join(lines))
    os.replace(path.with_suffix(".tmp"), path)


def train(out, steps, *, seed, nouns, batch, save_every, kill_at):
    settings = {"processes": dist.get_world_size(), "steps": steps, "seed": seed}
    settings |= {"nouns": nouns, "batch": batch}
    texts, pairs = first(nouns)
    questions, concepts = texts.questions(), texts.concepts()

    torch.manual_seed(seed)  # the table starts equal everywhere; DDP sees to the rest
    model = Model(texts.number)
    # DDP takes a sparse gradient from nn.Embedding and nn.EmbeddingBag alone, and a dense one would
    # carry all rows in every step. So the table stays out of it: average_sparse.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, [TABLE])
    parallel = DistributedDataParallel(model, forward_sync_buffers=False)
    others = [parameter for name, parameter in model.named_parameters() if name != TABLE]
    table = torch.optim.SparseAdam([model.words.weight], lr=1e-2)
    optimisers = [table, torch.optim.Adam(others, lr=2e-3)]
    schedules = [
        OneCycleLR(o, o.defaults["lr"], total_steps=steps + 1, pct_start=0.1) for o in optimisers
    ]
    contrastive = ek.losses.InfoNCELoss(temperature=0.05, same_id="ignore", gather=True)
    nested = ek.losses.MatryoshkaLoss(contrastive, DIMS)

    parts = {"model": model}
    parts |= {f"optimiser {i}": part for i, part in enumerate(optimisers)}
    parts |= {f"schedule {i}": part for i, part in enumerate(schedules)}
    torch.manual_seed(seed + 1 + dist.get_rank())  # dropout, say, differs between processes
    start = resume(out / "checkpoint.pt", parts, settings)
    leads = dist.get_rank() == 0
    if leads:
        rewind(out / "loss.jsonl", start)
    for step in range(start, steps):
        if step == kill_at and is_victim():
            os.kill(os.getpid(), signal.SIGKILL)
        child, parent = own_pairs(pairs, step, batch, seed).T
        query, key, own = parallel(
            (model.question, *(part[child] for part in questions)),
            (model.concept, *(part[parent] for part in concepts)),
            (model.concept, *(part[child] for part in concepts)),
        )
        # A key with the id of the query's parent is that parent again, from whatever process:
        # no negative. The concept's own text is one.
        ids = torch.cat([parent, child])
        loss = nested(query, torch.cat([key, own]), query_ids=parent, key_ids=ids)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        average_sparse(model.words.weight)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        if leads:
            with (out / "loss.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save(out / "checkpoint.pt", step + 1, parts, settings)


def is_victim():
    """The last process, unless torchrun has started it before."""
    last = dist.get_rank() == dist.get_world_size() - 1
    return last and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


def main(
    steps=60,
    out=HERE / "out" / "distributed",
    *,
    seed=0,
    nouns=10_000,
    batch=256,
    save_every=5,
    kill_at=None,
):
    """Train from the checkpoint in ``out``, if there is one; the losses of all steps."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with process_group():
        train(
            out,
            steps,
            seed=seed,
            nouns=nouns,
            batch=batch,
            save_every=save_every,
            kill_at=kill_at,
        )
        leads, processes = dist.get_rank() == 0, dist.get_world_size()
    losses = [json.loads(line)["loss"] for line in (out / "loss.jsonl").read_text().splitlines()]
    if leads:
        print(f"{processes} processes, {steps} steps: loss {losses[0]:.3f} to {losses[-1]:.3f}")
        print(f"written: {out}/loss.jsonl, checkpoint.pt")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=HERE / "out" / "distributed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nouns", type=int, default=10_000, help="how many to read; 82,115 is all")
    parser.add_argument("--batch", type=int, default=256, help="pairs per step, of all processes")
    parser.add_argument("--save-every", type=int, default=5, help="steps between two checkpoints")
    parser.add_argument("--kill-at", type=int, help="step at which the last process dies, once")
    main(**vars(parser.parse_args()))
