"""The blockwise operator against dense formulas, whatever the size of a block."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.ops import _problem
from embedkit.ops.gram import DROP, KEEP, Gram


def dense_logits(gram):
    """Every width's logits (w, q, k), -inf where a pair is left out."""
    result = []
    for index, width in enumerate(gram.widths):
        logits = gram.query[:, :width] @ gram.key[:, :width].T
        if gram.row_factor is not None and index < len(gram.widths) - 1:
            logits = logits * gram.row_factor[index][:, None] * gram.key_factor[index]
        if gram.bias is not None:
            logits = logits + gram.bias
        out = torch.zeros_like(logits, dtype=torch.bool)
        if gram.query_ids is not None:
            out = gram.query_ids[:, None] == gram.key_ids
        diagonal = torch.arange(min(logits.shape))
        if gram.diagonal:
            out[diagonal, diagonal] = gram.diagonal == DROP
        result.append(logits.masked_fill(out, -math.inf))
    return torch.stack(result)


def safe_logsumexp(logits, dim):
    some = (logits > -math.inf).any(dim, keepdim=True)
    value = torch.where(some, logits, 0.0).logsumexp(dim)
    return torch.where(some.squeeze(dim), value, 0.0)


def dense_sum(gram, row_weight, key_weight):
    logits = dense_logits(gram)
    if gram.sigmoid:
        return (row_weight * torch.logaddexp(logits, logits.new_zeros(())).sum(2)).sum()
    rows = logits
    if gram.extra is not None:
        rows = torch.cat([logits, gram.extra[:, :, None]], dim=2)
    total = (row_weight * safe_logsumexp(rows, 2)).sum()
    if key_weight is not None:
        total = total + (key_weight * safe_logsumexp(logits, 1)).sum()
    return total


@st.composite
def problems(draw):
    """A Gram with its weights, and the leaves whose gradients are compared."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    queries, keys = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    widths = draw(st.sampled_from([[6], [2, 6], [1, 3, 6]]))
    count = len(widths)

    def leaf(*shape):
        return torch.randn(shape, dtype=torch.float64).requires_grad_()

    leaves = {"query": leaf(queries, 6), "key": leaf(keys, 6)}
    if count > 1 and draw(st.booleans()):
        leaves["row_factor"], leaves["key_factor"] = leaf(count - 1, queries), leaf(count - 1, keys)
    sigmoid = draw(st.booleans())
    leaves["row_weight"] = leaf(count, queries)
    if sigmoid:
        leaves["bias"] = leaf()
    else:
        if draw(st.booleans()):
            leaves["extra"] = leaf(count, queries)
        if draw(st.booleans()):
            leaves["key_weight"] = leaf(count, keys)
    ids = {}
    if draw(st.booleans()):
        ids = {
            "query_ids": torch.randint(0, 3, (queries,)),
            "key_ids": torch.randint(0, 3, (keys,)),
        }
    inputs = {n: t for n, t in leaves.items() if n not in ("row_weight", "key_weight")}
    size = draw(st.sampled_from([1.0, 40.0]))  # small logits skip the maximum, large ones don't
    inputs["query"] = inputs["query"] * size
    gram = Gram(
        widths=widths, diagonal=draw(st.sampled_from([0, KEEP, DROP])), sigmoid=sigmoid,
        **inputs, **ids,
    )  # fmt: skip
    return gram, leaves


@given(problem=problems(), entries=st.integers(1, 60))
def test_any_block_size_equals_the_dense_formula(problem, entries):
    gram, leaves = problem
    previous, _problem.BLOCK_ENTRIES["cpu"] = _problem.BLOCK_ENTRIES["cpu"], entries
    least, _problem.LEAST_ROWS = _problem.LEAST_ROWS, 1
    try:
        weights = leaves["row_weight"], leaves.get("key_weight")
        tensors = list(leaves.values())
        want = dense_sum(gram, *weights)
        want_grads = torch.autograd.grad(want, tensors, retain_graph=True)
        got = [gram.weighted_sum(*weights)]
        if weights[1] is None:
            got.append((weights[0] * gram.rows()).sum())
        for value in got:
            torch.testing.assert_close(value, want, rtol=1e-10, atol=1e-10)
            grads = torch.autograd.grad(value, tensors, retain_graph=True)
            torch.testing.assert_close(grads, want_grads, rtol=1e-10, atol=1e-10)
    finally:
        _problem.BLOCK_ENTRIES["cpu"], _problem.LEAST_ROWS = previous, least


def test_second_derivative_is_a_clear_error():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    value = Gram(x, x, [2]).weighted_sum(torch.ones(1, 3, dtype=torch.float64))
    (grad,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"use the \*_from_similarity form"):
        grad.sum().backward()


def test_no_gradient_is_made_under_no_grad():
    x = torch.randn(5, 2, requires_grad=True)
    gram, weight = Gram(x, x, [2]), torch.ones(1, 5)
    outputs = torch.ops.embedkit.gram_sum(*gram, weight, None, False)
    assert [t.numel() for t in outputs[3:]] == [0] * 6
    with torch.no_grad():
        value = gram.weighted_sum(weight)
    torch.testing.assert_close(value, gram.weighted_sum(weight).detach())


def test_operators_pass_torch_opcheck():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    gram = Gram(x, x.detach().flip(0).requires_grad_(), [2, 6])
    # Non-differentiable outputs of gram_sum are its gradients: opcheck's own gradcheck would take
    # second derivatives, which are an error by design. Schema and fake kernels are checked here.
    tests = ["test_schema", "test_faketensor"]
    torch.library.opcheck(
        torch.ops.embedkit.gram_sum, (*gram, weight, None, True), test_utils=tests
    )
    torch.library.opcheck(torch.ops.embedkit.gram_rows, tuple(gram), test_utils=tests)
