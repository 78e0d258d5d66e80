"""Score a pair of embeddings by a small network, instead of reading both texts together."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_at_least, check_floating, check_last_dim, check_same_shape

Term = Literal["u", "v", "mul", "absdiff"]
TERMS: tuple[Term, ...] = ("u", "v", "mul", "absdiff")
_ENTRIES = 2**22  # of the largest tensor of one block of score_all_pairs


def _check_terms(owner: str, terms: Sequence[Term]) -> tuple[Term, ...]:
    if not terms or isinstance(terms, str) or any(term not in TERMS for term in terms):
        raise ValueError(
            f"{owner}: terms must be some of {', '.join(TERMS)}, got {terms!r}. All four are "
            "usual; ('mul', 'absdiff') does not depend on the order of the two."
        )
    if len(set(terms)) < len(terms):
        raise ValueError(f"{owner}: terms must differ, got {tuple(terms)!r}")
    return tuple(terms)


def pair_features(
    u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"], terms: Sequence[Term] = TERMS
) -> Float[Tensor, "*b t_d"]:
    """What a pair head sees of two embeddings:  [u; v; u * v; abs(u - v)]  or some of these.

    Args:
        u: embeddings, any number of leading axes.
        v: embeddings of the same shape.
        terms: "u", "v", "mul" (u * v) and "absdiff" (abs(u - v), whose gradient is 0 where both
            agree), in the order wanted. ("u", "v", "absdiff") is Sentence-BERT's choice;
            ("mul", "absdiff") is symmetric.

    Returns:
        The terms side by side on the last axis, in the dtype of the inputs.

    Raises:
        ValueError: if shapes differ, or ``terms`` is empty, repeats or names another.
        TypeError: if embeddings are not floating.

    Source: Barkan et al. 2019, Scalable Attentive Sentence-Pair Modeling via Distilled Sentence
    Embedding, the pair features; Reimers and Gurevych 2019, Sentence-BERT, sec. 3.

    >>> pair_features(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0]))
    tensor([ 1.0000, -2.0000,  0.5000,  3.0000,  0.5000, -6.0000,  0.5000,  5.0000])
    """
    check_floating("u", u)
    check_floating("v", v)
    check_same_shape("A pair is one row of each; expand() one side to all of the other.", u=u, v=v)
    make = {"u": lambda: u, "v": lambda: v, "mul": lambda: u * v, "absdiff": lambda: (u - v).abs()}
    return torch.cat([make[term]() for term in _check_terms("pair_features", terms)], dim=-1)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast; the meta device has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class PairHead(nn.Module):
    """Logits of pairs of embeddings: linear layers and ReLUs on :func:`pair_features`.

    Embeddings are made once for each item; what is computed for each pair is this small head.
    Train it against a pairwise teacher (:class:`embedkit.losses.LogitDistillationLoss`) or
    against labels. It runs in the dtype of its weights, also under autocast, since products of
    long embeddings overflow in half precision; the result has the dtype of the input.

    Search by cosine or inner product does not find what a head scores high: score candidates with
    the head itself (:func:`score_all_pairs`), or train the inner product ``(u * v).sum(-1)``.

    Args:
        dim: width of an embedding.
        hidden: widths of the hidden layers; ``()`` makes the head linear.
        out_features: logits per pair: 1 for scores and binary labels, else the number of classes.
        terms: which features, see :func:`pair_features`.
        symmetric: the mean of both orders, so that (u, v) and (v, u) score alike.

    Raises:
        ValueError: if a width is below 1, terms do not fit, or shapes differ.
        TypeError: if embeddings are not floating.

    Source: Barkan et al. 2019, Scalable Attentive Sentence-Pair Modeling via Distilled Sentence
    Embedding, the pair head, with 512 hidden units as in the released code.

    >>> head = PairHead(4, hidden=[8])
    >>> head(torch.randn(3, 4), torch.randn(3, 4)).shape
    torch.Size([3, 1])
    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (512,),
        out_features: int = 1,
        terms: Sequence[Term] = TERMS,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        check_at_least("PairHead", "dim", dim, 1)
        check_at_least("PairHead", "out_features", out_features, 1)
        for width in hidden:
            check_at_least("PairHead", "each width of hidden", width, 1)
        self.dim, self.terms = dim, _check_terms("PairHead", terms)
        self.symmetric = symmetric
        self.widths = (dim * len(self.terms), *hidden, out_features)
        self.layers = nn.ModuleList(
            nn.Linear(wide, narrow) for wide, narrow in pairwise(self.widths)
        )

    def reset_parameters(self) -> None:
        """Give the linear layers torch's own initialisation."""
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(*b, dim) and (*b, dim) -> (*b, out_features)."""
        for name, x in (("u", u), ("v", v)):
            check_floating(name, x)
            check_last_dim(name, x, self.dim, "A head fits one width: rebuild it.")
        check_same_shape("Row i of u and row i of v are a pair.", u=u, v=v)
        with _full_precision(u):
            dtype = self.get_parameter("layers.0.weight").dtype
            a, b = u.to(dtype), v.to(dtype)
            logits = self._top(self.layers[0](pair_features(a, b, self.terms)))
            if self.symmetric:
                swapped = self._top(self.layers[0](pair_features(b, a, self.terms)))
                logits = (logits + swapped) / 2
        return logits.to(u.dtype)

    def _top(self, x: Tensor) -> Tensor:
        """What comes after the first layer."""
        for layer in self.layers[1:]:
            x = layer(x.relu())
        return x

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"dim={self.dim}, terms={self.terms}, symmetric={self.symmetric}"


@torch.no_grad()
def score_all_pairs(
    head: PairHead, query: Float[Tensor, "q d"], key: Float[Tensor, "k d"]
) -> Float[Tensor, "q k c"]:
    """The head's logits of every query with every key, without a tensor of all pair features.

    The first layer is linear in the features, so  W [u; v; u * v; abs(u - v)] = W_u u + W_v v +
    (W_m diag(u)) v + W_d abs(u - v):  the first two are made once for each item, the third is one
    matrix product for each block of queries. Memory beyond the result is that of one block.

    Args:
        head: a :class:`PairHead`.
        query: one side of the pairs.
        key: the other side.

    Returns:
        (q, k, out_features) logits, equal to ``head(u, v)`` for every pair, without gradients.

    Raises:
        ValueError: if a width does not fit the head.
        TypeError: if embeddings are not floating.

    Source: Barkan et al. 2019, Scalable Attentive Sentence-Pair Modeling via Distilled Sentence
    Embedding, the inference on pre-computed embeddings.

    >>> score_all_pairs(PairHead(4), torch.randn(2, 4), torch.randn(5, 4)).shape
    torch.Size([2, 5, 1])
    """
    for name, x in (("query", query), ("key", key)):
        check_floating(name, x)
        check_last_dim(name, x, head.dim, "A head fits one width.")
    first = head.layers[0]
    assert isinstance(first, nn.Linear)
    q, k = query.to(first.weight.dtype), key.to(first.weight.dtype)
    out = q.new_empty(q.shape[0], k.shape[0], head.widths[-1])
    widest = max(head.dim, *head.widths[1:])
    columns = max(1, min(k.shape[0], _ENTRIES // widest))
    rows = max(1, _ENTRIES // (widest * columns))
    for i in range(0, q.shape[0], rows):
        for j in range(0, k.shape[0], columns):
            u, v = q[i : i + rows], k[j : j + columns]
            with _full_precision(u):
                block = head._top(_first_layer(head, first, u, v))
                if head.symmetric:
                    swapped = head._top(_first_layer(head, first, v, u)).transpose(0, 1)
                    block = (block + swapped) / 2
            out[i : i + rows, j : j + columns] = block
    return out.to(query.dtype)


def _first_layer(head: PairHead, layer: nn.Linear, u: Tensor, v: Tensor) -> Tensor:
    """The first layer on all pairs of two blocks, (q, k, h), before its ReLU."""
    parts = dict(zip(head.terms, torch.split(layer.weight, head.dim, dim=1), strict=True))
    x = layer.bias.expand(u.shape[0], v.shape[0], layer.out_features).clone()
    if "u" in parts:
        x += (u @ parts["u"].T)[:, None]
    if "v" in parts:
        x += v @ parts["v"].T
    if "mul" in parts:
        weighted = rearrange(u[:, None] * parts["mul"], "q h d -> d (q h)")
        x += rearrange(v @ weighted, "k (q h) -> q k h", q=u.shape[0])
    if "absdiff" in parts:
        x += (u[:, None] - v).abs() @ parts["absdiff"].T
    return x
