"""How unequally the layers of a linear network weigh the features of its input."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from embedkit._checks import check_finite, check_floating, check_last_dim, check_ndim, check_rows


@torch.no_grad()
def layer_feature_weights(
    weights: Sequence[Float[Tensor, "_ _"]], directions: Float[Tensor, "d f"] | None = None
) -> Float[Tensor, "l f"]:
    """What is left of each feature after each layer:  ||W_l ... W_1 v_f||.

    Gradient descent from a small or balanced start makes deeper layers more unequal: with singular
    values s_f of the whole product, layer l of L carries feature f with weight s_f^(l/L). Where a
    row of the result differs less than the last row does, the layer before the head suits tasks
    that need features which the training task neglects.

    Args:
        weights: matrices (out, in) from first to last layer, as ``torch.nn.Linear`` keeps them.
            Biases and non-linearities have no place here: for other networks compare layers by
            probes and by :func:`spectrum`.
        directions: features as columns, each of length 1. None: the right singular vectors of the
            product, strongest first, when the features are not known.

    Returns:
        (layers, features) in float64.

    Raises:
        ValueError: if there are no weights, a layer does not fit the one before it, or an entry is
            NaN or infinite.
        TypeError: if a tensor is not floating.

    Source: Xue et al. 2024, Investigating the Benefits of Projection Head for Representation
    Learning, feature weights of linear models.

    >>> first, second = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    >>> layer_feature_weights([first, second], torch.eye(2)).tolist()
    [[2.0, 1.0], [4.0, 0.0]]
    """
    if not weights:
        raise ValueError(
            "layer_feature_weights: weights must hold at least one matrix, got none. "
            "Pass [layer.weight for layer in the linear layers], first to last."
        )
    for i, weight in enumerate(weights):
        name = f"weights[{i}]"
        check_floating(name, weight)
        check_ndim(name, weight, "out in")
        check_finite("layer_feature_weights", name, weight)
        if i:
            size = weights[i - 1].shape[0]
            check_last_dim(name, weight, size, f"It takes what weights[{i - 1}] gives.")
    wide = [weight.double() for weight in weights]
    if directions is None:
        product = wide[0]
        for weight in wide[1:]:
            product = weight @ product
        features = torch.linalg.svd(product, full_matrices=False).Vh.mT
    else:
        check_floating("directions", directions)
        check_ndim("directions", directions, "d f")
        check_finite("layer_feature_weights", "directions", directions)
        check_rows("directions", directions, wide[0].shape[1], "Features are columns, not rows.")
        features = directions.double()
    norms = []
    for weight in wide:
        features = weight @ features
        norms.append(features.norm(dim=0))
    return torch.stack(norms)
