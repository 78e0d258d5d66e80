"""Graphs: edges -> operators, nodes and edges -> nodes."""

from embedkit.graph.adjacency import (
    Adjacency,
    Transpose,
    add_identity,
    adjacency_from_entries,
    propagate,
    reweight,
)
from embedkit.graph.build import bipartite_adjacency, build_adjacency
from embedkit.graph.contrast.bounds import (
    AdjacencyBounds,
    Interval,
    Relaxation,
    clip_to_range,
    edge_drop_bounds,
    interval_gcn,
    relu_relaxation,
)
from embedkit.graph.contrast.compactness import NodeCompactness, node_compactness, node_margin
from embedkit.graph.contrast.context import ContextGCN, MetaPathContext, mask_edges, mask_entries
from embedkit.graph.contrast.hetero import relation_from_hetero
from embedkit.graph.contrast.metapath import (
    metapath_contexts,
    metapath_counts,
    pathsim,
    topk_pathsim,
)
from embedkit.graph.convert import (
    adjacency_from_sparse,
    to_edge_index,
    to_pyg_edge_index,
    to_scipy,
    to_torch_sparse,
)
from embedkit.graph.dropout import edge_dropout, node_dropout
from embedkit.graph.knowledge.attentive import (
    AttentivePropagation,
    BiInteractionAggregator,
    GCNAggregator,
    SAGEAggregator,
)
from embedkit.graph.knowledge.collaborative import (
    KnowledgeGraph,
    RelationGroup,
    collaborative_knowledge_graph,
    knowledge_graph,
)
from embedkit.graph.knowledge.paths import AttentionPaths, attention_paths
from embedkit.graph.knowledge.relational_attention import RelationalAttention, relational_attention
from embedkit.graph.propagation.adaptive_depth import (
    AdaptiveHopGate,
    DAGNNPropagation,
    adaptive_propagation,
    hop_stack,
)
from embedkit.graph.propagation.bi_interaction import bi_interaction
from embedkit.graph.propagation.combination import (
    LayerCombination,
    PropagatedEmbedding,
    combine_layers,
)
from embedkit.graph.propagation.dagnn import DAGNN
from embedkit.graph.propagation.encoder import GCNEncoder
from embedkit.graph.propagation.lightgcn import LightGCNConv
from embedkit.graph.propagation.limit import PropagationLimit, propagation_limit
from embedkit.graph.propagation.ngcf import NGCFConv
from embedkit.graph.structure._orbit_matrices import ORBIT_KEYS
from embedkit.graph.structure.autoencoder import SDNE, neighbor_rows
from embedkit.graph.structure.factorize import Factors, netmf, ppmi_factorize, randomized_svd
from embedkit.graph.structure.graphlet_degrees import (
    edge_graphlet_degree_vectors,
    graphlet_degree_vectors,
)
from embedkit.graph.structure.orbits import graphlet_adjacency, orbit_adjacencies, orbit_adjacency
from embedkit.graph.structure.proximity import hope_embedding, katz_proximity, spectral_radius
from embedkit.graph.structure.walks import random_walks, walk_pairs

__all__ = [
    "DAGNN",
    "ORBIT_KEYS",
    "SDNE",
    "AdaptiveHopGate",
    "Adjacency",
    "AdjacencyBounds",
    "AttentionPaths",
    "AttentivePropagation",
    "BiInteractionAggregator",
    "ContextGCN",
    "DAGNNPropagation",
    "Factors",
    "GCNAggregator",
    "GCNEncoder",
    "Interval",
    "KnowledgeGraph",
    "LayerCombination",
    "LightGCNConv",
    "MetaPathContext",
    "NGCFConv",
    "NodeCompactness",
    "PropagatedEmbedding",
    "PropagationLimit",
    "RelationGroup",
    "RelationalAttention",
    "Relaxation",
    "SAGEAggregator",
    "Transpose",
    "adaptive_propagation",
    "add_identity",
    "adjacency_from_entries",
    "adjacency_from_sparse",
    "attention_paths",
    "bi_interaction",
    "bipartite_adjacency",
    "build_adjacency",
    "clip_to_range",
    "collaborative_knowledge_graph",
    "combine_layers",
    "edge_drop_bounds",
    "edge_dropout",
    "edge_graphlet_degree_vectors",
    "graphlet_adjacency",
    "graphlet_degree_vectors",
    "hop_stack",
    "hope_embedding",
    "interval_gcn",
    "katz_proximity",
    "knowledge_graph",
    "mask_edges",
    "mask_entries",
    "metapath_contexts",
    "metapath_counts",
    "neighbor_rows",
    "netmf",
    "node_compactness",
    "node_dropout",
    "node_margin",
    "orbit_adjacencies",
    "orbit_adjacency",
    "pathsim",
    "ppmi_factorize",
    "propagate",
    "propagation_limit",
    "random_walks",
    "randomized_svd",
    "relation_from_hetero",
    "relational_attention",
    "relu_relaxation",
    "reweight",
    "spectral_radius",
    "to_edge_index",
    "to_pyg_edge_index",
    "to_scipy",
    "to_torch_sparse",
    "topk_pathsim",
    "walk_pairs",
]
