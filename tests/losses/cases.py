"""Losses in the contract."""

import torch
from losses.cases_classics import CASES as CLASSICS
from losses.cases_compactness import CASES as COMPACTNESS
from losses.cases_depth import CASES as DEPTH
from losses.cases_distillation import CASES as DISTILLATION
from losses.cases_domains import CASES as DOMAINS
from losses.cases_few_shot import CASES as FEW_SHOT
from losses.cases_frozen_prototypes import CASES as FROZEN_PROTOTYPES
from losses.cases_hyperbolic import CASES as HYPERBOLIC
from losses.cases_order import CASES as ORDER
from losses.cases_prototype_contrast import CASES as PROTOTYPE_CONTRAST
from losses.cases_recommendation import CASES as RECOMMENDATION
from losses.cases_sdne import CASES as SDNE
from losses.cases_sequence import CASES as SEQUENCE
from losses.cases_spectral import CASES as SPECTRAL

from embedkit.losses import (
    DecoupledContrastiveLoss,
    InfoNCELoss,
    LearnableTemperature,
    MatryoshkaLoss,
    SigmoidContrastiveLoss,
    SupConLoss,
    TripletLoss,
    WeightedInfoNCELoss,
)
from embedkit.mining import SoftNegativeWeight


def pairs(b):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(b, 6, generator=generator), torch.randn(b, 6, generator=generator)


def labelled(b):
    return pairs(b)[0], torch.arange(b) % 2


def mined(b):
    triplets = [[0, 2, 1], [1, 3 % b, 0]] if b > 2 else []
    return pairs(b)[0], torch.tensor(triplets, dtype=torch.long).reshape(-1, 3)


CASES = {
    InfoNCELoss: (lambda: InfoNCELoss(LearnableTemperature(0.5), symmetric=True), pairs),
    SupConLoss: (lambda: SupConLoss(temperature=0.5), labelled),
    DecoupledContrastiveLoss: (lambda: DecoupledContrastiveLoss(temperature=0.5), pairs),
    SigmoidContrastiveLoss: (lambda: SigmoidContrastiveLoss(temperature=0.5, bias=-1.0), pairs),
    WeightedInfoNCELoss: (lambda: WeightedInfoNCELoss(SoftNegativeWeight(6, 3)), pairs),
    TripletLoss: (lambda: TripletLoss(soft=True), mined),
    MatryoshkaLoss: (lambda: MatryoshkaLoss(InfoNCELoss(temperature=0.5), [2, 4, 6]), pairs),
    LearnableTemperature: (
        LearnableTemperature,
        lambda b: (),
        {"empty_batch": "it takes no batch", "moves": "it takes no input"},
    ),
    **CLASSICS,
    **DEPTH,
    **DISTILLATION,
    **FEW_SHOT,
    **FROZEN_PROTOTYPES,
    **ORDER,
    **RECOMMENDATION,
    **SEQUENCE,
    **SPECTRAL,
    **COMPACTNESS,
    **PROTOTYPE_CONTRAST,
    **SDNE,
    **DOMAINS,
    **HYPERBOLIC,
}
