"""What every pool promises about padding, lengths, dtypes and export, beside the contract."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pooling.cases import POOLS
from torch.export import Dim, export

SEEDS = st.integers(0, 2**31)
every_pool = pytest.mark.parametrize(
    "build", [case[0] for case in POOLS.values()], ids=[c.__name__ for c in POOLS]
)
JUNK = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])


def junk(*shape):
    return JUNK[torch.randint(len(JUNK), shape)]


def run(pool, tokens, mask=None):
    """The pooled vectors, the gradient at the tokens, the gradients at the parameters."""
    leaf = tokens.clone().requires_grad_()
    out = pool(leaf, mask)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out, *torch.autograd.grad((out * weight).sum(), (leaf, *pool.parameters()))


@every_pool
@given(seed=SEEDS, n=st.integers(1, 6))
def test_what_stands_in_padding_never_matters_to_the_last_bit(build, seed, n):
    torch.manual_seed(seed)
    pool, tokens, mask = build(), torch.randn(3, n, 8), torch.rand(3, n) > 0.4
    clean = run(pool, tokens, mask)
    dirty = run(pool, torch.where(mask[..., None], tokens, junk(3, n, 8)), mask)
    for one, other in zip(clean, dirty, strict=True):
        assert torch.equal(one, other)
    assert (clean[1][~mask] == 0).all()
    assert all(t.isfinite().all() for t in clean)


@every_pool
@given(seed=SEEDS, n=st.integers(1, 6), left=st.integers(0, 9), right=st.integers(0, 9))
def test_how_much_padding_and_on_which_side_does_not_matter(build, seed, n, left, right):
    torch.manual_seed(seed)
    pool, tokens = build(), torch.randn(3, n, 8)
    padded = torch.cat([junk(3, left, 8), tokens, junk(3, right, 8)], dim=1)
    position = torch.arange(left + n + right).expand(3, -1)
    mask = (position >= left) & (position < left + n)
    bare, full = run(pool, tokens), run(pool, padded, mask)
    torch.testing.assert_close(full[0], bare[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(full[1][:, left : left + n], bare[1], rtol=1e-6, atol=1e-6)


@every_pool
@given(seed=SEEDS)
def test_neighbours_in_the_batch_never_matter(build, seed):
    torch.manual_seed(seed)
    pool, tokens, mask = build(), torch.randn(4, 5, 8), torch.rand(4, 5) > 0.3
    order = torch.randperm(4)
    together = pool(tokens, mask)
    torch.testing.assert_close(pool(tokens[order], mask[order]), together[order])
    torch.testing.assert_close(pool(tokens[2:3], mask[2:3]), together[2:3])


@every_pool
def test_a_sequence_of_padding_only_gives_zeros_and_no_gradient(build):
    pool, tokens = build(), junk(2, 4, 8)
    for out in run(pool, tokens, torch.zeros(2, 4, dtype=torch.bool)):
        assert torch.equal(out, torch.zeros_like(out))


@every_pool
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_without_tokens_the_result_is_zero(build, shape):
    pool, tokens = build(), torch.randn(*shape, 8)
    for mask in (None, torch.zeros(shape, dtype=torch.bool)):
        out, *grads = run(pool, tokens, mask)
        assert torch.equal(out, torch.zeros(shape[0], 8))
        assert all(g.isfinite().all() for g in grads)


@every_pool
def test_one_real_token_is_enough_to_let_its_nan_through(build):
    tokens, mask = torch.randn(2, 3, 8), torch.tensor([[True, False, False]] * 2)
    tokens[0, 0] = torch.nan
    out = build()(tokens, mask)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@every_pool
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_half_precision_comes_back_close_and_finite(build, dtype, size):
    pool, mask = build(), torch.rand(3, 50) > 0.3
    tokens = (torch.randn(3, 50, 8) * size).to(dtype)
    mask[0] = False
    out, *grads = run(pool, tokens, mask)
    assert out.dtype == dtype
    assert all(g.isfinite().all() for g in grads)
    want = pool.double()(tokens.double(), mask).to(dtype)
    torch.testing.assert_close(out, want, rtol=2e-2, atol=2e-2 * size)


@every_pool
@pytest.mark.compile
@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no-mask"])
def test_exports_with_dynamic_batch_and_length(build, masked):
    def arguments(b, n):
        return (torch.randn(b, n, 8), torch.rand(b, n) > 0.3)[: 1 + masked]

    pool, axes = build(), {0: Dim("b", min=0), 1: Dim("n", min=1)}
    program = export(pool, arguments(3, 5), dynamic_shapes=(axes,) * (1 + masked)).module()
    for b, n in [(3, 5), (2, 9), (1, 1), (0, 4)]:
        args = arguments(b, n)
        torch.testing.assert_close(program(*args), pool(*args))


@every_pool
@pytest.mark.wording
def test_errors_say_what_arrived(build):
    pool, tokens = build(), torch.randn(2, 3, 8)
    with pytest.raises(
        TypeError, match=r"mask: expected bool \(True is real, False is padding\), got"
    ):
        pool(tokens, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 3\), the leading axes of tok"):
        pool(tokens, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(
        ValueError, match=r"tokens: expected 3 axes \(b, n, d\), got shape \(2, 8\)"
    ):
        pool(torch.randn(2, 8))
    with pytest.raises(
        TypeError, match=r"tokens: expected a floating-point tensor, got torch.int64"
    ):
        pool(torch.ones(2, 3, 8, dtype=torch.long))


@every_pool
@given(seed=SEEDS, sizes=st.lists(st.integers(0, 4), max_size=4))
def test_packed_tokens_give_what_padded_ones_give(build, seed, sizes):
    torch.manual_seed(seed)
    pool, longest = build().double(), max(sizes, default=0)
    tokens = torch.randn(len(sizes), longest, 8, dtype=torch.float64)
    mask = torch.arange(longest) < torch.tensor(sizes, dtype=torch.long)[:, None]
    packed = tokens[mask].requires_grad_()
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    want, at_tokens, *at_weights = run(pool, tokens, mask)
    got = pool(packed, offsets=offsets)
    torch.testing.assert_close(got, want)
    weight = torch.linspace(-1, 1, got.numel(), dtype=got.dtype).reshape(got.shape)
    gradients = torch.autograd.grad((got * weight).sum(), (packed, *pool.parameters()))
    torch.testing.assert_close(gradients, (at_tokens[mask], *at_weights))


@every_pool
@pytest.mark.compile
def test_packed_tokens_compile_and_export(build):
    pool = build()
    graph = torch.compile(pool, fullgraph=True, backend="aot_eager", dynamic=True)
    cases = [(torch.randn(6, 8), [0, 2, 2, 6]), (torch.randn(9, 8), [0, 1, 5, 8, 9])]
    exported = export(
        pool,
        (cases[0][0],),
        {"offsets": torch.tensor(cases[0][1])},
        dynamic_shapes={"tokens": {0: Dim.AUTO}, "offsets": {0: Dim.AUTO}},
    ).module()
    for tokens, ends in cases:
        offsets = torch.tensor(ends)
        for run_it in (graph, exported):
            torch.testing.assert_close(
                run_it(tokens, offsets=offsets), pool(tokens, offsets=offsets)
            )


@every_pool
@pytest.mark.wording
def test_packed_input_that_does_not_fit_is_explained(build):
    pool, tokens = build(), torch.randn(5, 8)
    with pytest.raises(ValueError, match=r"offsets: expected 0 first, 5 last .* got 0, 2, 4"):
        pool(tokens, offsets=torch.tensor([0, 2, 4]))
    with pytest.raises(ValueError, match="pass mask or offsets, not both"):
        pool(tokens, torch.ones(5, dtype=torch.bool), offsets=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="tokens: expected 2 axes"):
        pool(tokens[None], offsets=torch.tensor([0, 5]))
