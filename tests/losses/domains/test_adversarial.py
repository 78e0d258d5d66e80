"""Domain-adversarial losses: the min-max step, many domains, the conditional form."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from losses.cases_domains import CASES
from torch import nn

from embedkit.heads.domain import DomainDiscriminator, JointFeatures
from embedkit.losses.domains.adversarial import DomainAdversarialLoss, domain_adversarial_loss
from embedkit.losses.domains.conditional import ConditionalDomainAdversarialLoss, entropy_weights
from embedkit.testing import check_module

HERE = (DomainAdversarialLoss, ConditionalDomainAdversarialLoss)


class Total(nn.Module):
    """No discriminator, for it has no logit for each row."""

    def forward(self, x):
        return x.sum()


def test_a_closed_form_step():
    judge = nn.Linear(1, 1, bias=False).double()
    judge.weight.data.fill_(0.5)
    h = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    loss = DomainAdversarialLoss(judge, strength=0.3).double()
    value = loss(h, h.new_empty(0, 1))
    value.backward()
    assert value.item() == pytest.approx(1.313262, abs=1e-6)
    assert h.grad.item() == pytest.approx(-0.109659, abs=1e-6)
    assert judge.weight.grad.item() == pytest.approx(2 * torch.tensor(1.0).sigmoid().item())


@given(seed=st.integers(0, 2**31), ours=st.integers(0, 5), theirs=st.integers(0, 5))
def test_torchs_cross_entropies(seed, ours, theirs):
    torch.manual_seed(seed)
    z = torch.randn(ours + theirs, 1).double()
    domain = torch.arange(ours + theirs).ge(ours).long()
    got = domain_adversarial_loss(z, domain)
    sides = F.binary_cross_entropy_with_logits(z[:, 0], domain.double(), reduction="none")
    want = sum(side.mean() for side in (sides[:ours], sides[ours:]) if len(side))
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=torch.float64))
    many = torch.randn(8, 3).double()
    ids = torch.randint(0, 3, (8,))
    each = F.cross_entropy(many, ids, reduction="none")
    want = sum(each[ids == k].mean() for k in range(3) if (ids == k).any())
    torch.testing.assert_close(domain_adversarial_loss(many, ids), want)


def test_one_step_is_the_explicit_min_max_step():
    torch.manual_seed(0)
    encoder, head = nn.Linear(4, 3).double(), nn.Linear(3, 2).double()
    judge = DomainDiscriminator(3, [5]).double()
    source, target = torch.randn(6, 4).double(), torch.randn(4, 4).double()
    labels = torch.randint(0, 2, (6,))
    a, b = encoder(source), encoder(target)
    task = F.cross_entropy(head(a), labels)
    domain = F.softplus(judge(a)).mean() + F.softplus(-judge(b)).mean()
    of_task = torch.autograd.grad(task, encoder.parameters(), retain_graph=True)
    of_domain = torch.autograd.grad(domain, encoder.parameters(), retain_graph=True)
    want = [t - 0.7 * d for t, d in zip(of_task, of_domain, strict=True)]
    want_judge = torch.autograd.grad(domain, judge.parameters())
    a, b = encoder(source), encoder(target)
    loss = DomainAdversarialLoss(judge, strength=0.7).double()
    total = F.cross_entropy(head(a), labels) + loss(a, b)
    parameters = [*encoder.parameters(), *judge.parameters()]
    got = torch.autograd.grad(total, parameters)
    torch.testing.assert_close(got, (*want, *want_judge), atol=1e-7, rtol=1e-6)


@given(seed=st.integers(0, 2**31), copies=st.integers(2, 4))
def test_a_domain_counts_once_however_many_rows_it_has(seed, copies):
    torch.manual_seed(seed)
    loss = DomainAdversarialLoss(nn.Linear(3, 1))
    source, target = torch.randn(3, 3), torch.randn(5, 3)
    torch.testing.assert_close(loss(source, target), loss(source, target.repeat(copies, 1)))


def test_weights_scale_rows_and_zero_leaves_them_out():
    loss = DomainAdversarialLoss(nn.Linear(3, 1))
    source, target = torch.randn(4, 3), torch.randn(2, 3)
    none, two = torch.zeros(4), torch.full((2,), 2.0)
    alone = loss(source[:0], target)
    torch.testing.assert_close(loss(source, target, weight=(none, two)), 2 * alone)
    torch.testing.assert_close(loss(source, target, weight=(none, None)), alone)
    first = torch.tensor([1.0, 1.0, 0.0, 0.0])
    half = loss(source, target[:0], weight=(first, torch.ones(0)))
    torch.testing.assert_close(half, loss(source[:2], target[:0]) / 2)


def test_rows_of_no_domain_take_no_part():
    z = torch.tensor([[1.0], [torch.nan], [-2.0]], requires_grad=True)
    loss = domain_adversarial_loss(z, torch.tensor([0, -1, 1]))
    torch.testing.assert_close(loss.item(), math.log1p(math.e) + math.log1p(math.exp(2)))
    loss.backward()
    want = [torch.tensor(1.0).sigmoid(), torch.tensor(0.0), -torch.tensor(2.0).sigmoid()]
    torch.testing.assert_close(z.grad[:, 0], torch.stack(want))
    nothing = domain_adversarial_loss(z[:0], torch.zeros(0, dtype=torch.long))
    assert nothing.item() == 0
    nothing.backward()


def test_many_domains_and_their_accuracy():
    judge = nn.Linear(3, 3, bias=False)
    judge.weight.data = 10 * torch.eye(3)
    loss = DomainAdversarialLoss(judge)
    domains = [row.expand(k + 1, 3) for k, row in enumerate(torch.eye(3))]
    assert loss(*domains).item() < 1e-3
    assert loss.accuracy(*domains).item() == 1
    assert loss.accuracy(domains[1], domains[0], domains[2]).item() == pytest.approx(1 / 3)
    same = [torch.zeros(k + 1, 3) for k in range(3)]
    assert loss(*same).item() == pytest.approx(3 * math.log(3))
    two = DomainAdversarialLoss(nn.Linear(3, 2))
    assert two(*same[:2]).isfinite()
    assert two.accuracy(same[0][:0], same[0][:0]).item() == 0


def test_accuracy_leaves_nothing_changed():
    frozen = nn.BatchNorm1d(3).eval()
    judge = nn.Sequential(frozen, nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 1))
    loss = DomainAdversarialLoss(judge)
    x, y = torch.randn(4, 3), torch.randn(5, 3)
    loss(x, y)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    state = torch.get_rng_state()
    got = loss.accuracy(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)
    assert [part.training for part in judge] == [False, True, True, True]
    judge.eval()
    assert got == ((judge(x) <= 0).float().mean() + (judge(y) > 0).float().mean()) / 2
    judge.train()
    with pytest.raises(ValueError, match=r"features of target: expected last axis of size 3"):
        loss.accuracy(x, y[:, :2])
    assert judge.training
    assert loss.accuracy(x, y * torch.nan).isnan()


def test_the_shallow_networks_hand_gradients():
    """The reference algorithm's gradients in numpy, of one source and one target point.

    There the discriminator's step is scaled by the strength as well; here it is not.
    """
    rng, strength, name = np.random.default_rng(0), 0.7, 1
    w, b, v, c = (rng.normal(size=size) for size in ((5, 4), (5, 1), (3, 5), (3, 1)))
    u, d, x, other = (rng.normal(size=size) for size in ((5, 1), (1, 1), (4, 1), (4, 1)))

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    h, g = sigmoid(w @ x + b), sigmoid(w @ other + b)
    scores = np.exp(v @ h + c)
    of_c = scores / scores.sum()
    of_c[name] -= 1
    ours, theirs = sigmoid(u.T @ h + d), sigmoid(u.T @ g + d) - 1  # domain 0, domain 1
    hidden = (v.T @ of_c - strength * ours * u) * h * (1 - h)
    turned = -strength * theirs * u * g * (1 - g)
    want = {
        "hidden.weight": hidden @ x.T + turned @ other.T,
        "hidden.bias": hidden + turned,
        "head.weight": of_c @ h.T,
        "head.bias": of_c,
        "loss.discriminator.weight": (ours * h + theirs * g).T,
        "loss.discriminator.bias": ours + theirs,
    }
    layers = nn.Linear(4, 5), nn.Linear(5, 3), DomainAdversarialLoss(nn.Linear(5, 1), strength)
    net = nn.ModuleDict(dict(zip(("hidden", "head", "loss"), layers, strict=True))).double()
    values = dict(zip(want, (w, b, v, c, u.T, d), strict=True))
    for key, parameter in net.named_parameters():
        parameter.data = torch.from_numpy(values[key]).view_as(parameter).clone()
    h, g = (net["hidden"](torch.from_numpy(point.T)).sigmoid() for point in (x, other))
    (F.cross_entropy(net["head"](h), torch.tensor([name])) + net["loss"](h, g)).backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad.numpy().ravel() == pytest.approx(want[key].ravel()), key


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_extreme_logits_stay_finite(dtype, size):
    z = torch.full((4, 1), size, dtype=dtype, requires_grad=True)
    loss = domain_adversarial_loss(z, torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)


def test_the_strength_changes_in_place():
    loss = DomainAdversarialLoss(nn.Linear(2, 1), 0.0)
    x = torch.randn(3, 2, requires_grad=True)
    loss(x, x[:1]).backward()
    assert x.grad.abs().max() == 0
    loss.set_strength(2.0)
    assert loss.state_dict()["reversal.strength"].item() == 2
    with pytest.raises(ValueError, match=r"strength must be finite"):
        loss.set_strength(math.inf)
    assert loss.reversal.strength.item() == 2


def test_entropy_weights():
    logits = torch.tensor([[0.0, 0.0], [1e4, 0.0], [1.0, 0.0]], dtype=torch.float64)
    p = logits.softmax(1)
    want = 1 + torch.exp(-torch.special.entr(p).sum(1))
    torch.testing.assert_close(entropy_weights(logits), want / want.mean())
    assert want[:2].tolist() == [1.5, 2.0]
    assert entropy_weights(logits.requires_grad_()).requires_grad is False
    assert entropy_weights(logits[:0]).shape == (0,)


@pytest.mark.parametrize("use_entropy", [True, False])
def test_the_conditional_form_by_hand(use_entropy):
    torch.manual_seed(0)
    judge = nn.Linear(6, 1)
    source, target = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    ours, theirs = torch.randn(4, 2, requires_grad=True), torch.randn(5, 2)
    loss = ConditionalDomainAdversarialLoss(judge, JointFeatures(3, 2), 0.5, use_entropy)
    got = loss(source, target, ours, theirs)
    want = 0.0
    for sign, x, z in ((1, source, ours), (-1, target, theirs)):
        p = z.detach().softmax(1)
        w = 1 + torch.exp(-torch.special.entr(p).sum(1)) if use_entropy else torch.ones(len(x))
        each = F.softplus(sign * judge(torch.einsum("bd,bc->bdc", x, p).flatten(1)))[:, 0]
        want = want + (w * each).sum() / w.sum()
    torch.testing.assert_close(got, want)
    (forward,) = torch.autograd.grad(want, source)
    (back,) = torch.autograd.grad(got, source, retain_graph=True)
    torch.testing.assert_close(back, -0.5 * forward)
    assert torch.autograd.grad(got, ours, allow_unused=True) == (None,)
    loss.set_strength(0.0)
    assert loss.adversary.reversal.strength.item() == 0


@pytest.mark.parametrize("use_entropy", [True, False])
def test_the_conditional_form_of_many_domains_with_weights(use_entropy):
    judge, joint = DomainDiscriminator(6, [4], num_domains=3), JointFeatures(3, 2)
    loss = ConditionalDomainAdversarialLoss(judge, joint, 0.5, use_entropy)
    rows = [torch.randn(n, 3) for n in (4, 1, 5)]
    logits = [torch.randn(len(x), 2) for x in rows]
    weight = [torch.rand(4), None, torch.rand(5)]
    joined = [joint(x, z.softmax(1)) for x, z in zip(rows, logits, strict=True)]
    whole = [torch.ones(len(x)) if w is None else w for x, w in zip(rows, weight, strict=True)]
    if use_entropy:
        whole = [w * entropy_weights(z) for w, z in zip(whole, logits, strict=True)]
    want = DomainAdversarialLoss(judge, 0.5)(*joined, weight=whole)
    torch.testing.assert_close(loss(*rows, *logits, weight=weight), want)
    assert loss.accuracy(*rows, *logits) == loss.adversary.accuracy(*joined)
    nothing = loss(*(x[:0] for x in rows), *(z[:0] for z in logits))
    assert nothing.item() == 0


@pytest.mark.parametrize("module", HERE)
def test_contract(module):
    build, inputs, exempt = CASES[module]
    check_module(build, inputs, exempt={**exempt, "compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("module", HERE)
def test_contract_compiled(module):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[module][:2], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    loss = DomainAdversarialLoss(nn.Linear(3, 1))
    x, ids = torch.rand(2, 3), torch.tensor([0, 2])
    with pytest.raises(
        ValueError, match=r"features of two domains or more, one tensor each, got 1"
    ):
        loss(x)
    with pytest.raises(
        TypeError, match=r"features of target: expected a tensor, got NoneType. A domain without"
    ):
        loss(x, None)
    with pytest.raises(ValueError, match=r"features of target: expected last axis of size 3"):
        loss(x, x[:, :2])
    with pytest.raises(TypeError, match=r"features must have one dtype, got torch.float32 and tor"):
        loss(x, x.double())
    with pytest.raises(
        ValueError, match=r"logits: expected last axis of size 3.* of 3 domains cam"
    ):
        loss(x, x, x)
    with pytest.raises(ValueError, match=r"weight: expected 2 tensors, one for each domain, got 1"):
        loss(x, x, weight=(torch.ones(2),))
    with pytest.raises(ValueError, match=r"weight: expected shape \(2,\), one number >= 0 per row"):
        loss(x, x, weight=(torch.ones(3), None))
    with pytest.raises(
        ValueError, match=r"domain: expected numbers from 0 to 1, or -1 .* got 2. Mo"
    ):
        domain_adversarial_loss(x[:, :1], ids)
    with pytest.raises(TypeError, match=r"domain: expected integers, got torch.float32"):
        domain_adversarial_loss(x, ids.float())
    with pytest.raises(ValueError, match=r"domain: expected 2 rows, got shape \(1,\)"):
        domain_adversarial_loss(x, ids[:1])
    with pytest.raises(ValueError, match=r"logits: expected 2 axes \(b, k\), got shape \(\)"):
        DomainAdversarialLoss(Total())(x, x)
    joined = ConditionalDomainAdversarialLoss(nn.Linear(9, 1), JointFeatures(3, 3))
    with pytest.raises(ValueError, match=r"logits of target: expected 2 rows"):
        joined(x, x, x, x[:1])
    with pytest.raises(ValueError, match=r"then class logits of each, got 3 tensors. Call it as"):
        joined(x, x, x)
    for wrong in (x[0], x[None]):
        with pytest.raises(ValueError, match=r"features of source: expected 2 axes \(b, d\), got"):
            joined(wrong, x, x, x)
    with pytest.raises(ValueError, match=r"weight: expected 2 tensors, one for each domain, got 1"):
        joined(x, x, x, x, weight=(torch.ones(2),))
    with pytest.raises(TypeError, match=r"features of target: expected a tensor, got NoneType"):
        joined(x, None, x, x)
