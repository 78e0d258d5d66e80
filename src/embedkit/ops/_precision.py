"""Matrix products of a loss keep float32 or wider, whatever autocast would choose."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """A context in which autocast leaves products on the device of ``like`` alone."""
    kind = like.device.type
    if not torch.amp.is_autocast_available(kind):  # meta
        return nullcontext()
    off: AbstractContextManager[None] = torch.autocast(kind, enabled=False)
    return off
