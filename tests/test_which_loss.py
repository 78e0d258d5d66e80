"""Every call that docs/which-loss.md names exists and gives a finite number."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import embedkit as ek

PAGE = (Path(__file__).parents[1] / "docs" / "which-loss.md").read_text(encoding="utf-8")
NAMES = PAGE.split("## Names")[1]
CALLS = [call for line in NAMES.splitlines() if line.startswith("|") and "$$" not in line
         for call in re.findall(r"`([A-Za-z_.]+\(.*?\))`", line.rsplit(" | ", 1)[1])]  # fmt: skip


def rows():
    x, y = torch.randn(2, 8, 6)
    labels = torch.arange(8) % 4
    score = torch.rand(8)
    return {
        **vars(ek.losses),
        "ek": ek,
        "F": F,
        "torch": torch,
        "t": 0.1,
        "num_classes": 4,
        "dim": 6,
        "labels": labels,
        **dict.fromkeys(("query", "anchor", "image", "a", "embeddings"), x),
        **dict.fromkeys(("key", "text", "b"), y),
        "positive": y,
        "queue": torch.randn(5, 6),
        "log_q": score.log(),
        "score": score,
        "triplets": torch.tensor([[0, 4, 1]]),
        "prototypes": y[:4],
        "proxies": y[:4],
        "cosine": torch.rand(8),
        "preferred": torch.rand(8),
        "other": torch.rand(8),
        "student": torch.rand(8, 3),
        "teacher": torch.rand(8, 3),
        "source": x,
        "target": y,
        "strength": 0.5,
        "discriminator": torch.nn.Linear(6, 1),
        "parent": ek.geometry.lorentz.expmap0(x),
        "child": ek.geometry.lorentz.expmap0(y),
        "points": ek.geometry.poincare.expmap0(x),
        "above": torch.arange(8)[:, None] - 1,
        "own": torch.arange(8)[:, None],
    }


@pytest.mark.parametrize("call", CALLS)
def test_calls_of_the_table_run(call):
    names = rows()
    if "BPRLoss" in call or "MarginMSELoss" in call:  # these take scores
        names |= {"positive": torch.rand(8), "negative": torch.rand(8, 3)}
        names["teacher_margin"] = torch.rand(8, 3)
    if "Conditional" in call:
        joint = ek.heads.JointFeatures(6, num_classes=4)
        names |= {"joint": joint, "discriminator": torch.nn.Linear(joint.out_features, 1)}
        names |= {"source_logits": torch.randn(8, 4), "target_logits": torch.randn(8, 4)}
    found = eval(call, names)
    if isinstance(found, torch.Tensor):
        assert found.isfinite()


def test_the_table_is_read():
    assert len(CALLS) > 30


def test_names_that_are_linked_exist():
    for package, name in re.findall(r"~embedkit\.(\w+)\.(\w+)`", PAGE):
        assert name in getattr(ek, package).__all__
