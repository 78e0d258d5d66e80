"""What every public Module promises, whatever it computes."""

import importlib
import pkgutil

import pytest
import torch
from cases import CASES
from torch import nn

import embedkit
from embedkit.testing import CHECKS, check_module


def test_every_public_module_has_a_case():
    packages = [
        importlib.import_module(f"embedkit.{p.name}")
        for p in pkgutil.iter_modules(embedkit.__path__)
    ]
    public = (getattr(p, n) for p in packages for n in getattr(p, "__all__", ()))
    assert {c for c in public if isinstance(c, type) and issubclass(c, nn.Module)} == set(CASES)


def promises():
    for module, (build, inputs, *rest) in CASES.items():
        for check in CHECKS:
            if check not in (rest[0] if rest else {}):
                marks = [pytest.mark.compile] if check == "compile" else []
                yield pytest.param(
                    build, inputs, check, id=f"{module.__name__}-{check}", marks=marks
                )


@pytest.mark.parametrize(("build", "inputs", "check"), list(promises()))
def test_promise(build, inputs, check):
    check_module(build, inputs, exempt={name: "one at a time" for name in CHECKS if name != check})


class Forgetful(nn.Module):
    """Breaks the promise of moving as one: its state is a plain attribute."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.offset = torch.randn(3)

    def forward(self, x):
        return x * self.weight + self.offset


class Divides(nn.Module):
    """Breaks the promise of an empty batch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return (x * self.weight).mean(0)


@pytest.mark.parametrize(
    ("module", "promise"),
    [(Forgetful, "state_dict"), (Divides, "empty_batch")],
)
def test_a_broken_promise_is_named(module, promise):
    with pytest.raises(AssertionError, match=f"{module.__name__} breaks the promise '{promise}'"):
        check_module(module, lambda b: (torch.randn(b, 3),))


@pytest.mark.parametrize("exempt", [{"speed": "it is slow"}, {"compile": ""}])
def test_an_exemption_names_a_check_and_a_reason(exempt):
    with pytest.raises(ValueError, match="exempt must map a check to a reason"):
        check_module(nn.Identity, lambda b: (torch.randn(b, 3),), exempt=exempt)
