"""Rows of unit length, cut at the widths of a Gram matrix, and the way back for their gradient."""

from itertools import pairwise

import torch
from einops import einsum
from torch import Tensor

from embedkit.ops.pairwise import SHORTEST, largest_entry


class UnitRows:
    """Rows times ``scale``, divided by their length where similarities are cosines.

    Attributes:
        parts: one tensor per width, the columns that it adds to the width before.
        factor: (w - 1, n) 1 / length of every unit row's prefix but the whole, 0 for a zero
            prefix; (0, n) where there is nothing to normalise.
    """

    def __init__(
        self, given: Tensor, widths: list[int], cosine: bool, scale: Tensor | None = None
    ) -> None:
        self.columns = [slice(start, stop) for start, stop in pairwise([0, *widths])]
        self.cosine = cosine and given.shape[1] > 0
        self.scale = given.new_ones(()) if scale is None else scale
        self.parts = [given[:, columns] for columns in self.columns]
        self.factor = given.new_zeros(0, given.shape[0])
        if not self.cosine:
            if scale is not None:
                self.parts = [part * scale for part in self.parts]
            return
        # As normalize: each row is first divided by its largest entry.
        largest = largest_entry(given)[:, 0]
        largest.masked_fill_(largest == 0, 1.0)
        self.parts = [part / largest[:, None] for part in self.parts]
        squares = [torch.linalg.vector_norm(part, dim=1).square_() for part in self.parts]
        length = torch.stack(squares).cumsum(dim=0).sqrt_()
        inverse = torch.where(length[-1] * largest < SHORTEST, 0.0, 1.0 / length[-1])
        for part in self.parts:
            part.mul_((inverse * self.scale)[:, None])
        self.inverse = inverse / largest
        ratio = length[:-1] * inverse
        self.factor = torch.where(ratio > SHORTEST, 1.0 / ratio, 0.0)

    def to_given(self, gradient: Tensor, products: Tensor) -> Tensor:
        """Turn ``gradient`` of these rows into the one of the rows given, in place.

        Args:
            gradient: (n, d).
            products: (w - 1, n) gradient of every factor, times the factor.

        Returns:
            (n,) inner products of rows and gradient, whose sum is scale times its gradient.
        """
        pieces = list(zip(self.parts, [gradient[:, c] for c in self.columns], strict=True))
        along = sum(
            (einsum(part, piece, "n d, n d -> n") for part, piece in pieces),
            start=gradient.new_zeros(gradient.shape[0]),
        )
        if not self.cosine:
            gradient.mul_(self.scale)
            return along
        gradient.mul_((self.inverse * self.scale)[:, None])
        # d factor / d prefix = - factor^3 prefix, and what a row gains along itself is lost.
        shares = products * self.factor.square()
        rest = along - products.sum(dim=0)
        for index, (part, piece) in enumerate(pieces):
            share = (rest + shares[index:].sum(dim=0)) * (self.inverse / self.scale)
            piece.addcmul_(part, share[:, None], value=-1.0)
        return along
