"""Meta-paths of a heterogeneous graph: how many lead from node to node, and which count."""

import itertools
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from embedkit._checks import check_at_least, check_finite
from embedkit.graph.adjacency import Adjacency, adjacency_from_entries

_PATHS = 2**21  # joined at a time: a bound of the extra memory


def metapath_counts(relations: Sequence[Adjacency], *, max_paths: int = 2**28) -> Adjacency:
    """How many instances of a symmetric meta-path join two nodes:  M = B B^T,  B = R_1 R_2 ... R_l.

    Relations lead from the end of the path to its middle: paper - author - paper is
    ``[paper_author]``, author - paper - venue - paper - author ``[author_paper, paper_venue]``.
    The way back is the mirror image. M_ij counts paths from i to j, M_ii those that return, so M is
    symmetric with a positive diagonal, except for nodes without any path, whose rows are empty.
    From PyG's ``HeteroData`` take ``relation_from_hetero(data, ("paper", "author"))``.

    Time grows with the number of paths. Memory is that of the result and of 2 million paths, which
    are joined at a time, within a row where a hub has more: some 200 MB.

    Args:
        relations: one or more rectangular matrices, as :func:`adjacency_from_entries` makes them
            with value 1 per edge; the columns of each are the rows of the next. Not normalised.
        max_paths: refuse to walk more than that; one node with d neighbours alone makes d^2.

    Returns:
        Counts as float64, exact up to 2^53, in the order of rows and columns.

    Raises:
        ValueError: if there is no relation, sizes do not follow each other, or there are more paths
            than ``max_paths``.
        TypeError: if a relation is no :class:`Adjacency`.

    Source: Sun et al. 2011, PathSim: Meta Path-Based Top-K Similarity Search in Heterogeneous
    Information Networks, definition 5 (commuting matrix).

    >>> one = torch.ones(3)
    >>> author = adjacency_from_entries(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), one, 2, 2)
    >>> metapath_counts([author]).value  # [[2, 1], [1, 1]]
    tensor([2., 1., 1., 1.], dtype=torch.float64)
    """
    half = _chain("metapath_counts", relations)
    reach = half[0]
    for relation in half[1:]:
        reach = _join("metapath_counts", reach, relation, max_paths)
    return _join("metapath_counts", reach, _mirror(reach), max_paths)


def metapath_contexts(
    relations: Sequence[Adjacency], *, max_paths: int = 2**28, dtype: torch.dtype | None = None
) -> list[Adjacency]:
    """Through whom a meta-path leads: for each position between its ends the mean over nodes there.

    Position q of the path R_1 ... R_l R_l^T ... R_1^T has one operator, whose row i averages the
    distinct nodes that R_1 ... R_q reaches from i. Hand them with :func:`propagate` to
    :class:`MetaPathContext`: paper - author - paper has one position (the authors), author -
    paper - venue - paper - author three (papers, venues, papers of these venues).

    Args:
        relations: see :func:`metapath_counts`.
        max_paths: see :func:`metapath_counts`.
        dtype: of the values; None: torch's default.

    Returns:
        2 l - 1 operators for l relations; a node that reaches nothing has an empty row.

    Raises:
        ValueError: see :func:`metapath_counts`.
        TypeError: if a relation is no :class:`Adjacency`.

    Source: Yu et al. 2022, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, the context of a meta-path.

    >>> one = torch.ones(3)
    >>> author = adjacency_from_entries(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), one, 2, 2)
    >>> [context.value for context in metapath_contexts([author])]
    [tensor([0.5000, 0.5000, 1.0000])]
    """
    half = _chain("metapath_contexts", relations)
    steps = [*half, *(_mirror(relation) for relation in reversed(half[1:]))]
    found, reach = [], None
    for step in steps:
        reach = step if reach is None else _join("metapath_contexts", reach, step, max_paths)
        reach = reach._replace(value=torch.ones_like(reach.value))
        size = reach.crow.diff().repeat_interleave(reach.crow.diff())
        share = size.double().reciprocal().to(dtype or torch.get_default_dtype())
        found.append(
            adjacency_from_entries(reach.row, reach.col, share, reach.num_rows, reach.num_cols)
        )
    return found


def pathsim(counts: Adjacency) -> Adjacency:
    """How alike two nodes are by a meta-path:  s_ij = 2 M_ij / (M_ii + M_jj),  on stored entries.

    1 for a node with itself, 0 for what is not stored; symmetric, and the same for any multiple
    of M. A node with many paths needs many to another one to be like it.

    Args:
        counts: square and symmetric with its diagonal, of :func:`metapath_counts`. Counts, not
            whether there is a path: 0 and 1 alone say nothing here.

    Returns:
        Similarities in [0, 1] as float64 at the places of ``counts``.

    Raises:
        ValueError: if ``counts`` is not square, finite and symmetric, a row has entries and no
            positive diagonal, an entry is larger than the diagonals allow, or all entries are 1
            where counts could not be.
        TypeError: if ``counts`` is no :class:`Adjacency`.

    Source: Sun et al. 2011, PathSim: Meta Path-Based Top-K Similarity Search in Heterogeneous
    Information Networks, definition 4.

    >>> row, col = torch.tensor([[0, 0, 1, 1, 1, 2, 2], [0, 1, 0, 1, 2, 1, 2]])
    >>> count = torch.tensor([2.0, 1, 1, 4, 2, 2, 1])
    >>> pathsim(adjacency_from_entries(row, col, count, 3, 3)).value.float()
    tensor([1.0000, 0.3333, 0.3333, 1.0000, 0.8000, 0.8000, 1.0000])
    """
    similarity = _similarity("pathsim", counts)
    return counts._replace(value=similarity, transpose=None)


def topk_pathsim(counts: Adjacency, k: int) -> Adjacency:
    """Of each row keep the k entries that are most alike by :func:`pathsim`, with their counts.

    The node itself is always kept. Ties go to the smaller column, so that the result is the same
    every time; it is not symmetric. Then normalise it:  ``build_adjacency(*to_edge_index(pruned),
    num_nodes, norm="sym", dtype=torch.float32)``.

    Args:
        counts: see :func:`pathsim`.
        k: entries per row, itself included; rows with fewer keep all.

    Returns:
        The counts M_ij that are kept, as float64.

    Raises:
        ValueError: if ``k`` is below 1, or see :func:`pathsim`.
        TypeError: if ``counts`` is no :class:`Adjacency`, or ``k`` no integer.

    Warns:
        UserWarning: where more than half of what is kept was chosen by column number among equals:
            the path does not tell its neighbours apart.

    Source: Yu et al. 2022, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples (MEOW), the pruning of meta-path graphs.
    """
    if not isinstance(k, int):
        raise TypeError(f"topk_pathsim: k must be an integer, got {k!r}. It counts entries.")
    check_at_least("topk_pathsim", "k", k, 1)
    similarity, row = _similarity("topk_pathsim", counts), counts.row
    first = similarity.masked_fill(row == counts.col, torch.inf)
    order = torch.argsort(first, descending=True, stable=True)
    order = order[torch.argsort(row[order], stable=True)]  # rows again, each from the most alike
    place = torch.arange(len(order), device=order.device) - counts.crow[row]
    size = counts.crow.diff()
    keep, cut = place < k, size > k
    last, after = (first[order[(counts.crow[:-1] + j)[cut]]] for j in (k - 1, k))
    tied = last.masked_fill(last != after, torch.nan)  # what was kept as well as left out
    threshold = similarity.new_full(size.shape, torch.nan).masked_scatter(cut, tied)
    by_number = int((keep & (first[order] == threshold[row])).sum())
    if 2 * by_number > int(keep.sum()):
        warnings.warn(
            f"topk_pathsim: {by_number} of the {int(keep.sum())} entries kept were chosen by "
            f"column number among equally similar ones: this path does not rank neighbours. Take "
            "a larger k, another path, or a sample.",
            stacklevel=2,
        )
    chosen = order[keep].sort().values
    value = counts.value.detach().double()[chosen]
    return adjacency_from_entries(
        row[chosen], counts.col[chosen], value, counts.num_rows, counts.num_rows
    )


def _chain(owner: str, relations: Sequence[Adjacency]) -> list[Adjacency]:
    """The relations with values in float64 and no gradient, if each goes on where one ended."""
    listed = isinstance(relations, Sequence) and not isinstance(relations, Adjacency)
    if not listed or not all(isinstance(r, Adjacency) for r in relations):
        kinds = [type(r).__name__ for r in relations] if listed else type(relations).__name__
        raise TypeError(
            f"{owner}: relations must be a list of Adjacency, got {kinds}. Build each by "
            "adjacency_from_entries(row, col, value, num_rows, num_cols), or of PyG's HeteroData "
            "by relation_from_hetero(data, edge_type)."
        )
    if not relations:
        raise ValueError(f"{owner}: relations must hold at least one, got none")
    for number, (one, two) in enumerate(itertools.pairwise(relations)):
        if one.num_cols != two.num_rows:
            raise ValueError(
                f"{owner}: relation {number} ends in {one.num_cols} nodes and relation "
                f"{number + 1} begins with {two.num_rows}. Each goes on where the last one ended; "
                "swap row and col of one that runs the other way."
            )
    return [r._replace(value=r.value.detach().double()) for r in relations]


def _mirror(relation: Adjacency) -> Adjacency:
    other = relation.transpose
    if other is None:
        return relation
    back = torch.empty_like(other.order)
    back[other.order] = torch.arange(len(back), device=back.device)
    forth = type(other)(relation.crow, relation.col, back)
    return Adjacency(other.crow, other.col, relation.value[other.order], forth)


def _join(owner: str, left: Adjacency, right: Adjacency, max_paths: int) -> Adjacency:
    """The product of two sparse matrices, a block of entries of the left one at a time."""
    fan = right.crow.diff()[left.col]  # paths that go on from each entry of left
    before = torch.cat([fan.new_zeros(1), fan.cumsum(0)])
    total = int(before[-1])
    if total > max_paths:
        widest = int(fan.max())
        raise ValueError(
            f"{owner}: the path has {total} instances, more than max_paths={max_paths}; one node "
            f"alone leads to {widest} others. Leave out such hubs, or raise max_paths: a path "
            "takes up to 24 bytes of the result."
        )
    rows, cols, values = [], [], []
    start, row, width = 0, left.row, max(right.num_cols, 1)
    open_place, open_value = row[:0], left.value[:0]  # of a row that went on
    while start < len(fan):
        limit = before[start] + _PATHS
        stop = max(start + 1, int(torch.searchsorted(before, limit, right=True)) - 1)
        piece, size = slice(start, stop), fan[start:stop]
        which = torch.arange(len(size), device=size.device).repeat_interleave(size)
        within = torch.arange(len(which), device=size.device) - (size.cumsum(0) - size)[which]
        entry = right.crow[left.col[piece]][which] + within
        paths = torch.cat([open_value, left.value[piece][which] * right.value[entry]])
        place = torch.cat([open_place, row[piece][which] * width + right.col[entry]])
        place, number = torch.unique(place, return_inverse=True)
        paths = paths.new_zeros(len(place)).index_add(0, number, paths)
        done = len(place)
        if stop < len(fan):
            done = int(torch.searchsorted(place, row[stop] * width))
        open_place, open_value = place[done:], paths[done:]
        rows.append(place[:done] // width)
        cols.append(place[:done] % width)
        values.append(paths[:done])
        start = stop
    if not rows:
        rows, cols, values = [row[:0]], [row[:0]], [left.value[:0]]
    entries = (torch.cat(rows), torch.cat(cols), torch.cat(values))
    return adjacency_from_entries(*entries, left.num_rows, right.num_cols)


def _similarity(owner: str, counts: Adjacency) -> Tensor:
    """PathSim of each stored entry in float64, if ``counts`` are counts."""
    if not isinstance(counts, Adjacency):
        raise TypeError(
            f"{owner}: expected an Adjacency, got {type(counts).__name__}. metapath_counts makes it"
        )
    crow, col, other = counts.crow, counts.col, counts.transpose
    value, row, size = counts.value.detach().double(), counts.row, crow.diff()
    if counts.num_cols != counts.num_rows:
        raise ValueError(
            f"{owner}: expected a square matrix of counts, got {counts.num_rows} x "
            f"{counts.num_cols}. metapath_counts([relation]) walks there and back."
        )
    check_finite(owner, "counts", value)
    if other is not None and not (
        torch.equal(other.crow, crow)
        and torch.equal(other.col, col)
        and torch.equal(value[other.order], value)
    ):
        raise ValueError(f"{owner}: counts must be symmetric, as a path and its mirror image make")
    own = value.new_zeros(counts.num_rows).index_add(0, row, torch.where(row == col, value, 0.0))
    bare = (size > 0) & ~(own > 0)
    if bare.any():
        raise ValueError(
            f"{owner}: {int(bare.sum())} rows have entries and no positive diagonal, first row "
            f"{int(bare.nonzero()[0])}. M_ii counts the paths that return; keep it."
        )
    similarity = 2 * value / (own[row] + own[col])
    if (similarity > 1 + 1e-9).any() or (value < 0).any():
        raise ValueError(
            f"{owner}: an entry is below 0 or above the mean of its two diagonals, so these are "
            "no counts of paths there and back. Pass metapath_counts as it is, not normalised."
        )
    if len(value) and (value == 1).all():
        # Counts of 1 alone: every node has one path, so its neighbours are one another's, too.
        kin = col[crow[:-1].clamp(max=len(col) - 1)]
        members = torch.bincount(kin[size > 0], minlength=counts.num_rows)
        if not (torch.equal(kin[row], kin[col]) and torch.equal(members[kin][row], size[row])):
            raise ValueError(
                f"{owner}: all entries are 1, and no counts of paths look like that: whether there "
                "is a path says nothing here. Count them with metapath_counts."
            )
    return similarity
