"""Node compactness: does a node stay with its positive, whatever edges an augmentation drops?"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import (
    check_choice,
    check_floating,
    check_last_dim,
    check_ndim,
    check_rows,
    check_same_shape,
)
from embedkit.graph._operator import as_operator
from embedkit.graph.adjacency import Adjacency, propagate
from embedkit.graph.contrast.bounds import (
    AdjacencyBounds,
    Interval,
    Relaxation,
    check_bounds,
    interval_gcn,
    interval_product,
    relu_relaxation,
)
from embedkit.graph.propagation.encoder import (
    GCNEncoder,
    check_slope,
    leaky_relu,
    linear_nodes,
)
from embedkit.ops import accumulation_dtype, normalize

Mode = Literal["sampled", "certified", "source_weights"]
MODES: tuple[Mode, ...] = ("sampled", "certified", "source_weights")
_THEORY = (
    "The bounds hold for two plain graph convolutions, each followed by a leaky ReLU; not for "
    "other depths, batch norm, dropout, residuals or attention."
)


def _direction(other: Tensor) -> Tensor:
    """c_v = z_v - mean of z_i over i != v, of unit rows z."""
    rows = other.shape[0]
    if rows == 1:
        raise ValueError(
            "other: expected two nodes or more, got 1. A margin compares a node's own positive "
            "with those of the others."
        )
    unit = normalize(other.to(accumulation_dtype(other.dtype)))
    return (unit * rows - unit.sum(dim=0)) / (rows - 1)


def node_margin(nodes: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """How much closer each node is to its own positive than to the rest on average:  z_v . c_v.

    c_v = y_v - (1 / (n - 1)) sum_{i != v} y_i  with the rows y of the other view at length 1.
    This is the quantity that :func:`node_compactness` bounds from below; report both.

    Args:
        nodes: embeddings of one view, before any projector; they are not scaled.
        other: embeddings of the other view, node by node.

    Returns:
        One number per node, in float32 or wider; only its sign does not depend on scale. Empty
        for no node.

    Raises:
        ValueError: if shapes differ or there is one node only.
        TypeError: if embeddings are not floating.

    Source: Yu et al. 2023, Provable Training for Graph Contrastive Learning, sec. 4.1.

    >>> z = torch.eye(3)
    >>> node_margin(z, z)
    tensor([1., 1., 1.])
    """
    check_floating("nodes", nodes)
    check_floating("other", other)
    check_ndim("other", other, "n d")
    check_same_shape("Row i of both is one node.", nodes=nodes, other=other)
    return (nodes.to(accumulation_dtype(nodes.dtype)) * _direction(other)).sum(dim=1)


def node_compactness(
    nodes: Float[Tensor, "n i"] | Adjacency,
    edges: Adjacency | Tensor,
    other: Float[Tensor, "n d"],
    bounds: AdjacencyBounds,
    weights: Sequence[tuple[Tensor, Tensor | None]],
    *,
    negative_slope: float | Tensor = 0.0,
    mode: Mode = "sampled",
) -> Float[Tensor, " n"]:
    """A lower bound of each node's :func:`node_margin` over a range of edge-dropping views.

    The second layer's units are replaced by lines (:func:`relu_relaxation`), which leaves a linear
    function of the first layer, w_v . (A H)_v + g_v, to be bounded with one of

    - "sampled":  w^+ . (A m P) - w^- . (A m (P + b)) + g  with the first layer's lines at the
      drawn A: a bound of this view's margin, if it lies in the box. The paper's quantity.
    - "certified":  H and A range over their bounds: below the margin of **every** view in the box.
    - "source_weights":  A (A t + b) + g, where t and b come from the lines and the weights w of the
      node that sends a message, not of the one that receives it. The released code's training
      signal. It is no bound of anything, and positive for nearly all nodes of any trained encoder.

    O(e (h + d) + n h d) time and O(n (h + d)) memory: no n x n matrix, nothing per edge.

    Args:
        nodes: features, dense or as an (n, i) adjacency. They must be the same in every view: mask
            none of them.
        edges: the view that was drawn, an adjacency built with ``norm="gcn"`` or PyG's edge_index.
            "certified" reads its size only.
        other: the encoder's embeddings of the other view, before any projector.
        bounds: of :func:`edge_drop_bounds`, of the whole graph, at this view's drop rate.
        weights: (out, in) and (out,) or None of both layers: ``encoder.weights`` of a
            :class:`GCNEncoder`, or ``[(conv.lin.weight, conv.bias), ...]`` of PyG's ``GCNConv``.
        negative_slope: of the leaky ReLU after both layers, in [0, 1); a 0-d tensor is not looked
            at. A slope that is learned goes in detached: the published bound trains weights only.
        mode: see above.

    Returns:
        One number per node, in float32 or wider, also under autocast; empty for no node. Call it
        twice, with the views swapped, for both directions.

    Raises:
        ValueError: if there are not two layers, if the slope is outside [0, 1), if there is one
            node only, or shapes do not fit.
        TypeError: if features or embeddings are not floating.

    Source: Yu et al. 2023, Provable Training for Graph Contrastive Learning, sec. 4.2-4.3 and the
    released code ("source_weights").
    Differs: "sampled" and "certified" bound the second layer over the box and choose a first-layer
    line per receiving node, so that they are bounds; no n x n matrix is stored.

    >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> x = torch.tensor([[1, -1], [0.5, 0.5], [-1, 1]])
    >>> weights = [(torch.tensor([[1, -0.5], [0.5, 1]]), None),
    ...            (torch.tensor([[1, 0.5], [-1, 1]]), None)]
    >>> other = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> from embedkit.graph.contrast.bounds import edge_drop_bounds
    >>> node_compactness(x, path, other, edge_drop_bounds(path, 3, 0.5), weights)
    tensor([ 0.3239,  0.1043, -0.2216])
    """
    check_choice("node_compactness", "mode", mode, MODES)
    check_slope("node_compactness", negative_slope)
    if len(weights) != 2:
        raise ValueError(f"node_compactness: expected 2 layers, got {len(weights)}. {_THEORY}")
    (first, first_bias), (second, second_bias) = weights
    check_last_dim("weight of layer 2", second, first.shape[0], "It follows layer 1.")
    check_floating("other", other)
    check_ndim("other", other, "n d")
    check_last_dim("other", other, second.shape[0], "Embeddings of the same encoder.")
    if not isinstance(nodes, Adjacency):
        check_floating("nodes", nodes)
    with _full_precision(other):
        wide = accumulation_dtype(first.dtype)
        first, second = first.to(wide), second.to(wide)
        b1 = first.new_zeros(()) if first_bias is None else first_bias.to(wide)
        b2 = second.new_zeros(()) if second_bias is None else second_bias.to(wide)
        sent = linear_nodes(nodes if isinstance(nodes, Adjacency) else nodes.to(wide), first)
        view = as_operator("node_compactness", sent, edges, norm="gcn")
        check_rows("other", other, sent.shape[0], "Row i of both views is one node.")
        check_bounds("node_compactness", view, bounds)

        pre = propagate(sent, view) + b1
        low, high = interval_product(Interval(sent, sent), bounds)
        low, high = low + b1, high + b1
        hidden = Interval(leaky_relu(low, negative_slope), leaky_relu(high, negative_slope))
        drawn = leaky_relu(pre, negative_slope)
        layer = interval_gcn(drawn if mode == "source_weights" else hidden, bounds, second)
        lines = relu_relaxation(layer.lower + b2, layer.upper + b2, negative_slope)

        direction = _direction(other).to(wide)
        weight, constant = _backward(direction, lines, b2)
        back = weight @ second
        if mode == "certified":
            lower, upper = interval_product(hidden, bounds)
        else:
            lines = relu_relaxation(low, high, negative_slope)
            if mode == "source_weights":
                weight, moved = _backward(back, lines, b1)
                score = propagate((weight * sent).sum(dim=1, keepdim=True), view) + moved[:, None]
                return propagate(score, view)[:, 0] + constant
            lower = propagate(lines.slope * pre, view)
            upper = propagate(lines.slope * (pre + lines.offset), view)
        return (back.clamp(min=0) * lower + back.clamp(max=0) * upper).sum(dim=1) + constant


def _backward(direction: Tensor, lines: Relaxation, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Least value of direction . s(t + bias) as weight . t + constant: the line by the sign."""
    weight = direction * lines.slope
    shift = torch.where(direction < 0, lines.offset, 0.0)
    return weight, (weight * (shift + bias)).sum(dim=1)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """No autocast, which would round the bounds; the meta device has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class NodeCompactness(nn.Module):
    """:func:`node_compactness` of an encoder that is being trained; it shares its weights.

    A slope that the encoder learns counts as it is, without a gradient.

    Args:
        encoder: a :class:`GCNEncoder` of two layers.
        mode: "source_weights" is the published training signal, "sampled" the sound one that costs
            accuracy when trained, "certified" the one for a certificate.

    Raises:
        TypeError: if ``encoder`` is another Module.
        ValueError: if it has not two layers, or ``mode`` is another.

    >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> from embedkit.graph.contrast.bounds import edge_drop_bounds
    >>> encoder, bounds = GCNEncoder([4, 8, 2]), edge_drop_bounds(path, 3, 0.4)
    >>> x = torch.randn(3, 4)
    >>> NodeCompactness(encoder)(x, path, encoder(x, path), bounds).shape
    torch.Size([3])
    """

    def __init__(self, encoder: GCNEncoder, mode: Mode = "sampled") -> None:
        super().__init__()
        check_choice("NodeCompactness", "mode", mode, MODES)
        if type(encoder) is not GCNEncoder:
            raise TypeError(
                f"NodeCompactness: encoder must be a GCNEncoder, got {type(encoder).__name__}. "
                f"{_THEORY} Hand node_compactness the weights of such an encoder of your own."
            )
        depth = len(encoder.weights)
        if depth != 2:
            raise ValueError(f"NodeCompactness: encoder must have 2 layers, got {depth}. {_THEORY}")
        self.encoder, self.mode = encoder, mode

    def forward(
        self,
        nodes: Tensor | Adjacency,
        edges: Adjacency | Tensor,
        other: Tensor,
        bounds: AdjacencyBounds,
    ) -> Tensor:
        """Features (n, i), a view, and embeddings (n, d) of the other view -> (n,)."""
        slope = self.encoder.slope
        return node_compactness(
            nodes,
            edges,
            other,
            bounds,
            self.encoder.weights,
            negative_slope=slope.detach() if isinstance(slope, Tensor) else slope,
            mode=self.mode,
        )

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"mode={self.mode!r}"
