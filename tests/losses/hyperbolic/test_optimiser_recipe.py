"""A tree in two dimensions: tangent vectors with Adam, ball points with geoopt's Riemannian Adam.

The complete ternary tree of depth 4: 121 nodes, 426 pairs of a node and what lies above it.
"""

import importlib

import pytest
import torch
from torch import nn

from embedkit.geometry import lorentz, poincare
from embedkit.losses.hyperbolic.embedding import hyperbolic_info_nce

NODES, STEPS = 121, 1500


def above(node):
    """A node's parent, its parent's parent, and so on to the root."""
    return [(node - 1) // 3, *above((node - 1) // 3)] if node else []


ANCESTORS = torch.tensor([above(node) + [-1] * (4 - len(above(node))) for node in range(NODES)])
WEIGHT = (ANCESTORS >= 0).sum(dim=1).double()


def loss_of(points, distance):
    own = torch.arange(NODES)[:, None]
    total = hyperbolic_info_nce(
        points,
        points,
        ANCESTORS,
        related=own,
        distance=distance,
        weight=WEIGHT,
        reduction="sum",
    )
    return total / WEIGHT.sum()


def mean_average_precision(points, distance):
    apart = distance(points, points).fill_diagonal_(torch.inf)
    hit = torch.zeros(NODES, NODES + 1).scatter(1, ANCESTORS + 1, 1.0)[:, 1:]
    found = hit.gather(1, apart.argsort(dim=1))[1:]  # the root has no ancestors
    precision = found.cumsum(dim=1) / torch.arange(1, NODES + 1)
    return ((precision * found).sum(dim=1) / found.sum(dim=1)).mean().item()


def train(parameter, points, distance, optimizer):
    """(loss, mAP) at the end; the learning rate falls to 0."""
    most = optimizer.param_groups[0]["lr"]
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = most * (1 - step / STEPS)
        loss = loss_of(points(parameter), distance)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x = points(parameter)
        return loss_of(x, distance).item(), mean_average_precision(x, distance)


def start(dim):
    torch.manual_seed(0)
    return torch.empty(NODES, dim, dtype=torch.float64).uniform_(-1e-3, 1e-3)


def with_tangents(dim):
    v = nn.Parameter(start(dim))
    return train(v, poincare.expmap0, poincare.pairwise_distance, torch.optim.Adam([v], lr=0.01))


def on_the_hyperboloid(dim):
    v = nn.Parameter(start(dim))
    return train(v, lorentz.expmap0, lorentz.pairwise_distance, torch.optim.Adam([v], lr=0.02))


def with_geoopt(dim):
    geoopt = importlib.import_module("geoopt")
    x = geoopt.ManifoldParameter(start(dim), manifold=geoopt.PoincareBall())
    optimizer = geoopt.optim.RiemannianAdam([x], lr=0.03)
    return train(x, lambda x: x, poincare.pairwise_distance, optimizer)


def in_euclidean_space(dim):
    v = nn.Parameter(start(dim))
    return train(v, lambda v: v, torch.cdist, torch.optim.Adam([v], lr=0.03))


@pytest.mark.slow
def test_every_storage_finds_the_tree_and_euclidean_space_does_not():
    tangent, space, ball, flat = (
        run(2) for run in (with_tangents, on_the_hyperboloid, with_geoopt, in_euclidean_space)
    )
    assert min(tangent[1], space[1]) >= 0.9
    assert min(tangent[1], space[1], ball[1]) >= flat[1] + 0.4
    assert max(tangent[0], space[0]) <= ball[0]  # nothing is lost by storing tangent vectors


def test_a_plain_parameter_is_euclidean_to_geoopt():
    geoopt = importlib.import_module("geoopt")
    outside = {}
    for kind in ("plain", "wrapped"):
        x = start(2) + 0.7
        wrapped = geoopt.ManifoldParameter(x, manifold=geoopt.PoincareBall())
        parameter = wrapped if kind == "wrapped" else nn.Parameter(x)
        optimizer = geoopt.optim.RiemannianAdam([parameter], lr=0.5)
        (-parameter.sum()).backward()
        optimizer.step()
        outside[kind] = bool((parameter.detach().norm(dim=1) >= 1).any())
    assert outside == {"plain": True, "wrapped": False}
