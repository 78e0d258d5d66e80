"""PPMI, NetMF and the randomised SVD under them."""

import math

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.graph import adjacency_from_entries, build_adjacency
from embedkit.graph.structure.factorize import netmf, ppmi_factorize, randomized_svd, transposed

PATH = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


def dense(adjacency):
    out = torch.zeros(adjacency.num_rows, adjacency.num_cols, dtype=adjacency.value.dtype)
    out[adjacency.row, adjacency.col] = adjacency.value
    return out


def random_matrix(seed, rows, cols, entries=40):
    torch.manual_seed(seed)
    row, col = torch.randint(rows, (entries,)), torch.randint(cols, (entries,))
    return adjacency_from_entries(row, col, torch.rand(entries).double() + 0.1, rows, cols)


def ppmi(counts):
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / counts.sum()
    return torch.where(counts > 0, (counts / expected).log(), 0.0).clamp(min=0)


def path():
    return build_adjacency(PATH, norm="none", dtype=torch.float64)


def test_ppmi_of_the_path_is_the_number_by_hand():
    source, context = ppmi_factorize(path(), 4)
    want = torch.zeros(4, 4).double()
    want[[0, 1, 2, 3], [1, 0, 3, 2]], want[[1, 2], [2, 1]] = math.log(3), math.log(1.5)
    torch.testing.assert_close(source @ context.T, want)


def test_netmf_of_the_path_is_the_number_by_hand():
    source, context = netmf(path(), 4, window=2)
    want = torch.tensor([math.log(1.5), math.log(1.5), 0, 0]).double()
    torch.testing.assert_close((source @ context.T)[0], want)
    again, _ = netmf(path(), 4, window=2, negatives=0.5)
    assert (again.norm() > source.norm()).item()


@given(seed=st.integers(0, 2**31), window=st.integers(1, 5))
def test_netmf_is_its_dense_formula(seed, window):
    torch.manual_seed(seed)
    edges = torch.randint(9, (2, 20))
    graph = build_adjacency(torch.cat([edges, edges.flip(0)], 1), None, 9, norm="none")
    a = dense(graph.to(dtype=torch.float64))
    share = torch.where(a.sum(1) > 0, 1 / a.sum(1), 0.0)
    p = share[:, None] * a
    total = sum(torch.linalg.matrix_power(p, step) for step in range(1, window + 1))
    m = (a.sum() / (2.0 * window) * total * share).clamp(min=1).log()
    source, context = netmf(graph.to(dtype=torch.float64), 9, window=window, negatives=2.0)
    torch.testing.assert_close(source @ context.T, m, atol=1e-9, rtol=1e-9)


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 9), cols=st.integers(1, 9))
def test_full_rank_gives_back_the_ppmi(seed, rows, cols):
    matrix = random_matrix(seed, rows, cols)
    source, context = ppmi_factorize(matrix, 12)
    torch.testing.assert_close(source @ context.T, ppmi(dense(matrix)), atol=1e-9, rtol=1e-9)
    assert not source[:, min(rows, cols) :].any()


def test_shift_and_power():
    matrix = random_matrix(0, 8, 8)
    source, context = ppmi_factorize(matrix, 8, shift=2.0)
    full = dense(matrix)
    expected = full.sum(1, keepdim=True) * full.sum(0) / full.sum()
    want = torch.where(full > 0, (full / expected).log() - math.log(2), 0.0).clamp(min=0)
    torch.testing.assert_close(source @ context.T, want, atol=1e-9, rtol=1e-9)
    white = ppmi_factorize(matrix, 3, power=0.0).source
    torch.testing.assert_close(white.T @ white, torch.eye(3).double())


def test_singular_values_are_those_of_scipy():
    matrix = random_matrix(3, 300, 200, 3000)
    full = ppmi(dense(matrix))
    source, context = ppmi_factorize(matrix, 20)
    want = np.sort(scipy.sparse.linalg.svds(full.numpy(), 20, return_singular_vectors=False))[::-1]
    got = source.square().sum(0)
    torch.testing.assert_close(got, torch.from_numpy(want.copy()), rtol=0.02, atol=0.0)
    best = torch.linalg.svdvals(full)[20:].norm()
    assert (full - source @ context.T).norm() < 1.005 * best


def test_a_seed_fixes_the_vectors_and_signs_do_not_depend_on_it():
    matrix = random_matrix(1, 30, 30, 200)
    runs = [
        ppmi_factorize(matrix, 5, generator=torch.Generator().manual_seed(seed)).source
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    torch.testing.assert_close(runs[0], runs[2], atol=1e-3, rtol=1e-3)


def test_nodes_without_entries_get_zeros():
    graph = build_adjacency(PATH, num_nodes=6, norm="none")
    for factors in (ppmi_factorize(graph, 3), netmf(graph, 3, window=2)):
        assert factors.source.shape == (6, 3)
        assert factors.source.dtype == torch.float32
        assert not factors.source[4:].any()
        assert not factors.context[4:].any()
        assert factors.source[:4].any(1).all()
    for nodes in (0, 3):
        empty = build_adjacency(PATH[:, :0], num_nodes=nodes, norm="none")
        assert not ppmi_factorize(empty, 2).source.any()
        assert netmf(empty, 2).source.shape == (nodes, 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_the_size_of_the_counts_does_not_matter(scale):
    graph = path().to(dtype=torch.float32)
    scaled = graph._replace(value=graph.value * scale)
    for one, other in zip(ppmi_factorize(scaled, 4), ppmi_factorize(graph, 4), strict=True):
        torch.testing.assert_close((one @ one.T), (other @ other.T))
    assert ppmi_factorize(scaled, 4).source.any()


def test_half_precision_comes_back_in_half():
    source = ppmi_factorize(path().to(dtype=torch.bfloat16), 2).source
    assert source.dtype == torch.bfloat16
    assert source.isfinite().all()


def test_transposed_shares_the_indices():
    matrix = random_matrix(2, 5, 7)
    other = transposed(matrix)
    torch.testing.assert_close(dense(other), dense(matrix).T)
    torch.testing.assert_close(dense(transposed(other)), dense(matrix))
    assert other.transpose is not None
    assert other.transpose.col.data_ptr() == matrix.col.data_ptr()


def test_svd_of_lower_rank_is_padded_with_zeros():
    a = torch.outer(torch.arange(6.0), torch.tensor([1.0, -2.0])).double()
    left, values, right = randomized_svd(
        lambda x: a @ x, lambda y: a.T @ y, torch.randn(2, 4).double(), 3
    )
    torch.testing.assert_close((left * values) @ right.T, a)
    assert (values > 0).tolist() == [True, False, False]


def test_errors_teach():
    directed = build_adjacency(PATH[:, :1], num_nodes=2, norm="none")
    with pytest.raises(ValueError, match="netmf: expected an undirected graph"):
        netmf(directed, 2)
    with pytest.raises(MemoryError, match=r"more than max_entries=3. A smaller window"):
        netmf(path(), 2, window=2, max_entries=3)
    negative = adjacency_from_entries(
        torch.tensor([0]), torch.tensor([1]), torch.tensor([-1.0]), 2, 2
    )
    with pytest.raises(ValueError, match=r"must be finite and >= 0, got values in \[-1, -1\]"):
        ppmi_factorize(negative, 2)
    with pytest.raises(ValueError, match="ppmi_factorize: shift must be > 0, got 0"):
        ppmi_factorize(path(), 2, shift=0.0)
    with pytest.raises(ValueError, match="ppmi_factorize: dim must be >= 1, got 0"):
        ppmi_factorize(path(), 0)
    with pytest.raises(ValueError, match="rank must lie between 1 and the 2 columns"):
        randomized_svd(lambda x: x, lambda x: x, torch.randn(3, 2), 3)


@pytest.mark.wording
def test_an_edge_list_is_no_matrix():
    with pytest.raises(TypeError, match="ppmi_factorize: expected an Adjacency, got Tensor"):
        ppmi_factorize(PATH, 2)
