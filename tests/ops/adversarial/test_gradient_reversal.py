import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import grad, hessian, jacfwd, jvp, vmap

from embedkit.ops.adversarial.gradient_reversal import GradientReversal, gradient_reversal


@given(strength=st.floats(-3, 3), upstream=st.floats(-5, 5))
def test_values_stay_and_gradients_turn(strength, upstream):
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    y = gradient_reversal(x, strength)
    y.backward(torch.full_like(y, upstream))
    assert torch.equal(y, x)
    torch.testing.assert_close(x.grad, torch.full_like(x, -strength * upstream))


def test_strengths_multiply_and_minus_one_is_the_identity():
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(gradient_reversal(gradient_reversal(x, 2.0), 3.0).sum(), x)
    assert torch.equal(got, torch.full_like(x, 6.0))
    assert torch.autograd.gradcheck(lambda t: gradient_reversal(t, -1.0).sin(), (x,))


def test_one_step_is_that_of_two_optimisers():
    torch.manual_seed(1)
    encoder, task, critic = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 1)
    x, label, domain = torch.randn(6, 3), torch.randint(0, 2, (6,)), torch.rand(6, 1).round()
    features = encoder(x)
    fits = F.cross_entropy(task(features), label)
    told = F.binary_cross_entropy_with_logits(critic(features), domain)
    want_of_encoder = [
        a - 0.7 * b
        for a, b in zip(
            torch.autograd.grad(fits, encoder.parameters(), retain_graph=True),
            torch.autograd.grad(told, encoder.parameters(), retain_graph=True),
            strict=True,
        )
    ]
    want_of_critic = torch.autograd.grad(told, critic.parameters())
    features = encoder(x)
    loss = F.cross_entropy(task(features), label)
    loss = loss + F.binary_cross_entropy_with_logits(
        critic(gradient_reversal(features, 0.7)), domain
    )
    loss.backward()
    torch.testing.assert_close([p.grad for p in encoder.parameters()], want_of_encoder)
    torch.testing.assert_close([p.grad for p in critic.parameters()], list(want_of_critic))


def test_the_closed_form_of_one_step():
    h = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    F.softplus(0.5 * gradient_reversal(h, 0.3)).backward()
    assert h.grad.item() == pytest.approx(-0.109659, abs=1e-6)


def test_the_second_derivative_is_reversed_again():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (first,) = torch.autograd.grad((gradient_reversal(x, 0.5) ** 3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.tolist() == [-1.5, -6.0, -13.5]
    assert second.tolist() == [1.5, 3.0, 4.5]


def test_function_transforms():
    x = torch.randn(5, 3)
    got = vmap(grad(lambda t: gradient_reversal(t, 2.0).square().sum()))(x)
    torch.testing.assert_close(got, -4 * x)
    each = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])
    got = vmap(grad(lambda t, s: gradient_reversal(t, s).sum()))(x, each)
    torch.testing.assert_close(got, -each[:, None].expand(5, 3))


def test_forward_mode_turns_like_backward():
    x, tangent = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0])
    value, turned = jvp(lambda t: gradient_reversal(t, 0.5), (x,), (tangent,))
    assert torch.equal(value, x)
    assert torch.equal(turned, -0.5 * tangent)
    assert torch.equal(jacfwd(lambda t: gradient_reversal(t, 2.0))(x), -2 * torch.eye(2))
    got = hessian(lambda t: (gradient_reversal(t, 0.5) ** 3).sum())(x)
    assert torch.equal(got, torch.diag(0.25 * 6 * x))


def test_strength_zero_gives_zeros_and_half_precision_stays():
    x = torch.randn(3, dtype=torch.bfloat16, requires_grad=True)
    y = GradientReversal(0.0)(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert not x.grad.any()


def test_what_follows_may_work_in_place():
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    encoder, classifier, critic = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 1)
    found = []
    for in_place in (False, True):
        judge = nn.Sequential(GradientReversal(0.5), nn.LeakyReLU(0.1, inplace=in_place), critic)
        features = encoder(x)
        loss = judge(features).sum() + classifier(features).square().sum()
        found.append(torch.autograd.grad(loss, [*encoder.parameters(), *critic.parameters()]))
    torch.testing.assert_close(found[1], found[0])


def test_a_pass_keeps_the_strength_it_was_made_with():
    reversal, x = GradientReversal(1.0), torch.ones(3, requires_grad=True)
    first = reversal(x).sum()
    reversal.set_strength(0.5)
    (first + reversal(x).sum()).backward()
    reversal.set_strength(0.0)
    assert torch.equal(x.grad, torch.full_like(x, -1.5))


@pytest.mark.compile
def test_one_graph_while_the_strength_changes():
    torch.compiler.reset()
    reversal, x = GradientReversal(1.0), torch.randn(3, requires_grad=True)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(reversal, fullgraph=True, backend=count)
    for strength in (1.0, 0.25, 0.5):
        reversal.set_strength(strength)
        (got,) = torch.autograd.grad(compiled(x).sum(), x)
        assert torch.equal(got, torch.full_like(x, -strength))
    assert len(graphs) == 1


@pytest.mark.compile
def test_numbers_that_change_make_two_graphs():
    def set_and_reverse(x, strength):
        reversal.set_strength(strength)
        return reversal(x)

    reversal, x = GradientReversal(1.0), torch.randn(3, requires_grad=True)
    for function in (gradient_reversal, set_and_reverse):
        torch.compiler.reset()
        graphs = []

        def count(graph, inputs, graphs=graphs):
            graphs.append(graph)
            return graph

        compiled = torch.compile(function, fullgraph=True, backend=count)
        for strength in (1.0, 0.5, 0.25, 0.3, -1.0):
            (got,) = torch.autograd.grad(compiled(x, strength).sum(), x)
            assert torch.equal(got, torch.full_like(x, -strength))
        assert len(graphs) <= 2


def test_the_strength_is_saved():
    saved = GradientReversal(0.3).state_dict()
    other = GradientReversal()
    other.load_state_dict(saved)
    assert other.strength == torch.tensor(0.3)


def test_a_strength_that_is_no_number_leaves_the_old_one():
    reversal = GradientReversal(0.5)
    with pytest.raises(
        ValueError, match=r"strength must be finite in torch.float32, got nan\. 0 to 1 is usual"
    ):
        reversal.set_strength(float("nan"))
    with pytest.raises(ValueError, match=r"finite in torch.float16, got 100000.0"):
        reversal.half().set_strength(1e5)
    assert reversal.strength == 0.5
    with pytest.raises(ValueError, match=r"finite in torch.float16, got 100000.0"):
        gradient_reversal(torch.ones(2, dtype=torch.float16), 1e5)


@pytest.mark.wording
def test_integers_and_a_strength_for_each_row():
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch\.int64"):
        gradient_reversal(torch.arange(3))
    with pytest.raises(ValueError, match=r"a number or a 0-d tensor, got shape \(3,\)"):
        gradient_reversal(torch.ones(3), torch.ones(3))
