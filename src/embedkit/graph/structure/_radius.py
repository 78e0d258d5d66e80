"""How large the eigenvalues of a matrix with entries >= 0 can be: a bound that is never too low."""

from collections.abc import Iterator

import torch

from embedkit.graph.adjacency import Adjacency

_LEAST = 1e-300  # an entry that is there stays above 0
_SHIFT = 0.125  # share of the bound added to the diagonal, so that a cycle does not swing


def radius_bounds(adjacency: Adjacency) -> Iterator[float]:
    """Bounds of the spectral radius from above, each at most the one before, without an end.

    rho(A) <= max_i (A x)_i / x_i  for every x > 0 (Collatz and Wielandt). x is a power iteration on
    A + s I, folded into the matrix, D^-1 A D with D = diag(x): that has the same radius, and its
    row sums are those quotients. Entries of it stay below the bound, so nothing overflows however
    unlike the parts of a graph grow. Edges that are on no cycle do not change the radius and only
    slow this down, so they are left out.
    """
    row, col, value = adjacency.row, adjacency.col, adjacency.value
    keep = value > 0
    if adjacency.transpose is not None:
        component = _components(adjacency.crow.tolist(), adjacency.col.tolist())
        label = torch.tensor(component, dtype=torch.long, device=col.device)
        keep &= label[row] == label[col]
    row, col, value = row[keep], col[keep], value[keep]
    bound = torch.inf
    while True:
        total = value.new_zeros(adjacency.num_rows).index_add_(0, row, value)
        bound = min(bound, float(total.max())) if len(value) else 0.0
        yield bound
        total += _SHIFT * bound
        value = (value * (total[col] / total[row])).clamp_(min=_LEAST)


def _components(start: list[int], ends: list[int]) -> list[int]:
    """A node of each node's strongly connected component, the same for all of it.

    Gabow 2000, Path-based depth-first search for strong and biconnected components.
    """
    size = len(start) - 1
    entry, number, label = start[:size], [0] * size, [-1] * size
    count, open_, bounds = 0, [], []
    for root in range(size):
        path = [] if number[root] else [root]
        while path:
            node = path[-1]
            if not number[node]:
                count += 1
                number[node] = count
                open_.append(node)
                bounds.append(count)
            while entry[node] < start[node + 1]:
                other = ends[entry[node]]
                entry[node] += 1
                if not number[other]:
                    path.append(other)
                    break
                while label[other] < 0 and bounds[-1] > number[other]:
                    bounds.pop()
            else:
                path.pop()
                if bounds[-1] == number[node]:
                    bounds.pop()
                    while label[node] < 0:
                        label[open_.pop()] = node
    return label
