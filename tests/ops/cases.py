import torch

from embedkit.ops import GradientReversal

CASES = {
    GradientReversal: (
        lambda: GradientReversal(0.5),
        lambda b: (torch.randn(b, 3),),
        {"gradients": "it is no derivative of its forward"},
    ),
}
