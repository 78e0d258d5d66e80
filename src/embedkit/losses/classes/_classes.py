"""Embeddings against one learned vector per class; no matrix of all cosines is stored."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedkit._checks import (
    check_floating,
    check_integer,
    check_last_dim,
    check_ndim,
    check_rows,
)
from embedkit.ops import accumulation_dtype, normalize
from embedkit.ops.gram import Gram, gram_rows


class Classified(NamedTuple):
    """Rows and class vectors in float32 or wider, who belongs to which, and how close it is.

    Attributes:
        rows: (b, d) embeddings, not normalised.
        classes: (c, d) class vectors, not normalised.
        labels: (b,) the class of each row.
        class_ids: (c,) 0 to c - 1.
        cosine: (b,) of each row with the vector of its own class.
    """

    rows: Float[Tensor, "b d"]
    classes: Float[Tensor, "c d"]
    labels: Int[Tensor, " b"]
    class_ids: Int[Tensor, " c"]
    cosine: Float[Tensor, " b"]


def classified(owner: str, embeddings: Tensor, classes: Tensor, labels: Tensor) -> Classified:
    """Check what fits what, and find each row's own class."""
    check_floating("embeddings", embeddings)
    check_ndim("embeddings", embeddings, "b d")
    check_last_dim("embeddings", embeddings, classes.shape[1], "As wide as the class vectors.")
    check_integer("labels", labels, "Labels number the classes from 0.")
    check_rows("labels", labels, embeddings.shape[0], "One label per row.")
    wide = accumulation_dtype(torch.promote_types(embeddings.dtype, classes.dtype))
    rows, classes = embeddings.to(wide), classes.to(wide)
    try:
        own = classes.index_select(0, labels)
    except (IndexError, RuntimeError) as error:
        low, high = int(labels.min()), int(labels.max())
        if low >= 0 and high < len(classes):
            raise
        raise ValueError(
            f"{owner}: labels must be in 0 to {len(classes) - 1}, one number per class, got "
            f"{low} to {high}. Give as many classes as there are, or renumber the labels."
        ) from error
    cosine = (normalize(rows) * normalize(own)).sum(dim=1)
    class_ids = torch.arange(len(classes), device=labels.device)
    return Classified(rows, classes, labels.long(), class_ids, cosine)


def logsumexp_of_others(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    query_ids: Int[Tensor, " q"],
    key_ids: Int[Tensor, " k"],
    scale: float,
) -> Float[Tensor, " q"]:
    """Logsumexp of scale * cosine over the keys with another id; 0 where there is none.

    Memory is linear in q and k; backward sweeps once more over blocks of rows.
    """
    gram = Gram(
        query=query,
        key=key,
        widths=[query.shape[1]],
        scale=query.new_full((), scale),
        extra=None,
        bias=None,
        query_ids=query_ids,
        key_ids=key_ids,
        row_positive=query.new_zeros(query.shape[0]),
        own=False,
        decoupled=True,
        bound=scale,
    )
    return gram_rows(gram)[0]
