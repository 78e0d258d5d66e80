"""Memories in the contract."""

import torch
from batch.cases_frequency import CASES as FREQUENCY

from embedkit.batch.memory import CrossBatchMemory, MemoryQueue

CONSTANT = {
    "gradients": "its rows are constants",
    "compile": "its rows are constants; test_memory compiles the reading",
    "empty_batch": "it takes no batch",
}


def queue():
    filled = MemoryQueue(5, 3)
    filled.enqueue(torch.randn(4, 3), torch.randint(0, 9, (4,)))
    return filled


def memory():
    filled = CrossBatchMemory(5, 3)
    filled.enqueue(torch.randn(7, 3), torch.randint(0, 9, (7,)), torch.randint(0, 9, (7,)))
    return filled


CASES = {
    MemoryQueue: (queue, lambda b: (), CONSTANT),
    CrossBatchMemory: (memory, lambda b: (), CONSTANT),
    **FREQUENCY,
}
