"""Mining in the contract."""

import torch

from embedkit.mining import SoftNegativeWeight

CASES = {
    SoftNegativeWeight: (
        lambda: SoftNegativeWeight(6, hidden=4),
        lambda b: (torch.randn(b, 6), torch.randn(5, 6)),
    ),
}
