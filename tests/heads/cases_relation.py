"""Contract cases of heads that score a relation."""

import torch

from embedkit.heads.relation import TransR


def transr_inputs(b):
    return torch.randn(b, 4), torch.randint(0, 3, (b,)), torch.randn(b, 2, 4)


CASES = {TransR: (lambda: TransR(3, 4, 5), transr_inputs)}
