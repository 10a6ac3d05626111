"""The index: graphs that are built by hnswlib and searched here, and exact scans. It knows rows and vectors, never keys."""

from simstore.index._kernel import Found, cpu_levels
from simstore.index.builder import Build, BuildOptions, build_graph, extend_graph
from simstore.index.exact import Coarse, coarse_dims, distances_to, prepared, prepared_queries, scan
from simstore.index.segment import Segment, block_checksums

__all__ = [
    "Build",
    "BuildOptions",
    "Coarse",
    "Found",
    "Segment",
    "block_checksums",
    "build_graph",
    "coarse_dims",
    "cpu_levels",
    "distances_to",
    "extend_graph",
    "prepared",
    "prepared_queries",
    "scan",
]
