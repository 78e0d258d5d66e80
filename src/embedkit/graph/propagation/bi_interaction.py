"""The bi-interaction of NGCF and KGAT: what a node and its neighbours add, and what they share."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_floating, check_last_dim, check_same_shape


def bi_interaction(
    total: Float[Tensor, "n d"],
    product: Float[Tensor, "n d"],
    weight: Float[Tensor, "o d"],
    product_weight: Float[Tensor, "o d"],
    bias: Float[Tensor, " o"] | None = None,
    product_bias: Float[Tensor, " o"] | None = None,
    *,
    negative_slope: float = 0.2,
    joint: bool = False,
) -> Float[Tensor, "n o"]:
    """Mix a sum and an elementwise product of a node with its neighbours, by a map for each.

    Two activations:  LeakyReLU(total W1^T + b1) + LeakyReLU(product W2^T + b2);  ``joint``:  one,
    LeakyReLU(total W1^T + b1 + product W2^T + b2).  With the node e and the weighted sum N of its
    neighbours, KGAT takes total = e + N, product = e * N and two activations; NGCF the same with
    one (``mode="paper"``), or total = N, product = e * N and two (``mode="split"``).

    Args:
        total: what the node and its neighbours add up to, a row for each node.
        product: their elementwise product.
        weight: W1, as in ``nn.Linear``.
        product_weight: W2.
        bias: b1; None: no bias.
        product_bias: b2; None: no bias.
        negative_slope: of the LeakyReLU below 0.
        joint: one activation of the sum, in place of a sum of two.

    Returns:
        One vector per node, in the dtype of ``total``; under autocast the products run in half
        precision.

    Raises:
        ValueError: if shapes don't fit.
        TypeError: if ``total`` or ``product`` is not floating.

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, eq. 3-7; Wang et al. 2019, KGAT:
    Knowledge Graph Attention Network for Recommendation, eq. 8.

    >>> one = torch.ones(1, 1)
    >>> bi_interaction(2 * one, -3 * one, one, one), bi_interaction(one, -2 * one, one, one)
    (tensor([[1.4000]]), tensor([[0.6000]]))
    """
    check_floating("total", total)
    check_floating("product", product)
    check_same_shape("One row of each per node.", total=total, product=product)
    check_same_shape(weight=weight, product_weight=product_weight)
    check_last_dim("total", total, weight.shape[-1], "A layer fits one width: rebuild it.")
    first, second = F.linear(total, weight, bias), F.linear(product, product_weight, product_bias)
    if joint:
        return F.leaky_relu(first + second, negative_slope).to(total.dtype)
    mixed = F.leaky_relu(first, negative_slope) + F.leaky_relu(second, negative_slope)
    return mixed.to(total.dtype)
