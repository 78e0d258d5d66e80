"""Domain discriminators, and features joined with classes."""

import pytest
import torch
from heads.cases_domain import CASES
from torch.nn.utils import parametrizations, prune

from embedkit.heads.domain import DomainDiscriminator, JointFeatures
from embedkit.testing import check_module


def test_it_is_a_sequence_of_layers():
    head = DomainDiscriminator(2, hidden=[7, 5], num_domains=3, dropout=0.5).eval()
    first, second, third = head.layers
    x = torch.randn(6, 2)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU(), third)
    torch.testing.assert_close(head(x), network(x))
    assert not torch.equal(head.train()(x), head(x))
    linear = DomainDiscriminator(2, hidden=())
    torch.testing.assert_close(linear(x), linear.layers[0](x))


@pytest.mark.parametrize(
    "change",
    [
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ],
)
def test_layers_may_be_normalised_or_pruned(change):
    def build():
        torch.manual_seed(0)
        head = DomainDiscriminator(3, hidden=[4])
        change(head.layers[0])
        return head

    head, want, x = build(), build(), torch.randn(5, 3)
    torch.testing.assert_close(head(x), want.layers[1](want.layers[0](x).relu()))
    # One power iteration, not two.
    torch.testing.assert_close(dict(head.named_buffers()), dict(want.named_buffers()))
    assert head(x.half()).dtype == torch.float16


def test_widths_are_the_papers():
    assert DomainDiscriminator(4).widths == (4, 1024, 1024, 1)
    assert DomainDiscriminator(4, num_domains=5).widths == (4, 1024, 1024, 5)
    before = DomainDiscriminator(4, hidden=[3])
    torch.manual_seed(1)
    want = [torch.nn.Linear(a, b).weight for a, b in ((4, 3), (3, 1))]
    torch.manual_seed(1)
    before.reset_parameters()
    torch.testing.assert_close([layer.weight for layer in before.layers], want)


def test_half_precision_stays():
    x = torch.randn(3, 4)
    head = DomainDiscriminator(4, hidden=[8])
    assert head(x.half()).dtype == torch.float16
    torch.testing.assert_close(head(x.half()).float(), head(x), rtol=1e-2, atol=1e-2)
    joint = JointFeatures(4, 2)
    assert joint(x.bfloat16(), torch.rand(3, 2)).dtype == torch.bfloat16


def test_outer_products():
    f, p = torch.randn(5, 3), torch.randn(5, 4).softmax(dim=1)
    joint = JointFeatures(3, 4)
    assert joint.out_features == 12
    torch.testing.assert_close(joint(f, p), torch.einsum("bd,bc->bdc", f, p).reshape(5, 12))
    assert not joint.state_dict()


def test_a_random_projection_keeps_inner_products():
    f, p = torch.randn(6, 5).double(), torch.randn(6, 3).double().softmax(dim=1)
    exact = JointFeatures(5, 3)(f, p)
    wide = JointFeatures(5, 3, max_features=14, projected_features=200_000).double()
    assert wide.out_features == 200_000
    near = wide(f, p)
    torch.testing.assert_close(near @ near.T, exact @ exact.T, rtol=0.1, atol=0.1)


def test_projections_are_drawn_by_a_generator_and_anew():
    def build():
        generator = torch.Generator().manual_seed(3)
        return JointFeatures(5, 3, max_features=4, projected_features=8, generator=generator)

    state = torch.get_rng_state()
    first, again = build(), build()
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first.state_dict(), again.state_dict())
    with torch.device("meta"):
        late = JointFeatures(5, 3, max_features=4, projected_features=8)
    late = late.to_empty(device="cpu")
    late.reset_parameters(torch.Generator().manual_seed(3))
    torch.testing.assert_close(late.state_dict(), first.state_dict())
    JointFeatures(5, 3).reset_parameters()


def test_where_it_projects():
    assert JointFeatures(64, 64).out_features == 4096
    assert JointFeatures(64, 65).out_features == 1024
    assert JointFeatures(64, 65, projected_features=30).state_dict().keys() == {
        "feature_matrix",
        "class_matrix",
    }
    assert "projected=True" in repr(JointFeatures(64, 65))


@pytest.mark.parametrize("module", CASES)
def test_contract(module):
    check_module(*CASES[module], exempt={"compile": "below"})
    if module is JointFeatures:
        check_module(lambda: JointFeatures(3, 2), CASES[module][1], exempt={"compile": "below"})


@pytest.mark.compile
@pytest.mark.parametrize("module", CASES)
def test_contract_compiled(module):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(*CASES[module], exempt=dict.fromkeys(names.split(), "above"))


@pytest.mark.wording
def test_errors_teach():
    x = torch.rand(2, 3)
    with pytest.raises(TypeError, match=r"DomainDiscriminator: hidden must list widths, got 16"):
        DomainDiscriminator(8, 16)
    with pytest.raises(ValueError, match=r"features: expected last axis of size 4, got shape \(2,"):
        DomainDiscriminator(4)(x)
    with pytest.raises(TypeError, match=r"features: expected a floating-point tensor"):
        DomainDiscriminator(3)(x.long())
    with pytest.raises(
        ValueError, match=r"num_domains must be >= 2, got 1. One domain has nothing"
    ):
        DomainDiscriminator(3, num_domains=1)
    with pytest.raises(ValueError, match=r"each width of hidden must be >= 1, got 0"):
        DomainDiscriminator(3, hidden=[0])
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1. Try 0.5"):
        DomainDiscriminator(3, dropout=1)
    with pytest.raises(ValueError, match=r"JointFeatures: num_classes must be >= 2, got 1"):
        JointFeatures(3, 1)
    with pytest.raises(ValueError, match=r"probabilities: expected last axis of size 4"):
        JointFeatures(3, 4)(x, x)
    with pytest.raises(
        ValueError, match=r"features: expected 2 axes \(b, d\), got shape \(1, 2, 3"
    ):
        JointFeatures(3, 3)(x[None], x)
    with pytest.raises(ValueError, match=r"probabilities: expected 2 rows, got shape \(1, 3\)"):
        JointFeatures(3, 3)(x, x[:1])
