"""A graph file's bytes: hnswlib 0.8's format, read with every number checked, and written.

The format has no magic, version, dim or checksum; ``storage/FORMAT.md`` describes it. Source: hnswlib 0.8.0,
``hnswalg.h``, ``saveIndex``.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import CorruptStoreError
from simstore.index import _kernel

__all__ = ["Header", "UpperLevels", "image_chunks", "read_header", "read_upper"]

_HEADER = struct.Struct("<QQQQQQiIQQQdQ")
HEADER_BYTES = _HEADER.size
_MAX_LEVEL = 64


@dataclass(frozen=True, slots=True)
class Header:
    """The numbers a graph file starts with."""

    n: int
    node_bytes: int
    max_level: int
    entry: int
    M: int
    M0: int
    mult: float
    ef_construction: int
    dim: int

    @property
    def upper_at(self) -> int:
        """Where the upper levels start."""
        return HEADER_BYTES + self.n * self.node_bytes


@dataclass(frozen=True, slots=True, eq=False)
class UpperLevels:
    """The nodes above level 0: their ids, where their lists start, how many levels each has."""

    ids: NDArray[np.uint32]
    at: NDArray[np.uint64]
    levels: NDArray[np.uint8]


def read_header(image: memoryview, n: int, dim: int) -> Header:
    """The header of a file that should hold n vectors of dim floats.

    Raises:
        CorruptStoreError: It does not; the numbers contradict each other, the file's size, n or dim.
    """
    if len(image) < HEADER_BYTES:
        raise CorruptStoreError(f"a graph file of {len(image)} bytes has no header")
    (level0, room, count, node_bytes, label_at, vector_at, max_level, entry, max_m, m0, m, mult, ef) = _HEADER.unpack_from(
        image
    )
    sound = (
        level0 == 0 and count == n and n > 0 and room >= n and 2 <= m == max_m and m0 == 2 * m and m < 1 << 15
        and vector_at == 4 + 4 * m0 and label_at == vector_at + 4 * dim and node_bytes == label_at + 8
        and 0 <= max_level <= _MAX_LEVEL and entry < n and HEADER_BYTES + n * (node_bytes + 4) <= len(image)
    )  # fmt: skip
    if not sound:
        raise CorruptStoreError(f"a graph file's header does not fit {n} vectors of {dim} floats in {len(image)} bytes")
    return Header(n, node_bytes, max_level, entry, m, m0, mult, ef, dim)


def read_upper(image: memoryview, header: Header) -> UpperLevels:
    """The upper levels' index.

    Raises:
        CorruptStoreError: The bytes after level 0 are no upper levels of this graph.
    """
    parsed = _kernel.parse_upper(image, header.upper_at, header.n, header.M, header.max_level)
    if parsed is None or parsed[3] != len(image):
        raise CorruptStoreError("a graph file's upper levels do not fit its size")
    ids, at, levels, _ = parsed
    place = np.searchsorted(ids, header.entry)
    entry_level = int(levels[place]) if place < len(ids) and ids[place] == header.entry else 0
    if entry_level != header.max_level:
        raise CorruptStoreError("a graph file's entry point is not on its top level")
    return UpperLevels(ids, at, levels)


def image_chunks(state: dict[str, Any]) -> list[Any]:
    """The file's bytes for an hnswlib index, from its pickled state: what ``save_index`` would write.

    Made here and not by save_index, which reports no error, syncs nothing and holds the GIL throughout.
    """
    n, m = state["cur_element_count"], state["M"]
    header = _HEADER.pack(
        state["offset_level0"], n, n, state["size_data_per_element"], state["label_offset"], state["offset_data"],
        state["max_level"], state["enterpoint_node"], state["max_M"], state["max_M0"], m, state["mult"],
        state["ef_construction"],
    )  # fmt: skip
    level0 = state["data_level0"].view(np.uint8)[: n * state["size_data_per_element"]]
    return [header, level0, _upper_bytes(state["element_levels"][:n], state["link_lists"].view(np.uint8), 4 + 4 * m)]


def _upper_bytes(levels: NDArray[np.int32], links: NDArray[np.uint8], level_bytes: int) -> NDArray[np.uint8]:
    """Each node's u32 size and its lists, in the order of nodes."""
    sizes = levels.astype(np.int64) * level_bytes
    ends = np.cumsum(sizes + 4)
    out = np.zeros(int(ends[-1]), np.uint8)
    read = 0
    for node in np.flatnonzero(levels > 0).tolist():
        size, end = int(sizes[node]), int(ends[node])
        out[end - size - 4 : end - size] = np.frombuffer(struct.pack("<I", size), np.uint8)
        out[end - size : end] = links[read : read + size]
        read += size
    return out


def state_of(image: memoryview, header: Header, *, room: int, seed: int, is_ip: bool) -> dict[str, Any]:
    """The pickled state from which hnswlib goes on building a saved graph, with room for more and a level generator of its own.

    After a plain load_index the generator starts again at the same point, and every node that is added lands on level 0.
    """
    upper = read_upper(image, header)
    level_bytes = 4 + 4 * header.M
    levels = np.zeros(room, np.int32)
    levels[upper.ids] = upper.levels
    content = np.frombuffer(image, np.uint8)
    lists = [content[at : at + size * level_bytes] for at, size in zip(upper.at.tolist(), upper.levels.tolist(), strict=True)]
    level0 = content[HEADER_BYTES : header.upper_at]
    rows = level0.reshape(header.n, header.node_bytes)[:, -8:].copy().view("<u8")[:, 0]
    return {
        "ser_version": 1, "space": "ip" if is_ip else "l2", "dim": header.dim, "index_inited": True, "ep_added": True,
        "normalize": False, "num_threads": 1, "seed": seed, "offset_level0": 0, "max_elements": room,
        "cur_element_count": header.n, "size_data_per_element": header.node_bytes, "label_offset": header.node_bytes - 8,
        "offset_data": 4 + 4 * header.M0, "max_level": header.max_level, "enterpoint_node": header.entry,
        "max_M": header.M, "max_M0": header.M0, "M": header.M, "mult": header.mult,
        "ef_construction": header.ef_construction, "ef": 10, "has_deletions": False, "size_links_per_element": level_bytes,
        "allow_replace_deleted": False, "label_lookup_external": rows,
        "label_lookup_internal": np.arange(header.n, dtype=np.uint32), "element_levels": levels,
        "data_level0": level0.view(np.int8),
        "link_lists": (np.concatenate(lists) if lists else np.empty(0, np.uint8)).view(np.int8),
    }  # fmt: skip
