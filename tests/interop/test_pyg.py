"""PyG's data in, our layers in PyG's containers, and our operators in PyG's layers."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.datasets import FakeDataset, Planetoid
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, HeteroConv, LGConv, Sequential
from torch_geometric.utils import k_hop_subgraph, to_undirected

from embedkit.graph import (
    DAGNN,
    DAGNNPropagation,
    GCNEncoder,
    LightGCNConv,
    NGCFConv,
    adjacency_from_sparse,
    bipartite_adjacency,
    build_adjacency,
    propagate,
    to_edge_index,
    to_torch_sparse,
)

DATA = Path(os.environ.get("EMBEDKIT_DATA", "../shared/data"))
LAYERS = {
    "NGCF": lambda: NGCFConv(8, 8),
    "LightGCN": LightGCNConv,
    "DAGNN": lambda: DAGNN(8, 16, 8, num_hops=3),
    "hops": lambda: DAGNNPropagation(8, num_hops=3),
    "GCN": lambda: GCNEncoder([8, 6, 8]),
}


def graph(size=20, seed=0):
    torch.manual_seed(seed)
    edges = to_undirected(torch.randint(0, size, (2, 40)), num_nodes=size)
    return Data(x=torch.randn(size, 8), edge_index=edges)


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_layers_stand_in_a_sequential_beside_those_of_pyg(build):
    data, layer, last = graph(), build().eval(), GCNConv(8, 3)
    model = Sequential(
        "x, edge_index",
        [
            (layer, "x, edge_index -> x"),
            torch.nn.ReLU(inplace=False),
            (last, "x, edge_index -> x"),
        ],
    )
    want = last(layer(data.x, data.edge_index).relu(), data.edge_index)
    torch.testing.assert_close(model(data.x, data.edge_index), want)
    want.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_a_mini_batch_of_graphs_is_its_graphs(build):
    layer = build().eval()
    graphs = [graph(size, seed) for seed, size in enumerate((12, 20, 7))]
    (batch,) = DataLoader(graphs, batch_size=3)
    want = torch.cat([layer(one.x, one.edge_index) for one in graphs])
    torch.testing.assert_close(layer(batch.x, batch.edge_index), want)


def test_the_neighbourhood_of_a_node_is_enough_for_as_many_layers():
    data = graph(40)
    nodes, edges, place, _ = k_hop_subgraph(3, 3, data.edge_index, relabel_nodes=True)
    whole = build_adjacency(data.edge_index, num_nodes=40, norm="row")
    part = build_adjacency(edges, num_nodes=len(nodes), norm="row")
    far, near = data.x, data.x[nodes]
    for _ in range(3):
        far, near = propagate(far, whole), propagate(near, part)
    torch.testing.assert_close(near[place], far[[3]])


def test_users_and_items_of_heterogeneous_data():
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = 4, 6
    data["user", "rates", "item"].edge_index = torch.tensor([[0, 1, 3, 3], [0, 5, 2, 0]])
    pairs = data["user", "rates", "item"].edge_index
    adjacency = bipartite_adjacency(*pairs, data["user"].num_nodes, data["item"].num_nodes)
    nodes = torch.randn(10, 3)
    homogeneous = data.to_homogeneous()
    edges = to_undirected(homogeneous.edge_index, num_nodes=10)
    torch.testing.assert_close(LightGCNConv()(nodes, adjacency), LGConv()(nodes, edges))


@pytest.mark.wording
def test_heterogeneous_data_without_a_number_of_nodes():
    data = HeteroData()
    data["user", "rates", "item"].edge_index = pairs = torch.tensor([[0], [0]])
    with pytest.warns(UserWarning, match="Unable to accurately infer 'num_nodes'"):
        users = data["user"].num_nodes
    with pytest.raises(TypeError, match=r'num_users must be an integer, got None.*data\["user"\]'):
        bipartite_adjacency(*pairs, users, 1)


@pytest.mark.wording
def test_a_layer_between_two_types_of_nodes():
    nodes = {"user": torch.randn(2, 3), "item": torch.randn(3, 3)}
    pairs = torch.tensor([[0, 1], [1, 0]])
    with pytest.warns(UserWarning, match="do not get updated"):
        conv = HeteroConv({("item", "to", "user"): LightGCNConv()})
    with pytest.raises(TypeError, match=r"LightGCNConv: nodes must be one .*bipartite_adjacency"):
        conv(nodes, {("item", "to", "user"): pairs})
    one = HeteroConv({("user", "to", "user"): LightGCNConv()})
    got = one(nodes, {("user", "to", "user"): pairs})["user"]
    torch.testing.assert_close(got, LGConv()(nodes["user"], pairs))


def test_our_operator_in_layers_of_pyg():
    data = graph()
    adjacency = build_adjacency(data.edge_index, num_nodes=20)
    want = propagate(data.x, adjacency)
    conv = LGConv(normalize=False)
    torch.testing.assert_close(conv(data.x, *to_edge_index(adjacency)), want)
    torch.testing.assert_close(conv(data.x, to_torch_sparse(adjacency)), want)
    typed = EdgeIndex(data.edge_index, sparse_size=(20, 20), is_undirected=True)
    plain = propagate(data.x, adjacency_from_sparse(typed))
    torch.testing.assert_close(typed.sort_by("row").values.matmul(data.x), plain)


def test_edge_weights_go_where_pyg_puts_them():
    data, weight = graph(), torch.rand(graph().num_edges)
    got = LightGCNConv()(data.x, data.edge_index, weight)
    torch.testing.assert_close(got, LGConv()(data.x, data.edge_index, weight))


def test_a_data_set_of_pyg():
    data = FakeDataset(num_graphs=1, num_channels=8)[0]
    model = DAGNN(8, 16, 3, num_hops=4).eval()
    adjacency = build_adjacency(data.edge_index, num_nodes=data.num_nodes, norm="gcn")
    torch.testing.assert_close(model(data.x, adjacency), model(data.x, data.edge_index))


@pytest.mark.skipif(not (DATA / "planetoid").is_dir(), reason=f"no planetoid/ in {DATA}")
def test_planetoid(tmp_path):
    shutil.copytree(DATA / "planetoid" / "raw", tmp_path / "Cora" / "raw")
    data = Planetoid(tmp_path, "Cora")[0]
    adjacency = build_adjacency(data.edge_index, num_nodes=data.num_nodes, norm="gcn")
    assert adjacency.transpose is None
    encoder = GCNEncoder([data.num_features, 16, 8])
    torch.testing.assert_close(
        encoder(data.x, adjacency), encoder(data.x, data.edge_index), atol=1e-6, rtol=1e-5
    )
