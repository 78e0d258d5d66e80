"""A table whose rows lie on all processes, and the same vectors and gradients as from one.

``torch.distributed.tensor`` keeps the shards: each process stores its rows, their gradients and
their optimiser state, no more. Tables read their rows by ``F.embedding`` and ``F.embedding_bag``;
inside ``ShardedTables()`` these two fetch rows from the processes that own them, whatever table
calls, be it embedkit's or ``nn.Embedding``. Everything else stays as it was.

    torchrun --standalone --nproc-per-node 2 examples/sharded_table.py
    python examples/sharded_table.py        # one process, one shard

Why not torch's own rule for ``F.embedding``: it has none for bags, and its backward gives every
process the gradient of the whole table.
"""

import argparse
import copy
import json
import os
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

import embedkit as ek

OUT = Path(__file__).parent / "out" / "sharded"
ROWS, BATCH = 5001, 64  # no multiple of the number of processes: the last shard is smaller


# --- The recipe.


def shard(table):
    """Spread the rows of ``table.weight`` over all processes, in blocks."""
    mesh = init_device_mesh(table.weight.device.type, (dist.get_world_size(),))
    table.weight = nn.Parameter(distribute_tensor(table.weight.detach(), mesh, [Shard(0)]))
    return table


def fetch(ids, weight):
    """Rows ``ids`` of a table that is sharded by rows; each process asks for rows of its own.

    All ids go to all processes, each fills in the rows that it has, and a sum over processes brings
    every row to who asked for it. The gradient goes the same way back and is averaged as by DDP.
    """
    group, (size, dim) = weight.device_mesh.get_group(), weight.shape
    most = int(ek.ops.gather_rows(torch.tensor([len(ids)], device=ids.device), group).max())
    asked = ek.ops.gather_rows(F.pad(ids, (0, most - len(ids))), group)
    if ((asked < 0) | (asked >= size)).any():  # on every process, so none is left waiting
        raise IndexError(f"expected ids from 0 to {size - 1}, got {asked.min()} to {asked.max()}")
    own = weight.to_local()
    if own.requires_grad:
        own.register_hook(lambda grad: grad / dist.get_world_size(group))
    first = weight.device_mesh.get_local_rank() * -(-size // dist.get_world_size(group))
    place = ((asked >= first) & (asked < first + len(own))).nonzero()[:, 0]
    rows = F.embedding(asked[place] - first, own)
    rows = own.new_zeros(len(asked), dim).index_copy(0, place, rows)
    total = DTensor.from_local(rows, weight.device_mesh, [Partial()])
    return total.redistribute(placements=[Shard(0)]).to_local()[: len(ids)]


class ShardedTables(TorchFunctionMode):
    """Look-ups inside, in tables that :func:`shard` has spread, fetch from all processes."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in (F.embedding, F.embedding_bag) or not isinstance(args[1], DTensor):
            return function(*args, **kwargs)
        ids, weight = args
        for name in ("padding_idx", "max_norm", "scale_grad_by_freq"):
            if kwargs[name] is not None and kwargs[name] is not False:
                raise ValueError(f"ShardedTables: a sharded table has no {name}; leave it off")
        rows = fetch(ids.flatten(), weight)
        if function is F.embedding:
            return rows.unflatten(0, ids.shape)
        each = torch.arange(len(rows), device=rows.device).reshape(ids.shape)
        # The rows are here now: their gradient is dense, whatever the table asked for.
        return F.embedding_bag(each, rows, **kwargs | {"sparse": False})


# --- Beside one process with the whole table and the whole batch.


class Towers(nn.Module):
    """Who bought what, and what there is to buy, as vectors."""

    def __init__(self, dims):
        super().__init__()
        self.person = nn.Linear(dims["user"] + dims["bought"], 16)
        self.item = nn.Linear(dims["item"], 16)

    def forward(self, vectors):
        person = torch.cat([vectors["user"], vectors["bought"]], dim=1)
        return self.person(person), self.item(vectors["item"])


def batches(step):
    """What each process sees in a step: users, what they bought before, and the next item."""
    generator = torch.Generator().manual_seed(step)
    processes = dist.get_world_size()
    user, item = torch.randint(10**6, (2, BATCH), generator=generator).chunk(2)
    counts = torch.randint(4, (BATCH,), generator=generator)
    bought = torch.randint(10**6, (int(counts.sum()),), generator=generator)
    parts = zip(
        user[0].tensor_split(processes),
        item[0].tensor_split(processes),
        counts.tensor_split(processes),
        strict=True,
    )
    result = []
    for own_user, own_item, own_counts in parts:
        mine, bought = bought[: own_counts.sum()], bought[own_counts.sum() :]
        starts = own_counts.cumsum(0) - own_counts
        result.append({"user": own_user, "item": own_item, "bought": (mine, starts)})
    return result


def join(parts):
    """The batches of all processes as one."""
    before = torch.tensor([0, *(len(part["bought"][0]) for part in parts)]).cumsum(0)
    starts = [part["bought"][1] + n for part, n in zip(parts, before, strict=False)]
    bought = torch.cat([part["bought"][0] for part in parts]), torch.cat(starts)
    return {name: torch.cat([p[name] for p in parts]) for name in ("user", "item")} | {
        "bought": bought
    }


def run(steps):
    """Train both ways; the largest differences, and what a process stores."""
    torch.manual_seed(0)
    table = ek.tables.UnifiedEmbedding({"user": 2, "item": 2, "bought": 1}, ROWS, 8).double()
    towers = Towers(table.embedding_dims).double()
    whole_table, whole_towers = copy.deepcopy(table), copy.deepcopy(towers)
    table, towers = shard(table), DistributedDataParallel(towers)
    optimiser = torch.optim.Adam([*table.parameters(), *towers.parameters()], lr=1e-2)
    whole = torch.optim.Adam([*whole_table.parameters(), *whole_towers.parameters()], lr=1e-2)
    loss = ek.losses.InfoNCELoss(gather=True)
    whole_loss = ek.losses.InfoNCELoss()
    apart = dict.fromkeys(("vectors", "loss", "gradient", "rows"), 0.0)

    def note(name, found, expected):
        apart[name] = max(apart[name], (found - expected).abs().max().item())

    for step in range(steps):
        parts = batches(step)
        with ShardedTables():
            vectors = table(parts[dist.get_rank()])
        value = loss(*towers(vectors))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()

        expected = whole_table(join(parts))
        whole_value = whole_loss(*whole_towers(expected))
        whole.zero_grad()
        whole_value.backward()
        whole.step()

        for name, vector in vectors.items():
            note("vectors", vector, expected[name].tensor_split(len(parts))[dist.get_rank()])
        note("loss", value, whole_value)
        note("gradient", table.weight.grad.full_tensor(), whole_table.weight.grad)
        note("rows", table.weight.full_tensor(), whole_table.weight)

    state = optimiser.state[table.weight]["exp_avg"]
    held = [t.to_local() for t in (table.weight, table.weight.grad, state)]
    return {"apart": apart, "rows held": [len(t) for t in held], "rows": ROWS}


@contextmanager
def process_group():
    """All processes that torchrun started, or this one alone."""
    if "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def main(steps=20, out=OUT):
    """Train both ways, and write how far they are apart to ``out``."""
    with process_group():
        result = run(steps)
        if dist.get_rank() == 0:
            out = Path(out)
            out.mkdir(parents=True, exist_ok=True)
            (out / "sharded_table.json").write_text(json.dumps(result, indent=1) + "\n")
            print(f"rows of weight, gradient, Adam's mean here: {result['rows held']} of {ROWS}")
            print(f"apart from one process, at most: {result['apart']}")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=OUT)
    main(**vars(parser.parse_args()))
