"""Configuration becomes objects; the only place where that happens.

graph     the ways out: routes -> pools -> chains of hops; a reload replaces it as a whole
engine    everything between a client and the network: endpoint -> switch -> graph
modules   the module proxy over such an engine: store, fetcher, checksums, server
"""

from gotunnel.assemble.engine import Engine, build_engine
from gotunnel.assemble.graph import Graph, build_graph, chain_of

__all__ = ["Engine", "Graph", "build_engine", "build_graph", "chain_of"]
