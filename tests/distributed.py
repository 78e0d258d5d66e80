"""Several gloo processes for one test."""

import contextlib
import os
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _run(rank, world_size, store, results, function, args):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, world_size),
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    results.put((rank, function(rank, *args)))
    with contextlib.suppress(RuntimeError):  # a test may have let another rank die
        dist.barrier()
    dist.destroy_process_group()


def run_ranks(world_size, function, *args):
    """What ``function(rank, *args)`` returns on every rank, plain values; None from a dead one."""
    with tempfile.TemporaryDirectory() as folder:
        results = mp.get_context("spawn").SimpleQueue()
        context = mp.spawn(
            _run,
            (world_size, f"{folder}/store", results, function, args),
            nprocs=world_size,
            join=False,
        )
        gathered = {}
        while not context.join(timeout=0.1, grace_period=5):
            while not results.empty():
                rank, value = results.get()
                gathered[rank] = value
        while not results.empty():
            rank, value = results.get()
            gathered[rank] = value
    return [gathered.get(rank) for rank in range(world_size)]
