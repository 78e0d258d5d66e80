import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import embedkit.ops.late_interaction as late
from embedkit.losses import info_nce_from_similarity
from embedkit.ops.late_interaction import max_sim

JUNK = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])


def drawn(seed=0, q=3, n=4, k=5, m=6, d=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(q, n, d, generator=generator, dtype=dtype)
    key = torch.randn(k, m, d, generator=generator, dtype=dtype)
    masks = [torch.rand(*x.shape[:2], generator=generator) > 0.4 for x in (query, key)]
    return query, key, *masks


def looped(query, key, query_mask, key_mask, cosine):
    """One pair of tokens after the other."""
    score = torch.zeros(len(query), len(key), dtype=query.dtype)
    for a in range(len(query)):
        for b in range(len(key)):
            for token in query[a][query_mask[a]]:
                others = key[b][key_mask[b]]
                if len(others):
                    dots = [
                        token @ o / (token.norm() * o.norm() if cosine else 1.0) for o in others
                    ]
                    score[a, b] = score[a, b] + torch.stack(dots).max()
    return score


def gradients(function, query, key):
    leaves = query.clone().requires_grad_(), key.clone().requires_grad_()
    score = function(*leaves)
    weight = torch.linspace(-1, 1, score.numel(), dtype=score.dtype).reshape(score.shape)
    return score, *torch.autograd.grad((score * weight).sum(), leaves, materialize_grads=True)


@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(*[st.integers(0, 4)] * 4),
    block=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    similarity=st.sampled_from(["cosine", "dot"]),
)
def test_any_block_size_gives_what_loops_give(seed, sizes, block, similarity):
    q, n, k, m = sizes
    query, key, query_mask, key_mask = drawn(seed, q, n, k, m)

    def ours(a, b):
        return max_sim(a, b, query_mask, key_mask, similarity=similarity)

    def theirs(a, b):
        looped_score = looped(a, b, query_mask, key_mask, similarity == "cosine")
        return looped_score + 0.0 * (a.sum() + b.sum())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late, "KEY_TOKENS", block[0])
        patch.setattr(late, "ENTRIES", block[1])
        small = gradients(ours, query, key)
    want = gradients(theirs, query, key)
    for found in (small, gradients(ours, query, key)):
        torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)


def test_agrees_with_sentence_transformers():  # which sums in float32, whatever comes in
    theirs = importlib.import_module("sentence_transformers.util").maxsim
    query, key, query_mask, key_mask = drawn(q=7, n=9, k=8, m=11, d=16, dtype=torch.float32)
    key_mask[:, 3] = True
    want = gradients(lambda a, b: theirs(a, b, query_mask, key_mask), query, key)
    got = gradients(lambda a, b: max_sim(a, b, query_mask, key_mask, similarity="dot"), query, key)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_hand_numbers():
    query = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    key = torch.tensor([[[3.0, 4.0], [0.0, -1.0]], [[-1.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(max_sim(query, key), torch.tensor([[0.6 + 0.8, 0.0]]))
    torch.testing.assert_close(
        max_sim(query, key, similarity="dot"), torch.tensor([[3.0 + 8.0, 0.0]])
    )


@given(seed=st.integers(0, 2**31))
def test_what_stands_in_padding_never_matters_to_the_last_bit(seed):
    query, key, query_mask, key_mask = drawn(seed)
    dirty = []
    for tokens, mask in ((query, query_mask), (key, key_mask)):
        junk = JUNK[torch.randint(len(JUNK), tokens.shape)].double()
        dirty.append(torch.where(mask[..., None], tokens, junk))

    def run(a, b):
        return gradients(lambda x, y: max_sim(x, y, query_mask, key_mask), a, b)

    clean, other = run(query, key), run(*dirty)
    assert all(torch.equal(one, two) for one, two in zip(clean, other, strict=True))
    assert (clean[1][~query_mask] == 0).all()
    assert (clean[2][~key_mask] == 0).all()


@given(seed=st.integers(0, 2**31), left=st.integers(0, 3), right=st.integers(0, 3))
def test_the_side_and_amount_of_padding_do_not_matter(seed, left, right):
    query, key, query_mask, key_mask = drawn(seed)

    def pad(x, fill):
        return torch.cat([fill(left), x, fill(right)], dim=1)

    wide = [pad(x, lambda p, x=x: torch.full((len(x), p, 3), 7.0).double()) for x in (query, key)]
    masks = [
        pad(m, lambda p, m=m: torch.zeros(len(m), p, dtype=torch.bool))
        for m in (query_mask, key_mask)
    ]
    torch.testing.assert_close(max_sim(*wide, *masks), max_sim(query, key, query_mask, key_mask))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_text_without_tokens_scores_zero_whatever_the_other_side_holds(similarity):
    query, key = drawn()[:2]
    query[0], key[0] = torch.nan, torch.inf
    masks = torch.ones(3, 4, dtype=torch.bool), torch.ones(5, 6, dtype=torch.bool)
    masks[0][1], masks[1][1] = False, False
    score, of_query, of_key = gradients(
        lambda a, b: max_sim(a, b, *masks, similarity=similarity), query, key
    )
    assert (score[1] == 0).all()
    assert (score[:, 1] == 0).all()
    assert (of_query[1] == 0).all()
    assert (of_key[1] == 0).all()
    assert not score[0, 2:].isfinite().any()  # and a real NaN is not hidden
    assert not score[2, 0].isfinite()


def test_zero_tokens_have_no_gradient_under_cosine():
    query, key = drawn()[:2]
    query[0, 1], key[2, 3] = 0.0, 0.0
    _, of_query, of_key = gradients(max_sim, query, key)
    assert (of_query[0, 1] == 0).all()
    assert (of_key[2, 3] == 0).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_gradients_match_finite_differences(similarity):
    query, key, query_mask, key_mask = drawn()
    assert torch.autograd.gradcheck(
        lambda a, b: max_sim(a, b, query_mask, key_mask, similarity=similarity),
        (query.requires_grad_(), key.requires_grad_()),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_half_precision_is_computed_in_float32(dtype, size):
    query, key, query_mask, key_mask = drawn(q=4, n=30, k=5, m=40, d=16)
    query, key = (query * size).to(dtype), (key * size).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        score, *grads = gradients(lambda a, b: max_sim(a, b, query_mask, key_mask), query, key)
    assert score.dtype == torch.float32
    assert [g.dtype for g in grads] == [dtype, dtype]
    assert all(g.isfinite().all() for g in grads)
    want = max_sim(query.double(), key.double(), query_mask, key_mask)
    torch.testing.assert_close(score.double(), want, rtol=1e-5, atol=1e-5)


def test_keys_that_repeat_a_token_change_nothing():
    query, key = drawn()[:2]
    torch.testing.assert_close(max_sim(query, torch.cat([key, key[:, :2]], 1)), max_sim(query, key))


@pytest.mark.compile
def test_compiles_to_one_graph():
    query, key, *masks = drawn()
    torch.compiler.reset()
    compiled = torch.compile(max_sim, fullgraph=True, backend="aot_eager")
    want = gradients(lambda a, b: max_sim(a, b, *masks), query, key)
    got = gradients(lambda a, b: compiled(a, b, *masks), query, key)
    torch.testing.assert_close(got, want)


def test_shapes_are_known_on_the_meta_device():
    query, key, *masks = (x.to("meta") for x in drawn())
    score = max_sim(query.requires_grad_(), key, *masks)
    assert score.shape == (3, 5)
    assert torch.autograd.grad(score.sum(), query)[0].shape == (3, 4, 3)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor):
                self.entries = max(self.entries, t.numel())
        return out


def test_memory_is_bounded_in_both_passes(monkeypatch):
    monkeypatch.setattr(late, "ENTRIES", 2**12)
    monkeypatch.setattr(late, "KEY_TOKENS", 2**7)
    query, key = torch.randn(40, 8, 2, requires_grad=True), torch.randn(50, 9, 2)
    with Largest() as largest:
        late._gradients(torch.ones(40, 50), query.detach(), key)
        max_sim(query, key).sum().backward()
    assert largest.entries <= 2**12 < 40 * 50 * 8


def test_as_a_loss_it_learns_which_document_a_query_belongs_to():
    query, key, query_mask, key_mask = drawn(k=3)
    query_mask[:, 0] = key_mask[:, 0] = True
    query.requires_grad_()
    losses = []
    for _ in range(60):
        score = max_sim(query, key, query_mask, key_mask)
        loss = info_nce_from_similarity(score, torch.eye(3).bool(), temperature=0.2)
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, query)
        query = (query - gradient).detach().requires_grad_()
    assert losses[-1] < 0.2 * losses[0]
    assert max_sim(query, key, query_mask, key_mask).argmax(dim=1).tolist() == [0, 1, 2]


def test_second_derivatives_are_refused():
    query, key = drawn()[:2]
    (first,) = torch.autograd.grad(
        max_sim(query.requires_grad_(), key).sum(), query, create_graph=True
    )
    with pytest.raises(RuntimeError, match="max_sim: second derivatives are not defined"):
        first.sum().backward()


@pytest.mark.wording
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"query": torch.ones(2, 3)}, ValueError, r"query: expected 3 axes \(q, n, d\)"),
        ({"key": torch.ones(2, 3, 5)}, ValueError, "query: expected last axis of size 5, got sh"),
        ({"key": torch.ones(2, 3, 4).long()}, TypeError, "key: expected a floating-point tensor"),
        ({"query_mask": torch.ones(2, 3)}, TypeError, "query_mask: expected bool .* got torch.fl"),
        (
            {"key_mask": torch.ones(2, 4).bool()},
            ValueError,
            r"key_mask: expected shape \(2, 3\), the leading axes of key \(2, 3, 4\), got \(2, 4\)",
        ),
        ({"similarity": "l2"}, ValueError, "max_sim: similarity must be one of cosine, dot"),
    ],
)
def test_errors_teach(change, error, words):
    good = {"query": torch.ones(2, 3, 4), "key": torch.ones(2, 3, 4)}
    with pytest.raises(error, match=words):
        max_sim(**(good | change))


def test_cosines_reach_as_far_as_the_query_has_tokens():
    query, key = drawn(n=8)[:2]
    score = max_sim(query, key)
    assert (score.abs() <= 8 + 1e-12).all()
    assert math.isclose(max_sim(query, query).diagonal().mean().item(), 8.0)
