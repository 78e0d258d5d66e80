"""Proxy losses: each class has a learned vector, and rows are compared with those alone."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import softplus

from embedkit._checks import check_at_least, check_choice, check_positive
from embedkit.losses._reduce import Reduction
from embedkit.losses.classes._classes import classified, logsumexp_of_others
from embedkit.losses.pairs.contrastive import info_nce
from embedkit.losses.temperature import check_temperature, current

_SCALE = "It multiplies the cosines; the paper takes 32."


def proxy_nca(
    embeddings: Float[Tensor, "b d"],
    proxies: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    temperature: float | Tensor = 1 / 9,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*b"]:
    """Cross-entropy of finding each row's proxy by squared distance of unit vectors.

    Row loss:  -log softmax_c(-|x - p_c|^2 / t)  at the own class, x and p of length 1. Since
    |x - p|^2 = 2 - 2 cos, this is :func:`info_nce` against the proxies with temperature t / 2, in
    memory linear in b and in c.

    Args:
        embeddings: vectors of any length; a zero vector gives log c and gets no gradient.
        proxies: one learned vector per class, of any length.
        labels: integers, 0 to c - 1.
        temperature: in units of the squared distance, > 0; a number or a 0-d tensor.
        reduction: "mean" divides by the number of rows.

    Returns:
        A scalar, or (b,) for "none", in float32 or wider; an empty batch gives 0.

    Raises:
        ValueError: if shapes do not fit, ``temperature`` is not > 0, or a label is out of range
            (on a GPU the device reports that).
        TypeError: if embeddings are not floating or labels not integers.

    Source: Teh et al. 2020, ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component
    Analysis, the proxy assignment probability with low temperature.
    Differs: the original ProxyNCA (Movshovitz-Attias et al. 2017) leaves the own proxy out of the
    denominator; that is :func:`decoupled_contrastive` against the proxies with temperature 0.5.
    pytorch-metric-learning's ``softmax_scale`` is 1 / temperature and starts at 1.
    """
    c = classified("proxy_nca", embeddings, proxies, labels)
    return info_nce(
        c.rows,
        c.classes,
        temperature=temperature / 2,
        query_ids=c.labels,
        key_ids=c.class_ids,
        reduction=reduction,
    )


def proxy_anchor(
    embeddings: Float[Tensor, "b d"],
    proxies: Float[Tensor, "c d"],
    labels: Int[Tensor, " b"],
    *,
    margin: float = 0.1,
    scale: float = 32.0,
) -> Float[Tensor, ""]:
    """Each proxy pulls its rows and pushes the others, the hardest rows most.

    With cosines s of rows x and proxies p, P all proxies and P+ those with a row in the batch:
    mean over p in P+ of  log(1 + sum_{x of p} exp(-scale (s - margin)))  plus
    mean over p in P of  log(1 + sum_{x not of p} exp(scale (s + margin))).
    Memory is linear in b and in c: the b x c cosines are not stored.

    Args:
        embeddings: vectors of any length; a zero vector has cosine 0 and gets no gradient.
        proxies: one learned vector per class, of any length.
        labels: integers, 0 to c - 1.
        margin: in units of the cosine.
        scale: > 0, multiplies the cosines.

    Returns:
        A scalar in float32 or wider; there is no loss per row, so no reduction to choose. An empty
        batch gives 0.

    Raises:
        ValueError: if shapes do not fit, ``scale`` is not > 0, or a label is out of range (on a
            GPU the device reports that).
        TypeError: if embeddings are not floating or labels not integers.

    Source: Kim et al. 2020, Proxy Anchor Loss for Deep Metric Learning, eq. 4.
    """
    check_positive("proxy_anchor", "scale", scale, _SCALE)
    c = classified("proxy_anchor", embeddings, proxies, labels)
    none = c.rows.new_zeros(len(c.classes))
    count = none.index_add(0, c.labels, torch.ones_like(c.cosine.detach()))
    # log(1 + sum exp) with the largest exponent of each class, or the 0 of the one, taken out.
    pull = scale * (margin - c.cosine)
    top = none.scatter_reduce(0, c.labels, pull.detach(), "amax")
    total = (-top).exp().index_add(0, c.labels, (pull - top.index_select(0, c.labels)).exp())
    near = (top + total.log()).sum() / (count > 0).sum().clamp(min=1)
    push = logsumexp_of_others(c.classes, c.rows, c.class_ids, c.labels, scale) + scale * margin
    far = softplus(push, threshold=40.0).masked_fill(count == len(c.rows), 0.0)
    return near + far.sum() / max(len(c.classes), 1)


class ProxyNCALoss(nn.Module):
    """:func:`proxy_nca` with the proxies as its parameter ``proxies`` (num_classes, dim).

    Train them with the model, usually at a higher rate. They start at a length of about 1 in
    random directions; only directions matter.

    Args:
        num_classes: at least 1.
        dim: width of the embeddings.
        temperature: a number > 0, or a Module that gives it (:class:`LearnableTemperature`).
        reduction: "mean", "sum" or "none".

    >>> import torch
    >>> loss = ProxyNCALoss(num_classes=10, dim=4)
    >>> loss(torch.randn(3, 4), torch.tensor([1, 9, 1])).shape
    torch.Size([])
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        temperature: float | nn.Module = 1 / 9,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_at_least("ProxyNCALoss", "num_classes", num_classes, 1)
        check_temperature("ProxyNCALoss", temperature, "1/9")
        check_choice("ProxyNCALoss", "reduction", reduction, ("mean", "sum", "none"))
        self.temperature, self.reduction = temperature, reduction
        self.proxies = nn.Parameter(torch.empty(num_classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new directions."""
        nn.init.normal_(self.proxies, std=max(self.proxies.shape[1], 1) ** -0.5)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (b, dim) with labels (b,)."""
        return proxy_nca(
            embeddings,
            self.proxies,
            labels,
            temperature=current(self.temperature),
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"num_classes={self.proxies.shape[0]}, dim={self.proxies.shape[1]}"


class ProxyAnchorLoss(nn.Module):
    """:func:`proxy_anchor` with the proxies as its parameter ``proxies`` (num_classes, dim).

    Train them with the model; the paper takes 100 times its learning rate for them.

    Args:
        num_classes: at least 1.
        dim: width of the embeddings.
        margin: in units of the cosine.
        scale: > 0, multiplies the cosines.

    >>> import torch
    >>> loss = ProxyAnchorLoss(num_classes=10, dim=4)
    >>> loss(torch.randn(3, 4), torch.tensor([1, 9, 1])).shape
    torch.Size([])
    """

    def __init__(
        self, num_classes: int, dim: int, margin: float = 0.1, scale: float = 32.0
    ) -> None:
        super().__init__()
        check_at_least("ProxyAnchorLoss", "num_classes", num_classes, 1)
        check_positive("ProxyAnchorLoss", "scale", scale, _SCALE)
        self.margin, self.scale = margin, scale
        self.proxies = nn.Parameter(torch.empty(num_classes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new directions."""
        nn.init.normal_(self.proxies, std=max(self.proxies.shape[1], 1) ** -0.5)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings (b, dim) with labels (b,)."""
        return proxy_anchor(embeddings, self.proxies, labels, margin=self.margin, scale=self.scale)

    def extra_repr(self) -> str:
        """What was asked for."""
        classes, dim = self.proxies.shape
        return f"num_classes={classes}, dim={dim}, margin={self.margin:g}, scale={self.scale:g}"
