"""Gated hops added up as they come, and a backward pass that keeps none of them.

With G the gradient of the output, hop k contributes  X_k = s_k G + g_k w^T  to that of the nodes,
where  g_k = s_k (1 - s_k) (G . H_k)  is one number per node: hops are made again in their order,
and then  sum_k (A^T)^k X_k  in the opposite one by Horner's rule.
"""

# ruff: noqa: ARG001 (the signatures of an operator, its shape rule and its gradient must agree)

import torch
from torch import Tensor

from embedkit.graph._product import inverse_order
from embedkit.graph.adjacency import Adjacency, Transpose, propagate
from embedkit.ops._precision import full_precision


def _gate(hop: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(n, 1), without another tensor as large as the hop."""
    with full_precision(hop):
        return torch.sigmoid(hop @ weight + bias)[:, None]


def sum_of_hops(
    hop: Tensor, adjacency: Adjacency, weight: Tensor, bias: Tensor, num_hops: int
) -> Tensor:
    """The sum in place: no term needs what it was before, so autograd allows it."""
    out = hop * _gate(hop, weight, bias)
    for _ in range(num_hops):
        hop = propagate(hop, adjacency)
        out.addcmul_(hop, _gate(hop, weight, bias))
    return out


@torch.library.custom_op("embedkit::streamed_hops", mutates_args=())
def streamed_hops(
    crow: Tensor,
    col: Tensor,
    value: Tensor,
    t_crow: Tensor | None,
    t_col: Tensor | None,
    t_order: Tensor | None,
    nodes: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_hops: int,
) -> Tensor:
    """Gated hops added up; the gradient of ``value`` is not here."""
    return sum_of_hops(nodes, Adjacency(crow, col, value), weight, bias, num_hops)


@streamed_hops.register_fake
def _(
    crow: Tensor,
    col: Tensor,
    value: Tensor,
    t_crow: Tensor | None,
    t_col: Tensor | None,
    t_order: Tensor | None,
    nodes: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_hops: int,
) -> Tensor:
    return torch.empty_like(nodes)


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:-1])
    ctx.num_hops = inputs[-1]


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    crow, col, value, t_crow, t_col, t_order, hop, weight, bias = ctx.saved_tensors
    adjacency = backwards = Adjacency(crow, col, value)
    if t_order is not None:
        adjacency = Adjacency(crow, col, value, Transpose(t_crow, t_col, t_order))
        # The way back serves only the gradient of this gradient (create_graph=True).
        again = torch.is_grad_enabled()
        back = Transpose(crow, col, inverse_order(t_order)) if again else None
        backwards = Adjacency(t_crow, t_col, value[t_order], back)
    gates, slopes, of_weight = [], [], torch.zeros_like(weight)
    for k in range(ctx.num_hops + 1):
        hop = hop if k == 0 else propagate(hop, adjacency)
        gate = _gate(hop, weight, bias)
        gates.append(gate)
        slopes.append(gate * (1 - gate) * (grad * hop).sum(dim=1, keepdim=True))
        of_weight = of_weight + (hop * slopes[-1]).sum(dim=0)
    of_bias, of_nodes = torch.stack(slopes).sum(), grad * gates[-1] + slopes[-1] * weight
    del hop
    for gate, slope in zip(gates[-2::-1], slopes[-2::-1], strict=True):
        of_nodes = propagate(of_nodes, backwards)
        of_nodes = of_nodes.addcmul_(grad, gate).addcmul_(slope, weight)
    return None, None, None, None, None, None, of_nodes, of_weight, of_bias, None


streamed_hops.register_autograd(_backward, setup_context=_setup)
