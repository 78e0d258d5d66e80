"""Domain heads in the contract."""

import torch

from embedkit.heads.domain import DomainDiscriminator, JointFeatures

CASES = {
    DomainDiscriminator: (
        lambda: DomainDiscriminator(3, hidden=[5, 4], num_domains=3),
        lambda b: (torch.randn(b, 3),),
    ),
    JointFeatures: (
        lambda: JointFeatures(3, 2, max_features=5, projected_features=7),
        lambda b: (torch.randn(b, 3), torch.randn(b, 2).softmax(dim=1)),
    ),
}
