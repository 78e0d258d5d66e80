"""From a distance to the probability of an edge."""

from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_floating, check_positive
from embedkit.ops import accumulation_dtype


def fermi_dirac(
    distance: Float[Tensor, "*b"], *, radius: float = 2.0, temperature: float = 1.0
) -> Float[Tensor, "*b"]:
    """Probability that two nodes this far apart are joined:  1 / (exp((d - r) / t) + 1).

    It is one half at distance r. To train, hand  (r - d) / t  to
    ``binary_cross_entropy_with_logits``, which keeps digits that probabilities near 0 and 1 lose.

    Args:
        distance: d >= 0, of any geometry.
        radius: r, where the probability is one half, > 0.
        temperature: t, in units of the distance, > 0: how gradually it falls.

    Returns:
        Probabilities in the dtype of ``distance``.

    Raises:
        ValueError: if ``radius`` or ``temperature`` is not > 0.
        TypeError: if distances are not floating.

    Source: Krioukov et al. 2010, Hyperbolic Geometry of Complex Networks; Nickel and Kiela 2017,
    Poincaré Embeddings for Learning Hierarchical Representations, eq. 8.
    Differs: HGCN's code passes the squared distance; ``distance.square()`` does so here.

    >>> fermi_dirac(torch.tensor([0.0, 2.0, 9.0]))
    tensor([0.8808, 0.5000, 0.0009])
    """
    check_floating("distance", distance)
    check_positive("fermi_dirac", "radius", radius, "2.0 is usual.")
    check_positive("fermi_dirac", "temperature", temperature, "1.0 is usual.")
    wide = distance.to(accumulation_dtype(distance.dtype))
    return ((radius - wide) / temperature).sigmoid().to(distance.dtype)


class FermiDiracDecoder(nn.Module):
    """:func:`fermi_dirac` with its settings.

    Args:
        radius: where the probability is one half, > 0.
        temperature: how gradually it falls, in units of the distance, > 0.

    Raises:
        ValueError: if a setting is not > 0.

    >>> FermiDiracDecoder()(torch.tensor(2.0))
    tensor(0.5000)
    """

    def __init__(self, radius: float = 2.0, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive("FermiDiracDecoder", "radius", radius, "2.0 is usual.")
        check_positive("FermiDiracDecoder", "temperature", temperature, "1.0 is usual.")
        self.radius, self.temperature = radius, temperature

    def forward(self, distance: Tensor) -> Tensor:
        """Distances of any shape to probabilities."""
        return fermi_dirac(distance, radius=self.radius, temperature=self.temperature)

    def extra_repr(self) -> str:
        """Settings for ``print``."""
        return f"radius={self.radius:g}, temperature={self.temperature:g}"
