"""Embedding losses: the paper's number, a loop over negatives, blocks, recipes, errors."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from geometry.spaces import ball
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_hyperbolic import CASES

from embedkit.geometry import lorentz, poincare
from embedkit.losses import info_nce_from_similarity
from embedkit.losses.hyperbolic import embedding
from embedkit.losses.hyperbolic.embedding import HyperbolicInfoNCELoss, hyperbolic_info_nce
from embedkit.testing import check_module

POINTS = torch.tensor([[0.1, 0.2], [0.0, 0.1], [-0.5, 0.5], [0.6, -0.3]], dtype=torch.float64)
WANT = torch.tensor(0.388638, dtype=torch.float64)


def by_loop(query, table, positive, related, distance, t):
    """Row losses, one logarithm per pair."""
    apart, rows = distance(query, table) / t, []
    for i, wanted in enumerate(positive.tolist()):
        known = {*wanted, *related[i].tolist()}
        others = [-apart[i, w] for w in range(len(table)) if w not in known]
        terms = [
            torch.stack([-apart[i, v], *others]).logsumexp(0) + apart[i, v]
            for v in wanted
            if v >= 0
        ]
        rows.append(torch.stack(terms).mean() if terms else apart.sum() * 0)
    return torch.stack(rows)


def example(seed, b=5, n=9):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.randint(-1, n, (b, 3), generator=generator)
    positive[0] = -1
    return (
        ball(b, 3, seed=seed).requires_grad_(),
        ball(n, 3, seed=seed + 1).requires_grad_(),
        positive,
        torch.randint(-1, n, (b, 2), generator=generator),
    )


def test_hand_number_in_both_models_and_by_every_recipe():
    positive, own = torch.tensor([1]), torch.tensor([[0]])
    got = hyperbolic_info_nce(POINTS[:1], POINTS, positive, related=own)
    torch.testing.assert_close(got, WANT, atol=1e-6, rtol=0)
    p = poincare.poincare_to_lorentz(POINTS)
    same = hyperbolic_info_nce(p[:1], p, positive, related=own, distance=lorentz.pairwise_distance)
    torch.testing.assert_close(same, got)
    # drawn negatives: one row of candidates per anchor, the positive first
    apart = poincare.distance(POINTS[:1, None], POINTS[None, 1:])
    first = torch.tensor([[True, False, False]])
    torch.testing.assert_close(info_nce_from_similarity(-apart, first, temperature=1.0), got)


@given(seed=st.integers(0, 2**31), t=st.floats(0.05, 20), entries=st.sampled_from([1, 20, 2**20]))
def test_equals_the_loop_over_negatives_in_any_blocks(seed, t, entries):
    inputs = example(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_ENTRIES", entries)
        got = hyperbolic_info_nce(*inputs[:3], related=inputs[3], temperature=t, reduction="none")
        weight = torch.linspace(1, 2, len(got), dtype=got.dtype)
        got_gradients = torch.autograd.grad((got * weight).sum(), inputs[:2])
    want = by_loop(*inputs, poincare.pairwise_distance, t)
    torch.testing.assert_close(got, want)
    for a, b in zip(
        got_gradients, torch.autograd.grad((want * weight).sum(), inputs[:2]), strict=True
    ):
        torch.testing.assert_close(a, b)


@given(seed=st.integers(0, 2**31))
def test_padding_repeats_and_the_order_of_ids_change_nothing(seed):
    query, table, positive, related = example(seed)
    want = hyperbolic_info_nce(query, table, positive, related=related)
    padded = torch.cat([related.flip(1), torch.full((5, 2), -1), related, positive], dim=1)
    got = hyperbolic_info_nce(query, table, positive.flip(1), related=padded)
    torch.testing.assert_close(got, want)


@given(seed=st.integers(0, 2**31))
def test_moving_all_points_changes_nothing(seed):
    query, table, positive, related = example(seed)
    shift = ball(1, 3, seed=seed + 2)
    want = hyperbolic_info_nce(query, table, positive, related=related)
    moved = (poincare.mobius_add(shift, x) for x in (query, table))
    got = hyperbolic_info_nce(*moved, positive, related=related)
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)


def test_curvature_and_temperature_learn():
    query, table, positive, _ = example(3)
    c, t = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 0.9))

    def loss(c, t):
        distance = partial(poincare.pairwise_distance, curvature=c)
        return hyperbolic_info_nce(
            query.detach(), table.detach(), positive, distance=distance, temperature=t
        )

    assert torch.autograd.gradcheck(loss, (c, t))


def test_weights_scale_and_the_mean_is_over_queries_with_a_positive():
    query, table, positive, _ = example(4)
    rows = hyperbolic_info_nce(query, table, positive, reduction="none")
    assert rows[0] == 0
    weight = torch.arange(5.0, dtype=torch.float64)
    got = hyperbolic_info_nce(query, table, positive, weight=weight)
    torch.testing.assert_close(got, (rows * weight).sum() / int((positive >= 0).any(1).sum()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e4])
def test_stays_finite(dtype, temperature):
    points = poincare.expmap0(torch.tensor([[0.0], [0.0], [1e-3], [2.0], [-40.0]]).to(dtype))
    points.requires_grad_()
    positive = torch.tensor([[1, 4], [-1, -1], [4, 4], [0, -1], [3, -1]])
    everyone = torch.arange(5).expand(5, 5)
    for related in (None, everyone):
        loss = hyperbolic_info_nce(
            points, points.detach(), positive, related=related, temperature=temperature
        )
        assert loss.isfinite()
        assert loss.dtype == torch.promote_types(dtype, torch.float32)
        assert torch.autograd.grad(loss, points)[0].isfinite().all()
    assert loss == 0  # nobody competes
    points = points.detach().clone()
    points[3] = torch.nan
    assert not hyperbolic_info_nce(points, points, positive).isfinite()


def test_empty_batch_and_no_positives_give_a_connected_zero():
    table = ball(4, 3).requires_grad_()
    for rows in (0, 2):
        ids = torch.full((rows, 2), -1)
        loss = hyperbolic_info_nce(table[:rows], table, ids)
        assert loss == 0
        assert torch.autograd.grad(loss, table)[0].abs().sum() == 0


@pytest.mark.compile
@pytest.mark.parametrize("case", CASES.values(), ids=[c.__name__ for c in CASES])
def test_contract(case):
    check_module(*case)


RUN = """
import sys, torch, pathlib
from embedkit.losses.hyperbolic.embedding import hyperbolic_info_nce

torch.set_num_threads(1)


def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def run(n):
    torch.manual_seed(0)
    x = (torch.rand(n, 4) / 3).requires_grad_()
    loss = hyperbolic_info_nce(x, x, torch.randint(0, n, (n, 3)))
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


run(100)
before = status("VmRSS")
run(int(sys.argv[1]))
print(status("VmHWM") - before)
"""


@pytest.mark.slow
def test_memory_is_linear_in_queries_and_points():
    taken = []
    for n in (6000, 12_000):
        command = [sys.executable, "-c", RUN, str(n)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        taken.append(float(found.stdout))
    assert taken[1] < 12_000**2 * 4 / 2**20 / 4  # MiB: a quarter of one matrix of float32
    assert taken[1] < 1.5 * taken[0] + 20


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"positive": torch.tensor([4])}, ValueError, "positive: expected row numbers of the"),
        ({"related": torch.tensor([[-2]])}, ValueError, r"related: .* or -1 for padding, got -2"),
        ({"positive": torch.tensor([1.0])}, TypeError, "positive: expected integers"),
        ({"positive": torch.tensor([1, 2])}, ValueError, "positive: expected 1 rows"),
        ({"table": POINTS.float()}, TypeError, "table: expected the dtype of query, torch.float64"),
        ({"table": POINTS[:, :1]}, ValueError, "table: expected last axis of size 2"),
        ({"temperature": 0.0}, ValueError, "hyperbolic_info_nce: temperature must be > 0, got 0"),
        ({"weight": torch.ones(3)}, ValueError, r"weight: expected shape \(1,\)"),
        (
            {"distance": lambda x, y: poincare.distance(x, y)},
            ValueError,
            r"distance: expected to give shape \(1, 4\), .* Pass pairwise_distance, not distance",
        ),
    ],
)
def test_bad_arguments_are_explained(change, error, words):
    given_ = {"query": POINTS[:1], "table": POINTS, "positive": torch.tensor([1])} | change
    with pytest.raises(error, match=words):
        hyperbolic_info_nce(**given_)


def test_settings_are_checked_when_made():
    with pytest.raises(ValueError, match="HyperbolicInfoNCELoss: temperature must be > 0, got -1"):
        HyperbolicInfoNCELoss(temperature=-1.0)
