"""A small network that learns how much each negative counts."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from embedkit._checks import check_at_least, check_last_dim
from embedkit.ops import accumulation_dtype


class SoftNegativeWeight(nn.Module):
    """Learn the weight of each pair:  w_ij = sigmoid(W2 tanh(W1 (q_i + k_j) + b1) + b2).

    Hand it to :class:`embedkit.losses.WeightedInfoNCELoss`, whose engine asks for the weights of a
    block of queries at a time, and train it with the rest. A loss falls with every weight, so that
    weights as such would all sink to 0; only how they compare within a row says anything. Hence
    each row is divided by its mean, through which the gradient flows.

    Args:
        dim: width of queries and keys.
        hidden: units of the network.
        normalize: divide each row by its mean; False is the authors' code, whose weights are 0
            where the network gives less than about -88 in float32.

    Raises:
        ValueError: if ``dim`` or ``hidden`` is below 1, or rows have another width.

    Source: Yu et al. 2024, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples (AdaMEOW), soft weights.
    Differs: rows are divided by their mean unless ``normalize=False``.

    >>> SoftNegativeWeight(8)(torch.randn(4, 8), torch.randn(5, 8)).mean(dim=1)
    tensor([1.0000, 1.0000, 1.0000, 1.0000], grad_fn=<MeanBackward1>)
    """

    def __init__(self, dim: int, hidden: int = 16, *, normalize: bool = True) -> None:
        super().__init__()
        check_at_least("SoftNegativeWeight", "dim", dim, 1)
        check_at_least("SoftNegativeWeight", "hidden", hidden, 1)
        self.normalize = normalize
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, 1)

    def reset_parameters(self) -> None:
        """Draw both layers anew."""
        self.inner.reset_parameters()
        self.outer.reset_parameters()

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Weights (q, k) of queries (q, d) and keys (k, d), in float32 or wider.

        The sum is taken behind the first layer: r x k x hidden numbers, none of width d.
        """
        check_last_dim("query", query, self.inner.in_features)
        check_last_dim("key", key, self.inner.in_features)
        dtype = self.inner.weight.dtype
        of_query = self.inner(query.to(dtype))
        of_key = linear(key.to(dtype), self.inner.weight)
        units = torch.tanh(of_query[:, None] + of_key)
        logits = linear(units, self.outer.weight, self.outer.bias)[..., 0]
        logits = logits.to(accumulation_dtype(logits.dtype))
        if not self.normalize:
            return logits.sigmoid()
        # In logarithms: a row of weights that are all too small to write down has a mean of 0.
        weight = logsigmoid(logits)
        mean = weight.logsumexp(dim=1, keepdim=True) - math.log(max(key.shape[0], 1))
        return (weight - mean).exp()

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"normalize={self.normalize}"
