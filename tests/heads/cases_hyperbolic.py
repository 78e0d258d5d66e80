"""Hyperbolic heads in the contract."""

import torch
from torch import nn

from embedkit.geometry import Curvature, poincare
from embedkit.heads import (
    BlockDiagonalMobius,
    ExpMap0,
    FermiDiracDecoder,
    HyperbolicActivation,
    HyperbolicMLR,
    HyperbolicPrototypeHead,
    LogMap0,
    MobiusLinear,
    PoincareLinear,
)


def points(b):
    generator = torch.Generator().manual_seed(0)
    return (poincare.expmap0(0.4 * torch.randn(b, 6, generator=generator), curvature=0.5),)


def points_and_prototypes(b):
    generator = torch.Generator().manual_seed(2)
    prototypes = poincare.expmap0(0.4 * torch.randn(3, 6, generator=generator), curvature=0.5)
    return (*points(b), prototypes)


def started(module):
    """Away from zero offsets and the identity, where it starts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return module


CASES = {
    ExpMap0: (ExpMap0, points),
    LogMap0: (LogMap0, points),
    HyperbolicActivation: (
        lambda: HyperbolicActivation(nn.Tanh(), Curvature(0.5), curvature_out=2.0),
        points,
    ),
    BlockDiagonalMobius: (
        lambda: started(BlockDiagonalMobius(6, 3, Curvature(0.5), max_gain=0.8)),
        points,
    ),
    MobiusLinear: (lambda: started(MobiusLinear(6, 4, curvature=Curvature(0.5))), points),
    PoincareLinear: (lambda: started(PoincareLinear(6, 4, curvature=Curvature(0.5))), points),
    HyperbolicMLR: (lambda: started(HyperbolicMLR(6, 3, curvature=Curvature(0.5))), points),
    HyperbolicPrototypeHead: (
        lambda: HyperbolicPrototypeHead(Curvature(0.5), scale=3.0),
        points_and_prototypes,
    ),
    FermiDiracDecoder: (FermiDiracDecoder, lambda b: (torch.arange(float(b)),)),
}
