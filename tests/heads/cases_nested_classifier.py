"""The nested classifier in the contract."""

import torch

from embedkit.heads.nested_classifier import MatryoshkaClassifier


def rows(b):
    return (torch.randn(b, 6, generator=torch.Generator().manual_seed(0)),)


CASES = {MatryoshkaClassifier: (lambda: MatryoshkaClassifier(6, 4, [2, 5], shared=True), rows)}
