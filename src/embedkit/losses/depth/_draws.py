"""Which layers and widths a step trains: drawn alike on every rank, and resumed exactly."""

import numpy as np
import torch
from torch import Tensor, nn

from embedkit._checks import check_at_least


class StepDraws(nn.Module):
    """Draws that depend on a seed and on how many were made, and on nothing else.

    Ranks that share the seed and call alike draw alike: no global generator is read, nothing is
    sent. Seed and count are in ``state_dict``, as one small integer tensor.
    """

    def __init__(self, owner: str, seed: int) -> None:
        super().__init__()
        check_at_least(owner, "seed", seed, 0)
        self.seed, self.step = int(seed), 0

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def draw(self, *choices: tuple[int, int]) -> list[list[int]]:
        """For each (population, count) that many different numbers below population, sorted."""
        rng = np.random.default_rng((self.seed, self.step))
        self.step += 1
        return [
            sorted(rng.permutation(population)[:count].tolist()) for population, count in choices
        ]

    def get_extra_state(self) -> Tensor:
        """Seed and count, for ``state_dict``."""
        return torch.tensor([self.seed, self.step], device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Go on where the saved one stopped."""
        self.seed, self.step = (int(value) for value in state.tolist())

    def extra_repr(self) -> str:
        """Where it stands."""
        return f"seed={self.seed}, step={self.step}"
