"""The blockwise operator against dense formulas, whatever the size of a block."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from embedkit.ops.gram import Gram, _problem, gram_rows, gram_sum


def dense_sum(gram, row_weight, key_weight):
    """The definition, on full matrices."""
    eye = torch.eye(gram.query.shape[0], gram.key.shape[0], dtype=torch.bool)
    same = torch.zeros_like(eye)
    if gram.query_ids is not None:
        same = gram.query_ids[:, None] == gram.key_ids
    positive = eye if gram.own or gram.query_ids is None else same
    left_out = torch.zeros_like(eye)
    if gram.query_ids is not None and (gram.own or gram.decoupled):
        left_out = same & ~eye if gram.own else same
    if gram.decoupled:
        left_out = left_out | positive
    if gram.same_rows:
        positive, left_out = positive & ~eye if not gram.own else positive, left_out | eye
    total = 0.0
    for index, width in enumerate(gram.widths):
        query, key = gram.query[:, :width], gram.key[:, :width]
        if gram.cosine:
            query, key = F.normalize(query), F.normalize(key)
        logits = gram.scale * query @ key.T + (0.0 if gram.bias is None else gram.bias)
        pull = (logits * positive).sum(1)
        if gram.sigmoid:
            rows = F.softplus(logits, threshold=100.0).masked_fill(left_out, 0.0).sum(1)
        else:
            sunk = logits.masked_fill(left_out, -math.inf)
            if gram.extra is not None:
                sunk = torch.cat([sunk, gram.extra[index][:, None]], dim=1)
            rows = safe_logsumexp(sunk, 1)
        total = total + (row_weight[index] * (rows - gram.row_positive * pull)).sum()
        if key_weight is not None:
            keys = safe_logsumexp(logits.masked_fill(left_out, -math.inf), 0)
            keys = keys - gram.key_positive * (logits * positive).sum(0)
            total = total + (key_weight[index] * keys).sum()
    return total


def safe_logsumexp(logits, dim):
    some = (logits > -math.inf).any(dim, keepdim=True)
    value = torch.where(some, logits, 0.0).logsumexp(dim)
    return torch.where(some.squeeze(dim), value, 0.0)


@st.composite
def problems(draw):
    """A Gram with its weights, and the leaves whose gradients are compared."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    queries, keys = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    same_rows = draw(st.booleans())
    keys = queries if same_rows else keys
    widths = draw(st.sampled_from([[6], [2, 6], [1, 3, 6]]))
    count = len(widths)

    def leaf(*shape):
        return torch.randn(shape, dtype=torch.float64).requires_grad_()

    leaves = {"query": leaf(queries, 6), "key": leaf(keys, 6), "row_weight": leaf(count, queries)}
    # Small logits skip the maximum, large ones don't.
    leaves["scale"] = (
        torch.tensor(draw(st.sampled_from([0.5, 5.0, 60.0]))).double().requires_grad_()
    )
    sigmoid = draw(st.booleans())
    if sigmoid:
        leaves["bias"] = leaf()
    elif draw(st.booleans()):
        leaves["extra"] = leaf(count, queries)
    if not sigmoid and draw(st.booleans()):
        leaves["key_weight"] = leaf(count, keys)
    has_ids = draw(st.booleans())
    gram = Gram(
        query=leaves["query"],
        key=leaves["key"],
        widths=widths,
        scale=leaves["scale"],
        extra=leaves.get("extra"),
        bias=leaves.get("bias"),
        query_ids=torch.randint(0, 3, (queries,)) if has_ids else None,
        key_ids=torch.randint(0, 3, (keys,)) if has_ids else None,
        row_positive=torch.rand(queries).double(),
        key_positive=torch.rand(keys).double(),
        cosine=draw(st.booleans()),
        own=not has_ids or (not same_rows and draw(st.booleans())),
        same_rows=same_rows and has_ids,
        decoupled=draw(st.booleans()) and not same_rows,
        sigmoid=sigmoid,
    )
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
        got = [gram_sum(gram, *weights)]
        if weights[1] is None:
            got.append((weights[0] * gram_rows(gram)).sum())
        for value in got:
            torch.testing.assert_close(value, want, rtol=1e-10, atol=1e-10)
            grads = torch.autograd.grad(value, tensors, retain_graph=True)
            torch.testing.assert_close(grads, want_grads, rtol=1e-9, atol=1e-9)
    finally:
        _problem.BLOCK_ENTRIES["cpu"], _problem.LEAST_ROWS = previous, least


def example(dtype=torch.float64, widths=(2,)):
    query = torch.randn(4, widths[-1], dtype=dtype, requires_grad=True)
    key = torch.randn(5, widths[-1], dtype=dtype, requires_grad=True)
    scale = torch.tensor(3.0, dtype=dtype)
    gram = Gram(query, key, list(widths), scale, None, None, None, None, torch.ones(4, dtype=dtype))
    return gram, torch.ones(len(widths), 4, dtype=dtype)


def test_second_derivative_is_a_clear_error():
    gram, weight = example()
    (grad,) = torch.autograd.grad(gram_sum(gram, weight), gram.query, create_graph=True)
    with pytest.raises(RuntimeError, match=r"use the \*_from_similarity form"):
        grad.sum().backward()


def test_no_gradient_is_made_under_no_grad():
    gram, weight = example()
    outputs = torch.ops.embedkit.gram_sum(*gram, weight, None, False)
    assert [t.numel() for t in outputs[3:]] == [0] * 5
    with torch.no_grad():
        value = gram_sum(gram, weight)
    torch.testing.assert_close(value, gram_sum(gram, weight).detach())


def test_operators_pass_torch_opcheck():
    # Some outputs of gram_sum are its gradients: opcheck's own gradcheck would take second
    # derivatives, which are an error by design. Schema and fake kernels are checked here.
    gram, weight = example(widths=(1, 3))
    tests = ["test_schema", "test_faketensor"]
    arguments = (*gram, weight, None, True)
    torch.library.opcheck(torch.ops.embedkit.gram_sum, arguments, test_utils=tests)
    torch.library.opcheck(torch.ops.embedkit.gram_rows, tuple(gram), test_utils=tests)
