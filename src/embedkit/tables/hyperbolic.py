"""A table of points of the Poincaré ball, stored as tangent vectors."""

from torch import Tensor, nn

from embedkit.geometry import poincare
from embedkit.geometry.learnable_curvature import check_curvature, current, described


class HyperbolicEmbedding(nn.Module):
    """Any table's vectors as points of the ball:  exp0(table(ids)).

    The table stores tangent vectors at the origin, so any optimiser trains it, no point ever leaves
    the ball, and the curvature may change. A vector of length l is a point at distance 2 l from the
    origin, so start small: ``nn.Embedding`` draws vectors of length sqrt(dim), at the edge of what
    float32 resolves from dim = 37 on. For points far out compute distances from the vectors
    themselves, ``poincare.tangent_distance(module.table(ids), ...)``.

    Args:
        table: a Module that gives vectors (..., d): ``nn.Embedding``, ``nn.EmbeddingBag``, a table
            of :mod:`embedkit.tables`, or a whole encoder.
        curvature: c > 0 of a space of curvature -c, or a Module that gives it
            (:class:`embedkit.geometry.Curvature`).

    Raises:
        ValueError: if the curvature is not > 0.
        TypeError: if ``table`` is not a Module, or the curvature is a tensor.

    Source: Nickel and Kiela 2017, Poincaré Embeddings for Learning Hierarchical Representations.
    Differs: tangent vectors are stored instead of points, and no Riemannian optimiser is needed.

    >>> table = nn.Embedding(1000, 5)
    >>> _ = nn.init.uniform_(table.weight, -1e-3, 1e-3)
    >>> HyperbolicEmbedding(table)(torch.tensor([3, 7])).shape
    torch.Size([2, 5])
    """

    def __init__(self, table: nn.Module, curvature: float | nn.Module = 1.0) -> None:
        super().__init__()
        if not isinstance(table, nn.Module):
            raise TypeError(
                f"HyperbolicEmbedding: table must be a Module, got {type(table).__name__}. "
                "Use HyperbolicEmbedding(nn.Embedding(num_embeddings, embedding_dim))."
            )
        check_curvature("HyperbolicEmbedding", curvature)
        self.table, self.curvature = table, curvature

    def forward(self, *ids: Tensor) -> Tensor:
        """What the table takes (ids, and offsets where it has them) to points (..., d)."""
        return poincare.expmap0(self.table(*ids), curvature=current(self.curvature))

    def extra_repr(self) -> str:
        """A fixed curvature for ``print``."""
        return described(curvature=self.curvature)
