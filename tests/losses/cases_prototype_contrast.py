"""ProtoNCE in the contract."""

import torch

from embedkit.losses.classes.prototype_contrast import ProtoNCELoss


def rows(b):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(b, 3, generator=generator), torch.eye(4, 3) + 0.1, torch.arange(b) % 4, 0.5


CASES = {
    ProtoNCELoss: (
        ProtoNCELoss,
        rows,
        {"gradients": "prototypes are constants; its own tests check the rows"},
    )
}
