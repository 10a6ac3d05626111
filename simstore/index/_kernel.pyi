from typing import Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

__all__ = [
    "BLOCK_GOOD",
    "BLOCK_SHIFT",
    "BLOCK_UNKNOWN",
    "BLOCK_WANTED",
    "CORRUPT",
    "FEW",
    "NOT_FINITE",
    "NO_MEMORY",
    "OK",
    "TOO_LARGE",
    "UNVERIFIED",
    "ZERO",
    "Found",
    "Graph",
    "cpu_levels",
    "parse_upper",
    "prepare",
    "row_distances",
    "scan_rows",
]

# flags
CORRUPT: Final[int]
UNVERIFIED: Final[int]
NO_MEMORY: Final[int]
FEW: Final[int]

BLOCK_SHIFT: Final[int]

# block states
BLOCK_UNKNOWN: Final[int]
BLOCK_GOOD: Final[int]
BLOCK_WANTED: Final[int]

# what prepare() returns
OK: Final[int]
NOT_FINITE: Final[int]
TOO_LARGE: Final[int]
ZERO: Final[int]

def cpu_levels() -> tuple[str, ...]: ...

class Found:
    n_parts: int
    n_compared: int
    def __init__(self, n_queries: int, k: int) -> None: ...
    @property
    def n(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def distances(self) -> NDArray[np.float32]: ...  # (n_queries, k)
    @property
    def rows(self) -> NDArray[np.uint64]: ...  # (n_queries, k)
    @property
    def counts(self) -> NDArray[np.int32]: ...  # (n_queries,)
    def only(self) -> tuple[list[int], NDArray[np.float32]]: ...  # (count,)
    def copy(self) -> Found: ...
    def become(self, other: Found | None) -> None: ...

class Graph:
    def __init__(
        self,
        image: Buffer,  # uint8 [size]
        *,
        n: int,
        dim: int,
        M: int,
        M0: int,
        entry: int,
        max_level: int,
        upper_ids: NDArray[np.uint32],  # (n_upper,)
        upper_at: NDArray[np.uint64],  # (n_upper,)
        upper_levels: NDArray[np.uint8],  # (n_upper,)
        is_ip: bool,
        first_row: int,
        last_row: int,
        blocks: NDArray[np.uint8] | None = None,  # (n_blocks,), written to
        copy_nodes: NDArray[np.uint32] | None = None,  # (n_copied,)
        copy_starts: NDArray[np.uint64] | None = None,  # (n_copied + 1,)
        copy_rows: NDArray[np.uint64] | None = None,  # (n_copies,)
        orphans: NDArray[np.uint32] | None = None,  # (n_orphans,)
        level: str | None = None,
    ) -> None: ...
    def trust(self) -> None: ...
    def search(
        self,
        queries: NDArray[np.float32],  # (n_queries, dim)
        ef: int,
        allowed: NDArray[np.uint64] | None,  # a bitmap
        found: Found,
        expected: int = 0,
        budget: int = ...,
        hidden: NDArray[np.uint32] | None = None,  # (n_queries,)
        allowed_nodes: NDArray[np.uint64] | None = None,  # a bitmap
    ) -> int: ...
    def scan(
        self,
        queries: NDArray[np.float32],  # (n_queries, dim)
        nodes: NDArray[np.uint32] | None,
        allowed: NDArray[np.uint64] | None,  # a bitmap
        found: Found,
    ) -> int: ...
    def distances_to_all(
        self,
        query: NDArray[np.float32],  # (dim,)
        out: NDArray[np.float32],  # (n,), written to
    ) -> int: ...
    def node_rows(self) -> tuple[NDArray[np.uint64], int]: ...
    def unreachable(self) -> tuple[NDArray[np.uint32], int]: ...

def parse_upper(
    image: Buffer,  # uint8 [size]
    start: int,
    n: int,
    M: int,
    max_level: int,
) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint8], int] | None: ...
def scan_rows(
    vectors: NDArray[np.float32],  # (n, dim)
    first_row: int,
    queries: NDArray[np.float32],  # (n_queries, dim)
    is_ip: bool,
    allowed: NDArray[np.uint64] | None,  # a bitmap
    found: Found,
    level: str | None = None,
    coarse: NDArray[np.float32] | None = None,  # (n, m)
    coarse_queries: NDArray[np.float32] | None = None,  # (n_queries, m)
) -> None: ...
def row_distances(
    vectors: NDArray[np.float32],  # (n, dim)
    query: NDArray[np.float32],  # (dim,)
    is_ip: bool,
    out: NDArray[np.float32],  # (n,), written to
    level: str | None = None,
) -> None: ...
def prepare(
    vectors: NDArray[np.float32],  # (n, dim)
    normalise: bool,
    out: NDArray[np.float32] | None,  # (n, dim), written to
) -> tuple[int, int]: ...
