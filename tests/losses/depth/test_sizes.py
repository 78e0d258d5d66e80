import pytest
import torch
import torch.nn.functional as F
from losses.depth.test_adaptive import layers
from losses.test_nested import Generic

from embedkit.losses import InfoNCELoss, info_nce
from embedkit.losses.depth.sizes import LayerDimPairsLoss, layer_dim_pairs

PAIRS = [(1, 2), (1, 4), (2, 4), (4, 8)]


@pytest.mark.parametrize("base", [InfoNCELoss(), Generic(InfoNCELoss())])
def test_pairs_are_the_formula(base):
    query, key = layers(4)
    want = 0.0
    for n, dim in PAIRS:
        want = want + info_nce(query[n - 1][:, :dim], key[n - 1][:, :dim])
        u, full = (torch.cat([query[i], key[i]])[:, :dim] for i in (n - 1, 3))
        kl = F.kl_div((u / 2).log_softmax(1), (full / 2).softmax(1), reduction="batchmean")
        want = want + 0.3 * 2 * kl
    got = LayerDimPairsLoss(base, PAIRS, kl_weight=0.3, kl_temperature=2.0)(query, key)
    torch.testing.assert_close(got, want)


def test_the_order_of_pairs_and_layers_left_out_do_not_matter():
    query, key = layers(4)
    want = LayerDimPairsLoss(InfoNCELoss(), PAIRS)(query, key)
    query[2] = query[2].flip(0)  # layer 3 is in no pair
    torch.testing.assert_close(LayerDimPairsLoss(InfoNCELoss(), PAIRS[::-1])(query, key), want)


def test_the_whole_model_alone_is_the_loss():
    query, key = layers(4)
    got = LayerDimPairsLoss(InfoNCELoss(), [(4, 8)])(query, key)
    torch.testing.assert_close(got, info_nce(query[3], key[3]))


def test_a_coordinate_hears_only_from_the_pairs_that_hold_it():
    query, key = layers(4)
    query = [u.requires_grad_() for u in query]
    grads = torch.autograd.grad(
        LayerDimPairsLoss(InfoNCELoss(), PAIRS)(query, key), query, allow_unused=True
    )
    assert grads[2] is None
    assert (grads[1][:, 4:] == 0).all()
    assert (grads[1][:, :4] != 0).all()


@pytest.mark.wording
def test_wrong_arguments_teach():
    query, key = layers(4)
    for pairs in ([], [(1, 2), (1, 2)], [(0, 2)], [(1, 0)]):
        with pytest.raises(ValueError, match=r"pairs must be different \(layer, dim\), both from"):
            LayerDimPairsLoss(InfoNCELoss(), pairs)
    with pytest.raises(ValueError, match=r"pairs \[\(5, 2\), \(1, 9\)\] exceed 4 layers of width"):
        LayerDimPairsLoss(InfoNCELoss(), [(5, 2), (1, 9), (4, 8)])(query, key)
    with pytest.warns(UserWarning, match=r"the whole model is not trained; add \(4, 8\)"):
        layer_dim_pairs(lambda n, dims: torch.zeros(()), query, [(1, 2)])
    with pytest.raises(ValueError, match=r"LayerDimPairsLoss: kl_weight must be >= 0, got -1"):
        LayerDimPairsLoss(InfoNCELoss(), PAIRS, kl_weight=-1)
