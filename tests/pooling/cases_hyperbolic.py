"""Hyperbolic pools in the contract."""

import torch

from embedkit.geometry import Curvature, poincare
from embedkit.pooling import HyperbolicAttentionPool, MidpointPool


def points_and_mask(b):
    generator = torch.Generator().manual_seed(0)
    points = poincare.expmap0(0.4 * torch.randn(b, 5, 4, generator=generator), curvature=0.5)
    return points, torch.rand(b, 5, generator=generator) > 0.3


def attention(score):
    pool = HyperbolicAttentionPool(4, Curvature(0.5), score)
    torch.nn.init.normal_(pool.query, std=0.3)  # away from the origin, where it starts
    return pool


CASES = {
    MidpointPool: (lambda: MidpointPool(Curvature(0.5)), points_and_mask),
    HyperbolicAttentionPool: (lambda: attention("distance"), points_and_mask),
}
