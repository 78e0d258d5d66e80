"""A mixture of layers against the formula."""

import pytest
import torch

from embedkit.pooling import LayerWeightedPool, mean_pool


def test_layers_are_mixed_by_softmax():
    torch.manual_seed(0)
    pool, layers = LayerWeightedPool(3).double(), torch.randn(3, 2, 5, 4).double()
    torch.testing.assert_close(pool(layers), layers.mean(dim=0))
    torch.nn.init.normal_(pool.weight)
    want = torch.tensordot(pool.weight.softmax(dim=0), layers, dims=1)
    torch.testing.assert_close(pool(list(layers)), want)
    torch.testing.assert_close(mean_pool(want), pool([mean_pool(layer) for layer in layers]))


def test_half_precision_is_mixed_in_float32():
    layers = [torch.full((2,), 60000.0, dtype=torch.float16)] * 2
    assert LayerWeightedPool(2).half()(layers).tolist() == [60000.0, 60000.0]


@pytest.mark.wording
def test_errors_teach():
    with pytest.raises(ValueError, match="layers: expected 2, one per weight, got 3"):
        LayerWeightedPool(2)(torch.randn(3, 4))
    with pytest.raises(ValueError, match="LayerWeightedPool: num_layers must be >= 1, got 0"):
        LayerWeightedPool(0)
    with pytest.raises(ValueError, match="One encoder pass gives layers of one shape"):
        LayerWeightedPool(2)([torch.randn(2, 3), torch.randn(2, 4)])
