"""InfoNCE whose keys travel from rank to rank, so that none holds them all."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedkit.losses._matches import Ids, match_counts
from embedkit.losses.pairs._request import Request, SameId, Similarity, check_request
from embedkit.ops import accumulation_dtype
from embedkit.ops._exchange import Ranks, agree, find_group, find_ranks, told, withdraw
from embedkit.ops.collectives import gather_with_ids, mean_gradient, sum_over_ranks
from embedkit.ops.gram import Gram, sweep


def ring_info_nce(
    query: Float[Tensor, "q d"],
    key: Float[Tensor, "k d"],
    *,
    temperature: float | Tensor = 0.05,
    query_ids: Int[Tensor, " q"] | None = None,
    key_ids: Int[Tensor, " k"] | None = None,
    same_id: SameId = "positive",
    similarity: Similarity = "cosine",
    group: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """:func:`info_nce` with ``gather=True``, in the memory of one rank's keys.

    Keys go round the ranks, a shard at a time, while each rank works on the shard it has; in
    backward they go round once more with their gradient one hop behind. A rank holds its own rows,
    two shards of keys and one block of the matrix: nothing grows with the number of ranks but the
    ids. Value and gradients equal the gathered form; the products are made four times in place of
    three. Take it where the keys of all ranks, gathered, don't fit; where they do, gathering is
    faster and compiles.

    Args:
        query: this rank's queries, any number of them.
        key: this rank's keys.
        temperature: > 0, a number or a 0-d tensor.
        query_ids: integers that mean the same on every rank; equal ids match.
        key_ids: integers.
        same_id: "positive" or "ignore", as in :func:`info_nce`.
        similarity: "cosine" or "dot".
        group: the ranks that take part, in a ring; None: all.

    Returns:
        The mean over the queries of all ranks, the same on every rank.

    Raises:
        ValueError: as :func:`info_nce`; on every rank where ranks don't fit each other.
        RuntimeError: without a process group, where a rank died, or on a second derivative.

    Source: Cheng et al. 2024, Breaking the Memory Barrier: Near Infinite Batch Size Scaling for
    Contrastive Loss, sec. 3.2 (ring of devices).
    Differs: a maximum is taken off before exp, any number of rows per rank, ids.
    """
    ranks = find_ranks("ring_info_nce", group)
    request = Request(
        "ring_info_nce",
        temperature,
        query_ids=query_ids,
        key_ids=key_ids,
        same_id=same_id,
        similarity=similarity,
    )
    try:
        _, ids, own = check_request(query, key, request)
    except (TypeError, ValueError) as error:
        withdraw(ranks, query.device, error)
        raise
    wide = accumulation_dtype(torch.promote_types(query.dtype, key.dtype))
    query, key = query.to(wide), key.to(wide)
    if own or ids is None:
        count = torch.ones_like(query[:, 0], dtype=torch.long)
    else:
        all_ids, _ = gather_with_ids(ids.key, None, ranks, own_first=False)
        count = match_counts(Ids(ids.query, all_ids))
    if isinstance(temperature, Tensor):
        scale = 1.0 / mean_gradient(temperature.to(wide).reshape(()), ranks)
        bound = float("inf")
    else:
        scale = query.new_full((), 1.0 / temperature)
        bound = 1.0 / temperature if similarity == "cosine" else float("inf")
    weight = (count > 0) / count.clamp(min=1).to(wide)
    gram = Gram(query, key, [query.shape[1]], scale, None, None, None, None, weight)
    gram = gram._replace(cosine=similarity == "cosine", own=own, bound=bound)
    rows: Tensor = _Ring.apply(query, key, scale, _Plan(gram, ids, ranks))  # type: ignore[no-untyped-call]
    part = (count > 0).to(wide)
    total = sum_over_ranks(torch.stack([(rows * part).sum(), part.sum()]), ranks)
    return total[0] / total[1].clamp(min=1)


class _Plan(NamedTuple):
    gram: Gram
    ids: Ids | None
    ranks: Ranks

    def shard(self, owner: int, query: Tensor, scale: Tensor, arrived: list[Tensor]) -> Gram:
        """The problem of this rank's rows and one rank's keys."""
        gram = self.gram._replace(query=query, key=arrived[0], scale=scale)
        if self.ids is not None:
            gram = gram._replace(query_ids=self.ids.query, key_ids=arrived[1])
        if gram.own and owner != dist.get_rank(find_group(self.ranks.name)):
            # Strangers' keys are no row's own; those with a row's id don't compete.
            nothing = torch.zeros_like(gram.row_positive)
            gram = gram._replace(own=False, decoupled=True, row_positive=nothing)
        return gram


class _Ring(torch.autograd.Function):
    """Potential of every row over the keys of all ranks."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, scale: Tensor, plan: _Plan) -> Tensor:
        group, ids = find_group(plan.ranks.name), plan.ids
        needs_grad = any(ctx.needs_input_grad)
        sizes = agree(key, None if ids is None else ids.key, needs_grad, group)
        lse = query.new_full((1, query.shape[0]), -torch.inf)
        positive = torch.zeros_like(lse)
        own = [key] if ids is None else [key, ids.key]
        for owner, arrived in _travel(own, sizes, group):
            part = sweep(plan.shard(owner, query, scale, arrived), lse, None, with_grad=False)
            lse, positive = torch.logaddexp(lse, part.rows), positive + part.positive
        ctx.save_for_backward(query, key, scale, lse)
        ctx.plan, ctx.sizes = plan, sizes
        return (lse.masked_fill(lse == -torch.inf, 0.0) - positive)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, scale, lse = ctx.saved_tensors
        plan, sizes, ids = ctx.plan, ctx.sizes, ctx.plan.ids
        group = find_group(plan.ranks.name)
        of_query, of_scale = torch.zeros_like(query), torch.zeros_like(scale)
        of_key = torch.zeros_like(key)  # of the shard at hand, from all ranks that had it so far
        own = [key] if ids is None else [key, ids.key]
        for owner, arrived in _travel(own, sizes, group):
            gram = plan.shard(owner, query, scale, arrived)
            part = sweep(gram, grad[None], None, with_grad=True, row_logsumexp=lse)
            of_query.add_(part.query)
            of_scale.add_(part.scale)
            of_key.add_(part.key)
            (of_key,), work = _pass_on([of_key], sizes[(owner - 1) % len(sizes)], group, tag=2)
            _wait(work)
        return of_query, of_key, of_scale, None


def _travel(
    tensors: list[Tensor], sizes: list[int], group: dist.ProcessGroup
) -> Iterator[tuple[int, list[Tensor]]]:
    """Each rank's tensors with their owner, this rank's first; the next ones travel meanwhile."""
    rank, ranks = dist.get_rank(group), len(sizes)
    for hop in range(ranks):
        owner = (rank - hop) % ranks
        if hop + 1 == ranks:
            yield owner, tensors
            return
        arriving, work = _pass_on(tensors, sizes[(owner - 1) % ranks], group)
        yield owner, tensors
        _wait(work)
        tensors = arriving


def _pass_on(
    tensors: list[Tensor], rows: int, group: dist.ProcessGroup, tag: int = 0
) -> tuple[list[Tensor], list[dist.Work]]:
    """Send tensors to the next rank and receive as many, of ``rows`` rows, from the one before."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    arriving = [tensor.new_empty(rows, *tensor.shape[1:]) for tensor in tensors]
    if ranks == 1:
        return tensors, []
    messages = []
    for number, (leaving, coming) in enumerate(zip(tensors, arriving, strict=True), start=tag):
        if leaving.numel():
            to = (rank + 1) % ranks
            leaving = leaving.contiguous()
            messages.append(dist.P2POp(dist.isend, leaving, group=group, tag=number, group_peer=to))
        if coming.numel():
            source = (rank - 1) % ranks
            messages.append(
                dist.P2POp(dist.irecv, coming, group=group, tag=number, group_peer=source)
            )
    with told():
        return arriving, dist.batch_isend_irecv(messages) if messages else []


def _wait(work: list[dist.Work]) -> None:
    with told():
        for piece in work:
            piece.wait()
