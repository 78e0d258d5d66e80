"""The orbit adjacencies of 20,000 nodes of average degree 10: seconds and memory at the peak."""

import argparse
import time

import networkx as nx
import torch
from _measure import mib, peak_bytes, save

from embedkit.graph.structure._orbit_matrices import ORBIT_KEYS
from embedkit.graph.structure.graphlet_degrees import graphlet_degree_vectors
from embedkit.graph.structure.orbits import orbit_adjacencies


def graph(kind: str, nodes: int) -> torch.Tensor:
    """Both directions of 5 * nodes edges."""
    if kind == "random":
        made = nx.gnm_random_graph(nodes, 5 * nodes, seed=0)
    else:
        made = nx.barabasi_albert_graph(nodes, 5, seed=0)
    edges = torch.tensor(list(made.edges)).T
    return torch.cat([edges, edges.flip(0)], dim=1)


def main(nodes: int = 20_000) -> None:
    torch.set_num_threads(2)
    rows = []
    for kind in ("random", "preferential attachment"):
        edges = graph(kind, nodes)
        least = [key for key in ORBIT_KEYS if key != (3, 4, 4)]
        calls = {
            "graphlet degree vectors": lambda e=edges: graphlet_degree_vectors(e, nodes),
            "27 matrices": lambda e=edges, k=least: orbit_adjacencies(e, nodes, k),
            "28 matrices": lambda e=edges: orbit_adjacencies(e, nodes),
        }
        for name, call in calls.items():
            start = time.perf_counter()
            found = call()
            seconds = time.perf_counter() - start
            entries = "-"
            if isinstance(found, dict):
                entries = f"{sum(len(a.value) for a in found.values()) / 1e6:.1f} M"
            del found
            rows.append([kind, name, f"{seconds:.1f}", entries, mib(peak_bytes(call))])
            print(rows[-1], flush=True)
    header = ["graph", "what", "seconds", "entries", "peak MiB, result included"]
    save("orbits", f"Orbit adjacencies, {nodes:,} nodes of average degree 10", header, rows, "cpu")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=20_000)
    main(parser.parse_args().nodes)
