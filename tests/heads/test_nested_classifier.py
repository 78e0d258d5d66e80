import pytest
import torch
import torch.nn.functional as F
from heads.cases_nested_classifier import CASES, rows
from hypothesis import given
from hypothesis import strategies as st

from embedkit.heads.nested_classifier import MatryoshkaClassifier
from embedkit.testing import check_module

BUILD = {
    "mrl": lambda: MatryoshkaClassifier(6, 4, [2, 5]),
    "mrl without bias": lambda: MatryoshkaClassifier(6, 4, [2, 5], bias=False),
    "mrl-e": CASES[MatryoshkaClassifier][0],
    "mrl-e without bias": lambda: MatryoshkaClassifier(6, 4, [6], shared=True, bias=False),
}


@given(
    seed=st.integers(0, 2**31),
    dims=st.lists(st.integers(1, 12), min_size=1, max_size=5, unique=True).map(sorted),
    shared=st.booleans(),
    bias=st.booleans(),
)
def test_all_widths_at_once_equal_a_linear_layer_for_each(seed, dims, shared, bias):
    torch.manual_seed(seed)
    classifier = MatryoshkaClassifier(12, 3, dims, shared=shared, bias=bias).double()
    x = torch.randn(4, 12, dtype=torch.float64)
    want = torch.stack([F.linear(x[:, :dim], *classifier.head(dim)) for dim in dims])
    torch.testing.assert_close(classifier(x), want)
    for dim, logits in zip(dims, want, strict=True):
        torch.testing.assert_close(classifier.at(x, dim), logits)
        torch.testing.assert_close(classifier.at(x[:, :dim], dim), logits)


def test_shared_equals_separate_heads_copied_from_slices():
    shared = MatryoshkaClassifier(8, 5, [2, 4, 8], shared=True)
    separate = MatryoshkaClassifier(8, 5, [2, 4, 8])
    with torch.no_grad():
        for dim in (2, 4, 8):
            for mine, other in zip(separate.head(dim), shared.head(dim), strict=True):
                mine.copy_(other)
    x = torch.randn(3, 8)
    torch.testing.assert_close(separate(x), shared(x))


@pytest.mark.parametrize("shared", [False, True])
def test_each_head_starts_as_a_linear_layer_of_its_width(shared):
    torch.manual_seed(0)
    dims = [4, 400]
    classifier = MatryoshkaClassifier(400, 1000, dims, shared=shared)
    for dim in dims:
        weight, bias = classifier.head(dim)
        bound = (dims[-1] if shared else dim) ** -0.5
        for part in (weight, bias):
            assert 0.98 * bound < part.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_a_coordinate_hears_only_from_the_widths_that_hold_it():
    for shared in (False, True):
        x = torch.randn(3, 6, requires_grad=True)
        MatryoshkaClassifier(6, 4, [2, 5], shared=shared)(x)[0].sum().backward()
        assert (x.grad[:, 2:] == 0).all()
        assert (x.grad[:, :2] != 0).all()


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_contract(build):
    check_module(build, rows, exempt={"compile": "one at a time"})


@pytest.mark.compile
@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_contract_compiled(build):
    names = "state_dict copies gradients autocast empty_batch moves seed"
    check_module(build, rows, exempt=dict.fromkeys(names.split(), "one at a time"))


@pytest.mark.wording
def test_wrong_arguments_teach():
    with pytest.raises(ValueError, match=r"dims go up to 8, but in_features=4. A prefix is no"):
        MatryoshkaClassifier(4, 3, [2, 8])
    with pytest.raises(ValueError, match=r"MatryoshkaClassifier: dims must be positive, different"):
        MatryoshkaClassifier(4, 3, [2, 2])
    with pytest.raises(ValueError, match=r"num_classes must be >= 1, got 0"):
        MatryoshkaClassifier(4, 0, [2])
    classifier = MatryoshkaClassifier(4, 3, [2, 4])
    with pytest.raises(ValueError, match=r"x: expected last axis of size 4, got shape \(2, 5\)"):
        classifier(torch.randn(2, 5))
    with pytest.raises(ValueError, match=r"dim must be one of \(2, 4\), got 3. Other widths have"):
        classifier.at(torch.randn(2, 4), 3)
    with pytest.raises(ValueError, match=r"got shape \(2, 3\). Pass it whole, or cut to 2"):
        classifier.at(torch.randn(2, 3), 2)
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch.int64"):
        classifier(torch.ones(2, 4, dtype=torch.long))
