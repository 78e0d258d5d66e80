import torch

from embedkit.heads import MatryoshkaHead

CASES = {
    MatryoshkaHead: (lambda: MatryoshkaHead(6, dims=[2, 4, 8]), lambda b: (torch.randn(b, 6),)),
}
