"""Graphs to test the kernel with, and the naive loops that say what is right."""

import heapq
import struct
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from simstore.index import Build, BuildOptions, Found, Segment, block_checksums, build_graph
from simstore.index._kernel import Graph
from simstore.index.image import HEADER_BYTES, read_header, read_upper

Floats = NDArray[np.float32]
Rows = NDArray[np.uint64]
NO_ROWS = np.empty(0, np.uint64)


def options(M: int = 8, ef_construction: int = 60, seed: int = 1, threads: int = 1) -> BuildOptions:
    return BuildOptions(M, ef_construction, seed, threads, lambda done, total: True)


def build(vectors: Floats, rows: Rows | None = None, is_ip: bool = False, **how: Any) -> Build:
    made = build_graph(vectors, rows_from(0, len(vectors)) if rows is None else rows, is_ip, options(**how))
    assert made is not None
    return made


def image_of(made: Build) -> bytes:
    return b"".join(bytes(memoryview(chunk).cast("B")) for chunk in made.chunks)


def rows_from(first: int, n: int) -> Rows:
    return np.arange(first, first + n, dtype=np.uint64)


def graph_of(
    image: bytes | memoryview,
    n: int,
    dim: int,
    *,
    is_ip: bool = False,
    made: Build | None = None,
    first_row: int = 0,
    last_row: int = 1 << 40,
    level: str | None = None,
    **more: Any,
) -> Graph:
    """The kernel's graph, as Segment makes it, without checksums."""
    view = memoryview(image)
    header = read_header(view, n, dim)
    upper = read_upper(view, header)
    if made is not None:
        more |= {"copy_nodes": made.copy_nodes, "copy_starts": made.copy_starts, "copy_rows": made.copy_rows}
    return Graph(
        view, n=n, dim=dim, M=header.M, M0=header.M0, entry=header.entry, max_level=header.max_level,
        upper_ids=upper.ids, upper_at=upper.at, upper_levels=upper.levels, is_ip=is_ip, first_row=first_row,
        last_row=last_row, level=level, **more,
    )  # fmt: skip


def segment_of(
    made: Build,
    dim: int,
    *,
    is_ip: bool = False,
    last_row: int,
    first_row: int = 0,
    image: bytes | memoryview | None = None,
    orphans: NDArray[np.uint32] | None = None,
) -> Segment:
    """A segment with the checksums of what was built, over these bytes or others."""
    written = image_of(made)
    return Segment(
        memoryview(written if image is None else image), checksums=block_checksums(memoryview(written)),
        n_nodes=made.n_nodes, dim=dim, is_ip=is_ip, first_row=first_row, last_row=last_row,
        copy_nodes=made.copy_nodes, copy_starts=made.copy_starts, copy_rows=made.copy_rows,
        orphans=np.empty(0, np.uint32) if orphans is None else orphans,
    )  # fmt: skip


def plain_index(path: Path, image: bytes, space: str, dim: int) -> Any:
    """Plain hnswlib, with the file loaded."""
    path.write_bytes(image)
    index = hnswlib.Index(space, dim)
    index.load_index(str(path))
    return index


def asked(run: Any, queries: Floats, k: int, *args: Any) -> tuple[list[tuple[Floats, Rows]], int]:
    """Calls graph.search or graph.scan; what each query found, and the flags."""
    found = Found(len(queries), k)
    found.distances[:], found.rows[:] = -77.0, 77  # whatever stands there when nothing has been found
    flags = run(queries, *args, found) or 0
    assert (found.counts >= 0).all() and (found.counts <= k).all()
    return answers(found), flags


def answers(found: Found) -> list[tuple[Floats, Rows]]:
    return [(found.distances[i, :n], found.rows[i, :n]) for i, n in enumerate(found.counts.tolist())]


def bitmap(rows: Rows, n_bits: int) -> NDArray[np.uint64]:
    bits = np.zeros(-(-max(n_bits, 1) // 64) * 64, np.uint8)
    bits[rows.astype(np.int64)] = 1
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def oracle(vectors: Floats, rows: Rows, query: Floats, k: int, is_ip: bool = False) -> tuple[NDArray[np.float64], Rows]:
    """The k nearest by (distance, row), in float64."""
    wide, at = vectors.astype(np.float64), query.astype(np.float64)
    distances = 1.0 - wide @ at if is_ip else ((wide - at) ** 2).sum(axis=1)
    order = np.lexsort((rows, distances))[:k]
    return distances[order], rows[order]


def whole_numbers(seed: int, n: int, dim: int, largest: int = 8) -> Floats:
    """Vectors of small whole numbers: their distances are exact in float32, in whatever order they are summed."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, (n, dim)).astype(np.float32)


def normal(seed: int, n: int, dim: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def node_bytes(dim: int, M: int) -> int:
    return 4 + 8 * M + 4 * dim + 8


def links_of(image: bytes, node: int, dim: int, M: int) -> list[int]:
    """A node's links on level 0."""
    at = HEADER_BYTES + node * node_bytes(dim, M)
    (count,) = struct.unpack_from("<H", image, at)
    return list(struct.unpack_from(f"<{count}I", image, at + 4))


def naive_walk(image: bytes, n: int, dim: int, distances: NDArray[Any], ef: int) -> list[tuple[float, int]]:
    """Algorithms 2 and 5 of the HNSW paper with the distances of all nodes known: the ef nearest (distance, node) it meets."""
    header = read_header(memoryview(image), n, dim)
    levels: list[list[list[int]]] = []
    at = header.upper_at
    for _ in range(n):
        (size,) = struct.unpack_from("<I", image, at)
        lists = []
        for start in range(at + 4, at + 4 + size, 4 + 4 * header.M):
            (count,) = struct.unpack_from("<H", image, start)
            lists.append(list(struct.unpack_from(f"<{count}I", image, start + 4)))
        levels.append(lists)
        at += 4 + size
    node = header.entry
    for level in range(header.max_level, 0, -1):
        moved = True
        while moved:
            links = levels[node][level - 1]
            nearest = min(links, key=lambda link: distances[link], default=node)
            moved = bool(distances[nearest] < distances[node])
            node = nearest if moved else node
    met = {node}
    candidates = [(float(distances[node]), node)]
    best = [(-float(distances[node]), -node)]
    while candidates:
        distance, node = heapq.heappop(candidates)
        if distance > -best[0][0] and len(best) == ef:
            break
        for link in links_of(image, node, dim, header.M):
            if link in met:
                continue
            met.add(link)
            d = float(distances[link])
            if len(best) < ef or d < -best[0][0]:
                heapq.heappush(candidates, (d, link))
                heapq.heappush(best, (-d, -link))
                if len(best) > ef:
                    heapq.heappop(best)
    return sorted((-d, -link) for d, link in best)
