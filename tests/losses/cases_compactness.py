"""How to build the loss on node compactness."""

import torch

from embedkit.losses.scores.compactness import POTLoss

CASES = {POTLoss: (POTLoss, lambda b: (torch.linspace(-2, 2, b), torch.linspace(1, -3, b)))}
