"""Points of every dtype, curvature and radius, and high-precision answers about them."""

import importlib
import itertools

import torch

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
CURVATURES = [1e-3, 0.1, 1.0, 30.0, 1e3]
RADII = [0.0, 1e-20, 1e-6, 0.1, 1.0, 5.0, 12.0, 40.0, 1e3]  # sqrt(c) times the distance
EVERY = list(itertools.product(DTYPES, CURVATURES))


def directions(shape, seed=0, dtype=torch.float64):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x / x.norm(dim=-1, keepdim=True)).to(dtype)


def tangents(curvature, dtype, dim=4, seed=0, radii=RADII):
    """Two rows for each radius: vectors v whose expmap0 lies that far out (beyond it: the edge)."""
    size = torch.tensor(radii, dtype=torch.float64).repeat_interleave(2) / 2 / curvature**0.5
    v = directions((len(size), dim), seed) * size[:, None]
    top = torch.finfo(dtype).max / 8
    return v.clamp(-top, top).to(dtype)


def ball(n, dim, curvature=1.0, reach=0.9, seed=0, dtype=torch.float64):
    """Points with sqrt(c) |x| uniform up to ``reach``."""
    generator = torch.Generator().manual_seed(seed + 1)
    size = torch.rand(n, 1, generator=generator, dtype=torch.float64) * reach / curvature**0.5
    return (directions((n, dim), seed) * size).to(dtype)


def exact_distance(x, y, curvature):
    """Distances of float rows as they are stored, in 60 digits."""
    mpmath = importlib.import_module("mpmath")

    mpmath.mp.dps = 60
    c = mpmath.mpf(curvature)
    result = []
    for a, b in zip(x.double().tolist(), y.double().tolist(), strict=True):
        a, b = [mpmath.mpf(t) for t in a], [mpmath.mpf(t) for t in b]
        gap = [1 - c * sum(t * t for t in v) for v in (a, b)]
        q = c * sum((s - t) ** 2 for s, t in zip(a, b, strict=True)) / (gap[0] * gap[1])
        result.append(2 / mpmath.sqrt(c) * mpmath.asinh(mpmath.sqrt(q)))
    return torch.tensor([float(d) for d in result], dtype=torch.float64)
