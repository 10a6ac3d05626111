"""A mapped graph file that answers: approximately along its graph, or exactly row by row."""

import math
import mmap
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from simstore.errors import CorruptStoreError
from simstore.index import _kernel
from simstore.index._kernel import Found
from simstore.index.image import HEADER_BYTES, read_header, read_upper

__all__ = ["BLOCK_BYTES", "Segment", "block_checksums"]

BLOCK_BYTES = 1 << _kernel.BLOCK_SHIFT
_FEW = 2000
_LEAST_BUDGET = 4000  # nodes that a walk may always meet
_LOOK_EVERY_S = 0.001


def block_checksums(image: memoryview) -> NDArray[np.uint64]:
    """The xxh3 of each 64 KB of a file."""
    starts = range(0, len(image), BLOCK_BYTES)
    return np.array([xxh3_64_intdigest(image[at : at + BLOCK_BYTES]) for at in starts], np.uint64)


class Segment:
    """A graph over rows first_row … last_row.

    The file is mapped, never loaded. A block of it is compared with its checksum before anything in it counts for an answer,
    and only once: opening costs the same however large the file is.

    Args:
        image: The file's bytes.
        checksums: ``block_checksums`` of what was written.
        n_nodes, dim, is_ip, first_row, last_row: What the file should hold.
        copy_nodes, copy_starts, copy_rows: The nodes that stand for several rows, and those rows but the first.
        orphans: Nodes to be compared one by one.

    Raises:
        CorruptStoreError: The file is not what was written.
    """

    def __init__(
        self,
        image: memoryview,
        *,
        checksums: NDArray[np.uint64],
        n_nodes: int,
        dim: int,
        is_ip: bool,
        first_row: int,
        last_row: int,
        copy_nodes: NDArray[np.uint32],
        copy_starts: NDArray[np.uint64],
        copy_rows: NDArray[np.uint64],
        orphans: NDArray[np.uint32],
    ) -> None:
        self.first_row, self.last_row, self.n_nodes, self.dim = first_row, last_row, n_nodes, dim
        self.n_rows = n_nodes + len(copy_rows)
        self.image = image
        self._looked_s = 0.0
        self._file = image.obj if isinstance(image.obj, mmap.mmap) else None
        self._checksums = checksums
        self._states = np.zeros(len(checksums), np.uint8)
        self._trusted = False
        self._lock = threading.Lock()
        self._node_of_row: NDArray[np.int64] | None = None
        if len(checksums) != -(-len(image) // BLOCK_BYTES):
            raise CorruptStoreError(
                f"the segment of rows {first_row}-{last_row} has {len(image)} bytes, not as many as written"
            )
        self.header = read_header(image, n_nodes, dim)
        self._verify({0, *range(self.header.upper_at // BLOCK_BYTES, len(checksums))})
        upper = read_upper(image, self.header)
        self._upper_ids = upper.ids
        self._copy_nodes, self._copy_starts, self._copy_rows = copy_nodes, copy_starts, copy_rows
        try:
            self._graph = _kernel.Graph(
                image, n=n_nodes, dim=dim, M=self.header.M, M0=self.header.M0, entry=self.header.entry,
                max_level=self.header.max_level, upper_ids=upper.ids, upper_at=upper.at, upper_levels=upper.levels,
                is_ip=is_ip, first_row=first_row, last_row=last_row, blocks=self._states, copy_nodes=copy_nodes,
                copy_starts=copy_starts, copy_rows=copy_rows, orphans=orphans,
            )  # fmt: skip
        except ValueError as err:
            raise CorruptStoreError(f"the segment of rows {first_row}-{last_row} is damaged: {err}") from err

    # -- trust --

    def _verify(self, blocks: set[int]) -> None:
        for block in blocks:
            at = block * BLOCK_BYTES
            if xxh3_64_intdigest(self.image[at : at + BLOCK_BYTES]) != int(self._checksums[block]):
                raise CorruptStoreError(
                    f"the segment of rows {self.first_row}-{self.last_row} is damaged between bytes {at} and {at + BLOCK_BYTES}"
                )
            self._states[block] = _kernel.BLOCK_GOOD

    def verify(self) -> None:
        """Compares all of the file with its checksums.

        Raises:
            CorruptStoreError: A block differs.
        """
        self._look()
        self._verify(set(np.flatnonzero(self._states != _kernel.BLOCK_GOOD).tolist()))
        self._graph.trust()
        self._trusted = True

    def _look(self) -> None:
        """Raises CorruptStoreError if the file has been cut off since it was mapped: reading on would kill the process.

        It looks once in a millisecond: who cuts a file off while it is being read cannot be helped anyway.
        """
        now = time.monotonic()
        if now - self._looked_s < _LOOK_EVERY_S:
            return
        if self._file is not None and (size := self._file.size()) < len(self.image):
            rows = f"{self.first_row}-{self.last_row}"
            raise CorruptStoreError(f"the segment of rows {rows} was cut off: it has {size} bytes of {len(self.image)}")
        self._looked_s = now  # not before: another thread must not walk into what this one has found

    def _run(self, work: Callable[[], int], found: Found | None) -> int:
        """Runs kernel work until every block it has read is verified; returns its flags."""
        self._look()
        before = found.copy() if found is not None and found.n_parts and not self._trusted else None
        has_verified = False
        while (flags := work()) & _kernel.UNVERIFIED:
            has_verified = True
            self._verify(set(np.flatnonzero(self._states == _kernel.BLOCK_WANTED).tolist()))
            if found is not None:
                found.become(before)
        self._raise_if(flags)
        if has_verified and np.all(self._states == _kernel.BLOCK_GOOD):
            self._graph.trust()
            self._trusted = True
        return flags

    def _raise_if(self, flags: int) -> None:
        if flags & _kernel.CORRUPT:
            raise CorruptStoreError(f"the segment of rows {self.first_row}-{self.last_row} holds links or rows out of bounds")
        if flags & _kernel.NO_MEMORY:
            raise MemoryError("no memory for a search")

    # -- answers --

    def search(
        self,
        queries: NDArray[np.float32],
        ef: int,
        allowed: NDArray[np.uint64] | None,
        found: Found,
        expected: int,
        n_allowed: int | None = None,
        allowed_nodes: NDArray[np.uint64] | None = None,
    ) -> bool:
        """Adds the approximate nearest of each query [n, dim] to found.

        Args:
            ef: How many candidates the walk keeps; at least k are kept.
            allowed: A bitmap over rows, or None for all.
            expected: How many answers each query should have at least.
            n_allowed: How many rows are allowed: the walk gives up once comparing all of these would have cost no more. Where
                ``exact_is_cheaper`` says no, one under an allowed set that is spread evenly needs about a third of them.

            allowed_nodes: A bitmap over nodes that says the same as ``allowed``, which is faster.

        Returns:
            Whether each has; if not, found is as it was.
        """
        before = found.copy() if found.n_parts else None
        budget = self.n_nodes if n_allowed is None else max(_LEAST_BUDGET, n_allowed * 3 // 4)
        if self._trusted:
            self._look()
            flags = self._graph.search(queries, ef, allowed, found, expected, budget, None, allowed_nodes)
        else:
            flags = self._run(
                lambda: self._graph.search(queries, ef, allowed, found, expected, budget, None, allowed_nodes), found
            )
        if flags:
            self._raise_if(flags)
            found.become(before)
            return False
        found.n_parts += 1
        return True

    def search_without(
        self,
        queries: NDArray[np.float32],
        ef: int,
        allowed: NDArray[np.uint64] | None,
        found: Found,
        hidden: NDArray[np.uint32],
    ) -> None:
        """As search, each walk as if one node were not in the graph: what it would find for a query that no node equals.

        Args:
            hidden: A node for each query, of ``plain_nodes``.
        """
        self._run(lambda: self._graph.search(queries, ef, allowed, found, 0, self.n_nodes, hidden), found)
        found.n_parts += 1

    def plain_nodes(self) -> NDArray[np.uint32]:
        """The nodes on level 0 only that stand for one row each."""
        is_plain = np.ones(self.n_nodes, bool)
        is_plain[self._upper_ids] = False
        is_plain[self._copy_nodes] = False
        return np.flatnonzero(is_plain).astype(np.uint32)

    def scan(
        self,
        queries: NDArray[np.float32],
        allowed: NDArray[np.uint64] | None,
        found: Found,
        nodes: NDArray[np.uint32] | None = None,
    ) -> None:
        """Adds the exact nearest of each query to found; of some nodes only, if given."""
        self._run(lambda: self._graph.scan(queries, nodes, allowed, found), found)
        found.n_parts += 1

    def distances(self, query: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
        """The raw distance from query [dim] to every row in the segment, and those rows; in no order."""
        out = np.empty(self.n_nodes, np.float32)
        self._run(lambda: self._graph.distances_to_all(query, out), None)
        copies = np.diff(self._copy_starts).astype(np.int64) if len(self._copy_nodes) else np.empty(0, np.int64)
        return (
            np.concatenate([out, np.repeat(out[self._copy_nodes], copies)]),
            np.concatenate([self.node_rows(), self._copy_rows]),
        )

    def exact_is_cheaper(self, n_allowed: int, ef: int) -> bool:
        """Whether comparing the allowed rows one by one costs less than walking the graph past all the others.

        The walk visits about ef·n / allowed nodes; c is measured by tools/bench.
        """
        c = 40 if self.dim < 512 else 12
        return n_allowed <= max(_FEW, math.isqrt(int(c * ef * self.n_nodes)))

    # -- what is in it --

    def node_rows(self) -> NDArray[np.uint64]:
        """The first row of each node, uint64 [n_nodes]."""
        result: list[NDArray[np.uint64]] = []

        def read() -> int:
            rows, flags = self._graph.node_rows()
            result[:] = [rows]
            return flags

        self._run(read, None)
        return result[0]

    def rows(self) -> NDArray[np.uint64]:
        """Every row in the segment, in no order."""
        return np.concatenate([self.node_rows(), self._copy_rows])

    def nodes_of(self, rows: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The nodes that stand for rows; rows that are not in the segment are left out."""
        with self._lock:
            if self._node_of_row is None:
                node_of_row = np.full(self.last_row - self.first_row + 1, -1, np.int64)
                node_of_row[self.node_rows() - np.uint64(self.first_row)] = np.arange(self.n_nodes)
                if len(self._copy_nodes):
                    owners = np.repeat(self._copy_nodes.astype(np.int64), np.diff(self._copy_starts).astype(np.int64))
                    node_of_row[self._copy_rows - np.uint64(self.first_row)] = owners
                self._node_of_row = node_of_row
        nodes: NDArray[np.int64] = self._node_of_row[rows - np.uint64(self.first_row)]
        return nodes[nodes >= 0].astype(np.uint32)

    def vectors(self) -> NDArray[np.float32]:
        """The nodes' vectors as they are compared, float32 [n_nodes, dim], a view of the file."""
        level0 = np.frombuffer(self.image, np.uint8)[HEADER_BYTES : self.header.upper_at]
        nodes = level0.reshape(self.n_nodes, self.header.node_bytes)
        return nodes[:, 4 + 4 * self.header.M0 : -8].view("<f4")

    def unreachable(self) -> NDArray[np.uint32]:
        """The nodes that no walk from the entry point meets."""
        result: list[NDArray[np.uint32]] = []

        def read() -> int:
            nodes, flags = self._graph.unreachable()
            result[:] = [nodes]
            return flags

        self._run(read, None)
        return result[0]

    def copies(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64], NDArray[np.uint64]]:
        """The copies table: nodes, starts, rows."""
        return self._copy_nodes, self._copy_starts, self._copy_rows
