"""Configuration becomes objects; the only place where that happens.

engine    everything between a client and the network: endpoint -> router -> pool -> chains
modules   the module proxy over such an engine: store, fetcher, checksums, server, prefetch
"""

from gotunnel.assemble.engine import Engine, build_engine, chain_of

__all__ = ["Engine", "build_engine", "chain_of"]
