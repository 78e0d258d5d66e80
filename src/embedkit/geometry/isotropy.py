"""Spread embeddings evenly over directions: fit a map to rows, apply it to any rows."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_finite,
    check_floating,
    check_last_dim,
    check_ndim,
    check_positive,
)
from embedkit.ops import accumulation_dtype
from embedkit.ops._precision import full_precision

BLOCK = 8192  # rows that are in float64 at one time


class AffineMap(nn.Module):
    """Rows to  (x - mean) @ matrix,  with both as buffers: fitted once, saved, never trained.

    The ``fit_*`` functions of this file make one from rows. To load a saved one, build it with its
    widths and use ``load_state_dict``; as built it changes nothing.

    Args:
        dim: width of the rows that come in.
        out_features: width of the rows that come out; None: ``dim``.

    Raises:
        ValueError: if a width is below 1, or rows have another.
        TypeError: if rows are not floating.

    >>> spread = fit_whitening(torch.randn(100, 4), n_components=2)
    >>> copy = AffineMap(4, 2)
    >>> copy.load_state_dict(spread.state_dict())
    <All keys matched successfully>
    >>> copy(torch.randn(3, 4)).shape
    torch.Size([3, 2])
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, out_features: int | None = None) -> None:
        super().__init__()
        out_features = dim if out_features is None else out_features
        check_at_least("AffineMap", "dim", dim, 1)
        check_at_least("AffineMap", "out_features", out_features, 1)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim, out_features))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b k"]:
        """Rows (..., d) to (..., k), computed in float32 or wider, in the dtype of the rows."""
        check_floating("x", x)
        check_last_dim(
            "x", x, self.mean.shape[0], "As wide as the rows that the map was fitted to."
        )
        wide = accumulation_dtype(torch.promote_types(x.dtype, self.mean.dtype))
        with full_precision(x):
            return ((x.to(wide) - self.mean) @ self.matrix.to(wide)).to(x.dtype)

    def extra_repr(self) -> str:
        """Both widths."""
        return f"dim={self.matrix.shape[0]}, out_features={self.matrix.shape[1]}"


@torch.no_grad()
def fit_standardization(x: Float[Tensor, "n d"]) -> AffineMap:
    """Each column to mean 0 and standard deviation 1; a column that is constant becomes 0.

    Divides by n, as scikit-learn's StandardScaler. Columns stay as correlated as they were.

    Args:
        x: rows to fit to, at least one.

    Raises:
        ValueError: if there is no row, or rows hold NaN or infinity.
        TypeError: if rows are not floating.

    >>> fit_standardization(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))(torch.tensor([[4.0, 5.0]]))
    tensor([[2., 0.]])
    """
    mean, _, deviation = _moments("fit_standardization", x)
    return _map(x, mean, torch.diag(1.0 / deviation))


@torch.no_grad()
def fit_whitening(
    x: Float[Tensor, "n d"],
    n_components: int | None = None,
    *,
    method: Literal["pca", "zca"] = "pca",
    shrinkage: int | float = 0.0,
    scale: int | float = 1.0,
) -> AffineMap:
    """Decorrelate the rows and give every direction the same variance:  scale * (x - mean) U S^-1.

    U are the first principal directions, S their standard deviations (dividing by n - 1, as
    scikit-learn's PCA), both in float64 from the covariance matrix, which is summed in blocks.

    Directions of tiny variance are mostly noise, and whitening makes them as large as the others:
    where rows fill few of their dimensions, keep fewer components or shrink.

    Args:
        x: rows to fit to, more than ``n_components``.
        n_components: directions kept; None: all.
        method: "pca" gives these components, the largest first; "zca" turns them back, so that
            rows stay as close to what they were as whitening allows, at full width.
        shrinkage: >= 0; this times the mean variance is added to every variance.
        scale: > 0. As targets of :class:`embedkit.losses.PrototypeCrossEntropyLoss` rows need
            about 100, since inner products with bounded vectors are too small at 1.

    Raises:
        ValueError: if settings are out of range, rows hold NaN or infinity, or they have no
            variance in as many directions as are kept (with shrinkage: in none).
        TypeError: if rows are not floating.

    Source: Kessy et al. 2018, Optimal Whitening and Decorrelation, ZCA and PCA whitening; Su et al.
    2021, Whitening Sentence Representations for Better Semantics and Faster Retrieval.
    """
    check_choice("fit_whitening", "method", method, ("pca", "zca"))
    check_positive("fit_whitening", "scale", scale)
    if not shrinkage >= 0:
        raise ValueError(f"fit_whitening: shrinkage must be >= 0, got {shrinkage:g}. Try 0.01.")
    mean, covariance, _ = _moments("fit_whitening", x)
    kept = _components("fit_whitening", n_components, x.shape[1])
    variance, directions = _principal(covariance * (x.shape[0] / max(x.shape[0] - 1, 1)))
    _check_rank("fit_whitening", variance, 1 if shrinkage else kept, ", shrinkage=0.01")
    variance = variance + shrinkage * variance.mean()
    matrix = scale * directions[:, :kept] / variance[:kept].sqrt()
    return _map(x, mean, matrix @ directions[:, :kept].mT if method == "zca" else matrix)


@torch.no_grad()
def fit_all_but_the_top(x: Float[Tensor, "n d"], num_directions: int | None = None) -> AffineMap:
    """Subtract the mean and what lies along the largest principal directions:  (x - mean)(I - UU').

    Common words, lengths and frequencies often fill those directions. Widths stay as they are.

    Args:
        x: rows to fit to, at least one.
        num_directions: how many are removed, below d; 0 centres only. None: d / 100, rounded.

    Raises:
        ValueError: if the number is out of range, or rows hold NaN or infinity.
        TypeError: if rows are not floating.

    Source: Mu and Viswanath 2018, All-but-the-Top: Simple and Effective Postprocessing for Word
    Representations, the postprocessing algorithm.
    """
    mean, covariance, _ = _moments("fit_all_but_the_top", x)
    dim = x.shape[1]
    removed = round(dim / 100) if num_directions is None else num_directions
    if not 0 <= removed < dim:
        raise ValueError(
            f"fit_all_but_the_top: num_directions must be from 0 to {dim - 1}, got {removed}. "
            "A hundredth of the width is usual."
        )
    top = _principal(covariance)[1][:, :removed]
    return _map(x, mean, torch.eye(dim, dtype=top.dtype, device=top.device) - top @ top.mT)


@torch.no_grad()
def fit_ica(
    x: Float[Tensor, "n d"],
    n_components: int | None = None,
    *,
    scale: int | float = 100.0,
    max_iter: int = 1000,
    tol: float = 1e-4,
    seed: int = 42,
) -> AffineMap:
    """Independent components of the standardised rows, each of variance scale^2.

    Standardise columns, then scikit-learn's FastICA with the log-cosh contrast and all components
    at once. It runs on the CPU, in float64; time grows with iterations times n d^2. The result is
    white in any case: what :func:`fit_whitening` warns of holds here, too.

    Args:
        x: rows to fit to, more than d.
        n_components: how many; None: as many as columns.
        scale: > 0; 100 is the paper's, for targets of a softmax over 100,000 entries.
        max_iter: iterations; scikit-learn warns (``ConvergenceWarning``) where they don't suffice.
        tol: change of the unmixing matrix at which to stop.
        seed: of the first unmixing matrix.

    Raises:
        ImportError: where scikit-learn is not installed.
        ValueError: if settings are out of range, rows hold NaN or infinity, or they have no
            variance in as many directions as there are components.
        TypeError: if rows are not floating.

    Source: Hyvarinen and Oja 2000, Independent Component Analysis: Algorithms and Applications;
    Liu 2024, DefSent+: Improving sentence embeddings of language models by projecting definition
    sentences into a quasi-isotropic or isotropic vector space of unlimited dictionary entries, the
    isotropic entry embeddings.
    """
    check_positive("fit_ica", "scale", scale)
    check_at_least("fit_ica", "max_iter", max_iter, 1)
    mean, covariance, deviation = _moments("fit_ica", x)
    kept = _components("fit_ica", n_components, x.shape[1])
    variance, _ = _principal(covariance / deviation[:, None] / deviation)
    _check_rank("fit_ica", variance, kept)
    try:
        from sklearn.decomposition import FastICA  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "fit_ica: FastICA is scikit-learn's, which is not installed. "
            "Use `pip install scikit-learn`, or fit_whitening, which needs nothing."
        ) from error
    rows = ((x.double() - mean) / deviation).cpu().numpy()
    solver = "eigh" if rows.shape[0] >= 50 * rows.shape[1] else "svd"
    ica = FastICA(
        n_components=kept,
        whiten="unit-variance",
        fun="logcosh",
        max_iter=max_iter,
        tol=tol,
        whiten_solver=solver,
        random_state=seed,
    ).fit(rows)
    unmix = torch.from_numpy(ica.components_.T.copy()).to(mean.device)
    return _map(x, mean, scale * unmix / deviation[:, None])


_TINY = torch.finfo(torch.float64).tiny


def _moments(owner: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance (dividing by n) and deviations, 1 for a constant column, in float64."""
    check_ndim("x", x, "n d")
    check_floating("x", x)
    check_at_least(owner, "the number of rows", x.shape[0], 1)
    check_at_least(owner, "the number of columns", x.shape[1], 1)
    check_finite(owner, "x", x)
    count = x.shape[0]
    mean = (
        torch.stack([rows.double().sum(dim=0) for rows in torch.split(x, BLOCK)]).sum(dim=0) / count
    )
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in torch.split(x, BLOCK):
        centred = rows.double() - mean
        covariance.addmm_(centred.mT, centred, alpha=1 / count)
    variance = covariance.diagonal()
    # Rounding of the mean leaves a constant column about this much.
    constant = variance <= (count * torch.finfo(torch.float64).eps * mean.abs()).square()
    return mean, covariance, torch.where(constant, 1.0, variance.clamp(min=_TINY).sqrt())


def _principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Variances, the largest first, and their directions as columns."""
    variance, directions = torch.linalg.eigh(covariance)
    return variance.flip(0).clamp(min=0), directions.flip(1)


def _components(owner: str, wanted: int | None, dim: int) -> int:
    if wanted is not None and not 1 <= wanted <= dim:
        raise ValueError(
            f"{owner}: n_components must be from 1 to {dim}, the width of x, got {wanted}"
        )
    return dim if wanted is None else wanted


def _check_rank(owner: str, variance: Tensor, kept: int, way_out: str = "") -> None:
    """Raise unless the rows vary in as many directions as are kept."""
    least = variance[0] * len(variance) * torch.finfo(torch.float64).eps
    rank = int((variance > least).sum())
    if not rank:
        raise ValueError(
            f"{owner}: rows must differ, got none that do. Fit to a sample of many texts."
        )
    if rank < kept:
        raise ValueError(
            f"{owner}: rows vary in {rank} directions only, too few for {kept}. Pass more "
            f"rows{way_out} or n_components={rank}."
        )


def _map(x: Tensor, mean: Tensor, matrix: Tensor) -> AffineMap:
    """Both in the dtype of the rows, float32 at least, on their device."""
    result = AffineMap(*matrix.shape).to(x.device, accumulation_dtype(x.dtype))
    result.mean.copy_(mean)
    result.matrix.copy_(matrix)
    return result
