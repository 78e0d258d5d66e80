"""SDNE: an autoencoder of the rows of an adjacency, whose code is the node's embedding."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from embedkit._checks import (
    check_at_least,
    check_choice,
    check_floating,
    check_last_dim,
    check_list,
    check_ndim,
    check_rows,
)
from embedkit.graph._edges import check_ids
from embedkit.graph._square import check_adjacency
from embedkit.graph.adjacency import Adjacency, propagate

Activation = Literal["sigmoid", "relu"]


def neighbor_rows(adjacency: Adjacency, nodes: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
    """The rows of some nodes, dense: what an autoencoder of neighbourhoods reads and rebuilds.

    Args:
        adjacency: n columns; row i holds what node i receives.
        nodes: which rows, in any order, also repeatedly.

    Returns:
        (b, n), 0 where no edge is.

    Raises:
        ValueError: if a node is out of range.
        TypeError: if ``nodes`` are not integers, or ``adjacency`` is no :class:`Adjacency`.

    Source: Wang et al. 2016, Structural Deep Network Embedding, eq. 1 (the rows x_i).

    >>> from embedkit.graph import build_adjacency
    >>> path = build_adjacency(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), norm="none")
    >>> neighbor_rows(path, torch.tensor([1, 0]))
    tensor([[1., 0., 1.],
            [0., 1., 0.]])
    """
    check_adjacency("neighbor_rows", adjacency)
    check_ndim("nodes", nodes, "b")
    check_ids("neighbor_rows", "nodes", nodes, adjacency.num_rows, "num_nodes")
    nodes = nodes.long()  # bytes would be a mask
    low, degree = adjacency.crow[nodes], adjacency.crow.diff()[nodes]
    block = torch.arange(len(nodes), device=nodes.device).repeat_interleave(degree)
    first = degree.cumsum(0) - degree
    entry = torch.arange(len(block), device=nodes.device) - first[block] + low[block]
    rows = adjacency.value.new_zeros(len(nodes), adjacency.num_cols)
    return rows.index_put((block, adjacency.col[entry]), adjacency.value[entry])


class SDNE(nn.Module):
    """Rebuild a node's row of the adjacency from a code of ``dim`` numbers, its embedding.

    Encoder n -> hidden -> dim, decoder dim -> reversed hidden -> n. Train it with
    :func:`embedkit.losses.sdne_loss` on :func:`neighbor_rows`; the score of an edge is the
    decoder's, (x_ij + x_ji) / 2 for an undirected graph (:meth:`scorer`), not a distance of codes.

    Args:
        num_nodes: n, the width of a row.
        hidden: widths between the row and the code; ``()`` for none.
        dim: width of the code.
        activation: "sigmoid" everywhere, as in the paper, for weights in [0, 1]; or "relu"
            between layers, with a linear code and output, which trains faster.

    Raises:
        ValueError: if a width is below 1, or rows have another one than ``num_nodes``.
        TypeError: if ``hidden`` is no list, or rows are not floating.

    Source: Wang et al. 2016, Structural Deep Network Embedding, eq. 1-2.
    Differs: no pre-training by a deep belief network. With "relu" code and output are linear: a
    rectified output that is 0 where an edge belongs would get no gradient.

    >>> reconstruction, code = SDNE(10, hidden=[8], dim=4)(torch.rand(3, 10))
    >>> reconstruction.shape, code.shape
    (torch.Size([3, 10]), torch.Size([3, 4]))
    """

    def __init__(
        self,
        num_nodes: int,
        hidden: Sequence[int] = (500,),
        dim: int = 64,
        activation: Activation = "sigmoid",
    ) -> None:
        super().__init__()
        check_choice("SDNE", "activation", activation, ("sigmoid", "relu"))
        check_list("SDNE", "hidden", hidden, "One hidden layer: [500].")
        widths = [num_nodes, *hidden, dim]
        for width in widths:
            check_at_least("SDNE", "num_nodes, dim and each width of hidden", width, 1)
        self.widths, self.activation = tuple(widths), activation
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths[::-1]))

    def reset_parameters(self) -> None:
        """Give the linear layers torch's own initialisation."""
        for layer in (*self.encoder, *self.decoder):
            layer.reset_parameters()

    def _bend(self, x: Tensor, last: bool) -> Tensor:
        if self.activation == "sigmoid":
            return x.sigmoid()
        return x if last else x.relu()

    def encode(self, rows: Tensor | Adjacency) -> Tensor:
        """(b, n) -> (b, dim): the codes, of all nodes at once where ``rows`` is an Adjacency."""
        first = self.encoder[0]
        assert isinstance(first, nn.Linear)
        if isinstance(rows, Adjacency):
            x = propagate(first.weight.T, rows) + first.bias
        else:
            check_floating("rows", rows)
            check_ndim("rows", rows, "b n")
            check_last_dim("rows", rows, self.widths[0], "SDNE: one column per node of the graph.")
            x = first(rows)
        for layer in self.encoder[1:]:
            x = layer(self._bend(x, last=False))
        return self._bend(x, last=True)

    def _before_last(self, code: Tensor) -> Tensor:
        """(b, dim) -> what the decoder's last layer reads, one row of it per code."""
        check_floating("code", code)
        check_last_dim("code", code, self.widths[-1], "SDNE: codes of its own encoder.")
        for layer in self.decoder[:-1]:
            code = self._bend(layer(code), last=False)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """(b, dim) -> (b, n): the rebuilt rows."""
        return self._bend(self.decoder[-1](self._before_last(code)), last=True)

    def scorer(self, code: Tensor) -> Callable[[Tensor], Tensor]:
        """Codes of all nodes (n, dim) -> a function of nodes (b,): (x_ij + x_ji) / 2, (b, n).

        For :func:`embedkit.analysis.reconstruction_metrics`. Rows are decoded and columns read off
        the last layer, block by block, so nothing of size n x n is made.
        """
        check_rows("code", code, self.widths[0], "SDNE: a code for every node of the graph.")
        hidden, last = self._before_last(code), self.decoder[-1]
        assert isinstance(last, nn.Linear)

        def scores(nodes: Tensor) -> Tensor:
            row = self._bend(last(hidden[nodes]), last=True)
            column = linear(hidden, last.weight[nodes], last.bias[nodes])
            return (row + self._bend(column, last=True).T) / 2

        return scores

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(b, n) -> the rebuilt rows (b, n) and the codes (b, dim)."""
        code = self.encode(rows)
        return self.decode(code), code

    def extra_repr(self) -> str:
        """What was asked for."""
        return f"widths={self.widths}, activation={self.activation!r}"
