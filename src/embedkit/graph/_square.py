"""What the functions of a whole graph accept: an adjacency, mostly a square one."""

from typing import Any

from embedkit.graph.adjacency import Adjacency


def check_adjacency(owner: str, adjacency: Any) -> None:
    """Raise unless it is an :class:`Adjacency`, and not PyG's edges."""
    if not isinstance(adjacency, Adjacency):
        raise TypeError(
            f"{owner}: expected an Adjacency, got {type(adjacency).__name__}. Build it once: "
            'build_adjacency(edge_index, num_nodes=..., norm="none").'
        )


def check_square(owner: str, adjacency: Any) -> None:
    """Raise unless it is an :class:`Adjacency` whose nodes send and receive."""
    check_adjacency(owner, adjacency)
    if adjacency.num_rows != adjacency.num_cols:
        raise ValueError(
            f"{owner}: expected a square adjacency, got {adjacency.num_rows} x {adjacency.num_cols}"
        )
