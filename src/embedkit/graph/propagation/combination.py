"""What all layers of a propagation add up to, and a table whose ids speak for their neighbours."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedkit._checks import check_floating, check_rows, check_same_shape
from embedkit.graph.adjacency import Adjacency
from embedkit.ops import accumulation_dtype, normalize


def combine_layers(
    layers: Sequence[Float[Tensor, "n _d"]],
    how: Literal["mean", "concat"] | Sequence[float] = "mean",
    *,
    normalize_layers: bool = False,
) -> Float[Tensor, "n o"]:
    """One vector per node from its vectors in all layers, the table's own (layer 0) first.

    "mean":  sum_k E_k / (K + 1);  weights a:  sum_k a_k E_k;  "concat":  [E_0, E_1, ..., E_K].
    NGCF concatenates, with ``normalize_layers``, LightGCN takes the mean. An inner product of
    concatenated vectors is the sum of the inner products in each layer.

    Args:
        layers: (n, d) each; widths may differ for "concat".
        how: "mean", "concat", or one weight per layer, which need not add up to 1.
        normalize_layers: rows of all layers but the first are scaled to length 1, zero rows stay.

    Returns:
        (n, d), or (n, sum of widths) for "concat", in the dtype of the layers; half precision is
        added up in float32.

    Raises:
        ValueError: without layers, if their shapes differ where they are added, or if there is not
            one weight per layer.
        TypeError: if a layer is not floating.

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, eq. 9 ("concat"); He et al.
    2020, LightGCN, eq. 4 ("mean", weights).
    Differs: NGCF's text does not normalise; its released code does, all layers but the first.

    >>> combine_layers([torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])])
    tensor([[1., 2.]])
    """
    if not layers:
        raise ValueError("combine_layers: expected at least one layer, got none")
    for place, layer in enumerate(layers):
        check_floating(f"layers[{place}]", layer)
        check_rows(f"layers[{place}]", layer, layers[0].shape[0], "Every layer has all nodes.")
    if normalize_layers:
        layers = [layers[0], *map(normalize, layers[1:])]
    weights = _check_how(how)
    if weights is None:
        if how == "concat":
            return torch.cat(list(layers), dim=-1)
        weights = [1 / len(layers)] * len(layers)
    if len(weights) != len(layers):
        raise ValueError(
            f"combine_layers: expected one weight for each of {len(layers)} layers (the table "
            f"counts as one), got {len(weights)}"
        )
    names = {f"layers[{place}]": layer for place, layer in enumerate(layers)}
    check_same_shape('Layers of different widths fit together with "concat".', **names)
    # A running sum, so that no stack of all layers is made.
    wide = accumulation_dtype(layers[0].dtype)
    total = weights[0] * layers[0].to(wide)
    for weight, layer in zip(weights[1:], layers[1:], strict=True):
        total = total + weight * layer.to(wide)
    return total.to(layers[0].dtype)


def _check_how(how: str | Sequence[float]) -> list[float] | None:
    """The weights; None where there are none."""
    if not isinstance(how, str):
        return [float(weight) for weight in how]
    if how not in ("mean", "concat"):
        raise ValueError(
            f'combine_layers: how must be "mean", "concat" or one weight per layer, got {how!r}'
        )
    return None


class LayerCombination(nn.Module):
    """:func:`combine_layers` with its settings.

    Args:
        how: "mean", "concat", or one fixed weight per layer, the table's own first.
        normalize_layers: rows of all layers but the first are scaled to length 1.

    Raises:
        ValueError: if ``how`` is something else.

    >>> LayerCombination("concat")([torch.randn(3, 4), torch.randn(3, 2)]).shape
    torch.Size([3, 6])
    """

    def __init__(
        self,
        how: Literal["mean", "concat"] | Sequence[float] = "mean",
        normalize_layers: bool = False,
    ) -> None:
        super().__init__()
        weights = _check_how(how)
        self.how = how if weights is None else weights
        self.normalize_layers = normalize_layers

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """K + 1 tensors (n, d) -> (n, d), or (n, sum of widths) for "concat"."""
        return combine_layers(layers, self.how, normalize_layers=self.normalize_layers)

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"{self.how!r}, normalize_layers={self.normalize_layers}"


class PropagatedEmbedding(nn.Module):
    """A table, passed along a graph by layers, and combined: the vectors of all nodes at once.

    E_0 is the table, E_k = convs[k-1](E_{k-1}, graph), the result combination([E_0, ..., E_K]).
    Three :class:`LightGCNConv` and a mean are LightGCN; three :class:`NGCFConv` and
    ``LayerCombination("concat", normalize_layers=True)`` are NGCF; no layers, and it is matrix
    factorisation.

    One call serves a whole batch, so large batches are cheap. There is no cache that could grow
    stale: for evaluation call it once under ``torch.no_grad()`` in ``eval()`` mode, and keep what
    it gives for as long as no weight changes.

    Args:
        table: ``nn.Embedding``, or any Module from ids to vectors; it is asked for all ids, 0 to
            num_nodes - 1.
        convs: layers ``conv(nodes, edges, edge_weight)``, ours or PyG's.
        combination: of K + 1 layers. None: their mean.
        num_nodes: None: the table's ``num_embeddings``.

    Raises:
        ValueError: if the table does not say how many nodes there are.

    Source: Wang et al. 2019, Neural Graph Collaborative Filtering, section 2; He et al. 2020,
    LightGCN, section 3.1.

    >>> from embedkit.graph import bipartite_adjacency
    >>> from embedkit.graph.propagation.lightgcn import LightGCNConv
    >>> adjacency = bipartite_adjacency(torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 2)
    >>> PropagatedEmbedding(nn.Embedding(3, 4), [LightGCNConv()] * 3)(adjacency).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        table: nn.Module,
        convs: Iterable[nn.Module],
        combination: nn.Module | None = None,
        num_nodes: int | None = None,
    ) -> None:
        super().__init__()
        size = num_nodes if num_nodes is not None else getattr(table, "num_embeddings", None)
        if not isinstance(size, int):
            raise ValueError(
                f"PropagatedEmbedding: {type(table).__name__} has no num_embeddings, so say how "
                "many nodes there are: num_nodes=..."
            )
        self.num_nodes, self.table, self.convs = size, table, nn.ModuleList(convs)
        self.combination = LayerCombination() if combination is None else combination

    def forward(self, edges: Adjacency | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """A graph of all nodes -> (num_nodes, d) vectors.

        ``edges`` is an adjacency, or PyG's ``edge_index`` with its weights: then each layer makes
        an operator of it at every call.
        """
        layers = [self._nodes(edges.col.device if isinstance(edges, Adjacency) else edges.device)]
        for conv in self.convs:
            weights = () if edge_weight is None else (edge_weight,)
            layers.append(conv(layers[-1], edges, *weights))
        combined: Tensor = self.combination(layers)
        return combined

    def _nodes(self, device: torch.device) -> Tensor:
        """All rows of the table; of a plain one without a copy."""
        table = self.table
        if type(table) is nn.Embedding and table.max_norm is None and table.padding_idx is None:
            check_rows("table", table.weight, self.num_nodes, "num_nodes is the table's size.")
            return table.weight
        rows: Tensor = table(torch.arange(self.num_nodes, device=device))
        return rows
