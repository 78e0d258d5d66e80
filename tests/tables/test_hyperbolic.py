"""Any table's vectors as points of the ball."""

import pytest
import torch
from torch import nn

from embedkit.geometry import Curvature, poincare
from embedkit.tables import HyperbolicEmbedding, SubwordEmbedding


@pytest.mark.parametrize(
    ("table", "inputs"),
    [
        (nn.Embedding(9, 3), (torch.tensor([[1, 2], [0, 8]]),)),
        (nn.EmbeddingBag(9, 3), (torch.tensor([1, 2, 3]), torch.tensor([0, 2]))),
        (SubwordEmbedding(9, 3), (torch.tensor([1, 2, 3]), torch.tensor([0, 2]))),
    ],
)
def test_it_is_the_map_of_what_the_table_gives(table, inputs):
    module = HyperbolicEmbedding(table, 0.5)
    want = poincare.expmap0(table(*inputs), curvature=0.5)
    assert module(*inputs).equal(want)
    poincare.check_inside(want, curvature=0.5)


def test_any_optimiser_leaves_points_inside():
    module = HyperbolicEmbedding(nn.Embedding(5, 2), Curvature())
    optimizer = torch.optim.SGD(module.parameters(), lr=100.0)
    for _ in range(5):
        points = module(torch.arange(5))
        optimizer.zero_grad()
        (-poincare.pairwise_distance(points, points, curvature=module.curvature()).sum()).backward()
        optimizer.step()
        module.curvature.clamp_()
        points = module(torch.arange(5))
        assert points.isfinite().all()
        poincare.check_inside(points, curvature=module.curvature())


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(
        TypeError, match=r"table must be a Module, got int. Use HyperbolicEmbedding"
    ):
        HyperbolicEmbedding(9)
    with pytest.raises(ValueError, match=r"HyperbolicEmbedding: curvature must be > 0, got -1"):
        HyperbolicEmbedding(nn.Embedding(2, 2), -1.0)
