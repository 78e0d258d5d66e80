"""The hyperbolic losses in the contract."""

import torch

from embedkit.losses.hyperbolic.embedding import HyperbolicInfoNCELoss
from embedkit.losses.hyperbolic.entailment import EntailmentConeLoss


def points_and_ids(b):
    generator = torch.Generator().manual_seed(0)
    table = 0.3 * torch.rand(7, 3, generator=generator)
    query = 0.3 * torch.rand(b, 3, generator=generator)
    positive = torch.randint(-1, 7, (b, 2), generator=generator)
    return query, table, positive


def parents_and_children(b):
    generator = torch.Generator().manual_seed(0)
    parent, child = torch.randn(2, b, 4, generator=generator)
    return parent, child, torch.arange(b) % 2 == 0


CASES = {
    HyperbolicInfoNCELoss: (HyperbolicInfoNCELoss, points_and_ids),
    EntailmentConeLoss: (lambda: EntailmentConeLoss(margin=3.0), parents_and_children),
}
